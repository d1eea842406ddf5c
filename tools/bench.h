// pnode bench: becomes the program pnode-bench that lies beside this one, or pnode-bench-NAME where a name
// comes first.
#pragma once

#include <string>
#include <vector>

namespace pnode::tools {

// Returns only when it cannot: an exit code, after one line on standard error.
int bench(const std::vector<std::string>& arguments);

}  // namespace pnode::tools
