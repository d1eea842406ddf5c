// The private anonymous pages of a running process, as they are: what a tier would hold of it.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <vector>

namespace pnode::bench {

// Up to `pages` of the resident pages of writable private mappings without a file (heap, stacks, anonymous
// mappings), in order of address; where there are more, stretches of 16 pages evenly chosen. The process runs
// on meanwhile: a page is as it was when it was read. Throws std::runtime_error that names the right that is
// missing: reading needs what ptrace(2) needs.
std::vector<std::byte> private_pages(pid_t process, std::size_t pages);

}  // namespace pnode::bench
