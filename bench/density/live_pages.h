// The pages of a process's heap, as they are now: what a tier would be given.
#pragma once

#include <sys/types.h>

#include <string>

namespace pnode::bench {

// Every resident page of `process`'s writable private anonymous memory that is not all zero, one after
// another; without its stacks. Throws std::runtime_error when it may not be read.
std::string live_pages(pid_t process);

}  // namespace pnode::bench
