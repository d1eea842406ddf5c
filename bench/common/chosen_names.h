// Names that a command line chooses by their beginnings: "read" chooses read-uniform and read-zipf.
#pragma once

#include <string>
#include <vector>

namespace pnode::bench {

// All are, where there are no beginnings.
bool is_chosen(const std::vector<std::string>& beginnings, const std::string& name);

// Of one such beginning: "", or one line that says which names there are. `what` is a name of them, "case".
std::string check_beginning(const std::string& what, const std::string& beginning,
                            const std::vector<std::string>& names);

}  // namespace pnode::bench
