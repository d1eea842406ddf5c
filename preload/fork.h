// fork(): what this library owes to a child beside what the runtime and jemalloc do themselves. README.md has
// the order of the handlers and why it is so.
#pragma once

namespace pnode::preload {

// Registers the handlers; after the runtime's and jemalloc's. From within InsideRuntime.
void fork_prepare() noexcept;

}  // namespace pnode::preload
