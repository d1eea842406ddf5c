#include "preload/mapping_state.h"

#include <algorithm>
#include <atomic>

#include "preload/hooks.h"
#include "preload/kernel_calls.h"
#include "preload/mappings.h"
#include "runtime/os/runtime_scope.h"
#include "runtime/os/wait.h"

namespace pnode::preload {
namespace {

constexpr Address addresses_end = (Address{1} << 47) - PN_PAGE_BYTES;  // of user space on x86-64

constinit Range heap_addresses;
constinit std::uint8_t* notes = nullptr;
constinit Range noted;

// 0 free, 1 held, 2 held and somebody waits. Acquire and release order everything under it.
constinit std::atomic<std::uint32_t> lock_word{0};

}  // namespace

void mappings_serve(pn_heap* heap) noexcept {
    void* base = nullptr;
    std::uint64_t bytes = 0;
    if (pn_heap_range(heap, &base, &bytes) != 0) return;
    const long table = kernel::map(0, bytes / PN_PAGE_BYTES, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (kernel::failed(table)) return;  // no address space: the second door stays shut
    notes = reinterpret_cast<std::uint8_t*>(table);
    heap_addresses = {reinterpret_cast<Address>(base), reinterpret_cast<Address>(base) + bytes};
}

Range heap_range() noexcept {
    return heap_addresses;
}

bool whole_pages(Address first, std::size_t bytes, Range* range) noexcept {
    if ((first & page_mask) != 0 || bytes == 0 || first >= addresses_end || bytes > addresses_end - first)
        return false;
    *range = {first, first + ((bytes + page_mask) & ~page_mask)};
    return true;
}

void mappings_hold() noexcept {
    std::uint32_t seen = 0;
    if (lock_word.compare_exchange_strong(seen, 1, std::memory_order_acquire)) return;
    while (lock_word.exchange(2, std::memory_order_acquire) != 0) os::futex_wait(lock_word, 2);
}

void mappings_let_go() noexcept {
    if (lock_word.exchange(0, std::memory_order_release) == 2) os::futex_wake_all(lock_word);
}

MappingFrame::MappingFrame() noexcept {
    mappings_hold();
}

MappingFrame::~MappingFrame() {
    mappings_let_go();
    errno = errno_;
}

bool is_inside_runtime() noexcept {
    return thread_state == thread_inside || os::inside_runtime != 0;
}

std::uint8_t notes_of(Address page) noexcept {
    return notes[(page - heap_addresses.first) / PN_PAGE_BYTES];
}

void set_notes(Range range, std::uint8_t mask, std::uint8_t bits) noexcept {
    if (bits != 0) {
        noted = noted.is_empty() ? range
                                 : Range{std::min(noted.first, range.first), std::max(noted.end, range.end)};
    }
    const Range part = range.within(noted);  // elsewhere there is nothing to clear
    for (Address page = part.first; page < part.end; page += PN_PAGE_BYTES) {
        std::uint8_t& at = notes[(page - heap_addresses.first) / PN_PAGE_BYTES];
        at = static_cast<std::uint8_t>((at & ~mask) | bits);
    }
}

Range noted_range() noexcept {
    return noted;
}

}  // namespace pnode::preload
