// pnode probe: what this machine offers, and the cure for what it does not.
#pragma once

namespace pnode::tools {

// An exit code: 0 when the runtime could tell, whatever it told.
int probe(bool as_json);

}  // namespace pnode::tools
