// A port of the loopback interface that is free now. Somebody else may take it before the server does that it
// is for, which then says so.
#pragma once

namespace pnode::bench {

// Throws std::system_error.
int free_port();

}  // namespace pnode::bench
