// Where tests make the kernel's answers fail: every system call of this folder that can fail asks first.
//
// Costs one load of a null pointer beside a system call. Set by tests alone, before the threads that are to
// see it start or with the heap at rest; the function runs on every thread that makes the call, so it obeys
// what the fault path obeys: no allocation, no lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace pnode::os {

enum class Call : std::uint8_t {
    open_device,
    userfaultfd,
    enable_features,
    raise_descriptor,
    register_range,
    unregister_range,
    copy,
    move,
    count_moved,  // not a call: what the kernel says of pages that it moved
    write_protect,
    wake,
    poison,
    read_faults,
    map,
    drop,
    read_ranges,
    find_present,
    count_present,  // neither: where it fails none of the pages counts, as when all are swapped out
    open_page_map,
    read_page_map,
    populate,
    move_page_tables,
    start_thread,
    make_child,
    wait,
    signal_action,
    count
};

// An errno instead of the call, or 0: then the call is made, of at most *bytes, which may have been lowered
// to whole pages: partial progress. A delay is whatever time the function takes.
using Injection = int (*)(Call call, std::size_t* bytes) noexcept;
inline constinit std::atomic<Injection> injection{nullptr};

inline int injected(Call call, std::size_t* bytes) noexcept {
    const Injection inject = injection.load(std::memory_order_acquire);
    return inject == nullptr ? 0 : inject(call, bytes);
}
inline int injected(Call call) noexcept {
    std::size_t unused = 0;
    return injected(call, &unused);
}

}  // namespace pnode::os
