// "This thread is inside the runtime": counted per thread, read by the preload library, whose malloc then
// serves the thread from plain memory instead of the heap, because the runtime may hold what the heap needs
// (it starts threads inside an allocation, and inside fork).
#pragma once

namespace pnode::os {

// Initial-exec: no call to find it, so malloc can afford to look.
extern thread_local int inside_runtime __attribute__((tls_model("initial-exec")));

class RuntimeScope {
  public:
    RuntimeScope() noexcept { ++inside_runtime; }
    ~RuntimeScope() { --inside_runtime; }
    RuntimeScope(const RuntimeScope&) = delete;
    RuntimeScope& operator=(const RuntimeScope&) = delete;
};

}  // namespace pnode::os
