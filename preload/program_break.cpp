// The program's break: brk(2) and sbrk(3), in the heap where mappings are. libc's own break, of its malloc,
// stays the kernel's and apart from this one.
//
// Nothing is taken before the break rises; then the pages below it are a buffer that grows and shrinks. It
// begins high in the heap's range, where other buffers come last; one that came first ends its growth, as a
// mapping in the way does in the kernel.
#include <cerrno>

#include "preload/kernel_calls.h"
#include "preload/mapping_parts.h"
#include "preload/mappings.h"

namespace pnode::preload {
namespace {

constexpr Address large_page_mask = (Address{2} << 20) - 1;

// With the frame.
constinit Address break_first = 0;
constinit Address break_now = 0;

void begin_break() noexcept {
    if (break_first != 0) return;
    const Range heap = heap_range();
    break_first = (heap.first + heap.bytes() / 4 * 3) & ~large_page_mask;
    break_now = break_first;
}

Address page_end(Address address) noexcept {
    return (address + page_mask) & ~page_mask;
}

// 0 or ENOMEM, and then it has not moved.
int move_break(Address wanted) noexcept {
    if (wanted < break_first || wanted > heap_range().end) return ENOMEM;
    const Range more{page_end(break_now), page_end(wanted)};
    const Range less{more.end, more.first};
    if (!more.is_empty() && pn_buffer_alloc_at(heap_served(), at(more), more.bytes(), 0) != 0) return ENOMEM;
    if (!less.is_empty() && unmap_pages(less) != 0) return ENOMEM;
    break_now = wanted;
    return 0;
}

// What it was, or minus an errno.
long move_libc_break(std::intptr_t bytes) noexcept {
    const int saved_errno = errno;
    const auto before = reinterpret_cast<long>(kernel::__sbrk(bytes));
    const int error = errno;
    errno = saved_errno;
    return before == -1 ? -error : before;
}

}  // namespace

long mapping_break(Address wanted) noexcept {
    if (!captures_mappings()) {
        const long result = move_libc_break(static_cast<std::intptr_t>(wanted) - move_libc_break(0));
        return kernel::failed(result) ? result : 0;
    }
    if (is_inside_runtime()) return -ENOMEM;
    const MappingFrame frame;
    begin_break();
    return -move_break(wanted);
}

long mapping_break_by(std::intptr_t bytes) noexcept {
    if (!captures_mappings()) return move_libc_break(bytes);
    if (is_inside_runtime()) return -ENOMEM;
    const MappingFrame frame;
    begin_break();
    const Address before = break_now;
    Address wanted = 0;
    if (__builtin_add_overflow(before, bytes, &wanted)) return -ENOMEM;
    const int error = move_break(wanted);
    return error != 0 ? -error : static_cast<long>(before);
}

}  // namespace pnode::preload
