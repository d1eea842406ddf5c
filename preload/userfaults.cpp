#include "preload/userfaults.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>

#include "preload/kernel_calls.h"
#include "preload/mapping_parts.h"
#include "preload/shield/held_call.h"
#include "runtime/os/userfaultfd.h"

namespace pnode::preload {
namespace {

struct Control {
    int fd;
    std::uint32_t request;
    Address argument;
};

long ask_kernel(const Control& control) noexcept {
    const long arguments[6] = {control.fd, os::argument(control.request), os::argument(control.argument)};
    return held_call(SYS_ioctl, arguments, nullptr);
}

template <class Argument>
long ask_kernel(const Control& control, Argument* argument) noexcept {
    return ask_kernel({control.fd, control.request, reinterpret_cast<Address>(argument)});
}

// And wakes once more: os::uffd_unregister() says why.
long unregister(int fd, Range range) noexcept {
    uffdio_range argument{range.first, range.bytes()};
    const long result = ask_kernel({fd, UFFDIO_UNREGISTER, 0}, &argument);
    if (result == 0) ask_kernel({fd, UFFDIO_WAKE, 0}, &argument);
    return result;
}

template <class Argument>
bool read_argument(const Control& control, Argument* out) noexcept {
    Hold hold;
    hold.add(control.argument, sizeof *out);
    return peek(out, control.argument, sizeof *out);
}

bool write_field(Address to, const void* from, std::size_t bytes) noexcept {
    Hold hold;
    hold.add(to, bytes);
    return poke(to, from, bytes);
}

// What the kernel takes for a range, where some of it is ours.
bool is_of_heap(std::uint64_t first, std::uint64_t bytes, Range* range) noexcept {
    return (bytes & page_mask) == 0 && whole_pages(first, bytes, range) && range->touches(heap_range());
}

// ---- whose is the descriptor? ----

enum class Whose : std::uint8_t {
    ours,       // of this process, and it takes the mode
    anothers,   // or no userfaultfd, or it does not take the mode: the kernel says what it is
    untellable  // no memory to try it with
};

// A page is registered where only this process has one: below where programs are linked to, and above where
// the kernel lets nobody.
Address map_page_to_try() noexcept {
    constexpr Address from = 0x100000, end = 0x400000;
    constexpr int only_if_empty = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    for (Address at = from; at < end; at += PN_PAGE_BYTES) {
        const long mapped = kernel::map(at, PN_PAGE_BYTES, PROT_READ | PROT_WRITE, only_if_empty, -1, 0);
        if (mapped == static_cast<long>(at)) return at;
        if (!kernel::failed(mapped))
            kernel::unmap(static_cast<Address>(mapped), PN_PAGE_BYTES);  // before 4.17
        if (mapped != -EEXIST) break;
    }
    return 0;
}

Whose whose(int fd, std::uint64_t mode) noexcept {
    const Address page = map_page_to_try();
    if (page == 0) return Whose::untellable;
    kernel::advise(page, PN_PAGE_BYTES, MADV_DONTFORK);  // no child shall tell of it
    uffdio_register argument{};
    argument.range = {page, PN_PAGE_BYTES};
    argument.mode = mode;
    const long tried = ask_kernel({fd, UFFDIO_REGISTER, 0}, &argument);
    if (tried == 0) unregister(fd, {page, page + PN_PAGE_BYTES});
    kernel::unmap(page, PN_PAGE_BYTES);
    return tried == 0 ? Whose::ours : tried == -ENOMEM ? Whose::untellable : Whose::anothers;
}

// ---- registering ----

// visit(range) for each longest part of `range` that is mapped as far as we know, and where the heap has it
// of a kind in `kinds`; its first error. With the frame.
template <class Visit>
long for_each_part(Range range, unsigned kinds, Visit visit) noexcept {
    const Range ours = range.within(heap_range());
    Range part{range.first, ours.first};
    long result = 0;
    const auto end_part = [&] {
        if (result == 0 && !part.is_empty()) result = visit(part);
    };
    for_each_extent(heap_served(), ours, [&](Range extent, const pn_extent_t& is) {
        if ((kinds & (1U << is.kind)) != 0) {
            part.end = extent.end;
        } else {
            end_part();
            part = {extent.end, extent.end};
        }
        return result == 0;
    });
    if (result == 0) part.end = range.end;
    end_part();
    return result;
}

constexpr unsigned handed_out_only = 1U << PN_EXTENT_HANDED_OUT;
constexpr unsigned all_in_use = handed_out_only | 1U << PN_EXTENT_BUFFER;

// What the kernel refuses changes nothing: it is asked about a page of our own first. Where it refuses
// afterwards (vm.max_map_count, another userfaultfd of the program's) the pages stay handed out.
long register_range(const Control& control) noexcept {
    uffdio_register wanted;
    Range range;
    if (!read_argument(control, &wanted) || !is_of_heap(wanted.range.start, wanted.range.len, &range) ||
        is_inside_runtime())
        return ask_kernel(control);
    const MappingFrame frame;
    const Whose descriptor = whose(control.fd, wanted.mode);
    if (descriptor == Whose::untellable) return -ENOMEM;
    if (descriptor == Whose::anothers) return ask_kernel(control);
    if (const int error = lend_pages(range.within(heap_range()))) return -error;
    bool any = false;
    Address done = range.first;
    wanted.ioctls = ~__u64{0};
    const long result = for_each_part(range, all_in_use, [&](Range part) {
        uffdio_register argument = wanted;
        argument.range = {part.first, part.bytes()};
        const long registered = ask_kernel(control, &argument);
        if (registered != 0) return registered;
        wanted.ioctls &= argument.ioctls;
        done = part.end;
        any = true;
        return registered;
    });
    if (result != 0 && done > range.first)
        for_each_part({range.first, done}, handed_out_only,
                      [&](Range part) { return unregister(control.fd, part); });
    if (result != 0) return result;
    if (!any) return -EINVAL;
    const Address ioctls_at = control.argument + offsetof(uffdio_register, ioctls);
    return write_field(ioctls_at, &wanted.ioctls, sizeof wanted.ioctls) ? 0 : -EFAULT;
}

// What is not handed out is registered with the heap's own: the kernel would take that away.
long unregister_range(const Control& control) noexcept {
    uffdio_range wanted;
    Range range;
    if (!read_argument(control, &wanted) || !is_of_heap(wanted.start, wanted.len, &range) ||
        is_inside_runtime())
        return ask_kernel(control);
    const MappingFrame frame;
    const Whose descriptor = whose(control.fd, UFFDIO_REGISTER_MODE_MISSING);
    if (descriptor == Whose::untellable) return -ENOMEM;
    if (descriptor == Whose::anothers) return ask_kernel(control);
    return for_each_part(range, handed_out_only, [&](Range part) { return unregister(control.fd, part); });
}

// ---- filling in ----

// What the other requests say where: all begin with the target's address. The result's field is as far from
// the structure's start; 0: there is none.
struct Target {
    std::uint32_t request;
    std::uint8_t bytes_at;
    std::uint8_t result_at;
};
constexpr Target targets[] = {
    {UFFDIO_COPY, offsetof(uffdio_copy, len), offsetof(uffdio_copy, copy)},
    {UFFDIO_ZEROPAGE, offsetof(uffdio_range, len), offsetof(uffdio_zeropage, zeropage)},
    {UFFDIO_WRITEPROTECT, offsetof(uffdio_range, len), 0},
    {UFFDIO_CONTINUE, offsetof(uffdio_range, len), offsetof(uffdio_continue, mapped)},
    {UFFDIO_POISON, offsetof(uffdio_range, len), offsetof(uffdio_poison, updated)},
    {UFFDIO_MOVE, offsetof(uffdio_move, len), offsetof(uffdio_move, move)},
};

const Target* find_target(std::uint32_t request) noexcept {
    for (const Target& target : targets) {
        if (target.request == request) return &target;
    }
    return nullptr;
}

struct Filling {
    Address to = 0;
    Address from = 0;  // of those that have a source
    std::uint64_t bytes = 0;
};

bool read_filling(const Control& control, const Target& target, Filling* out) noexcept {
    std::uint64_t words[3];
    if (!read_argument(control, &words)) return false;
    *out = {words[0], words[1], words[target.bytes_at / sizeof words[0]]};
    return true;
}

// Without the frame. Two atomics a page, and only of ranges of the heap.
bool is_all_handed_out(Range range) noexcept {
    return for_each_extent(heap_served(), range, [](Range, const pn_extent_t& extent) {
        return extent.kind == PN_EXTENT_HANDED_OUT;
    });
}

// The kernel looks whether the target is registered, not with what: of the heap's own pages it would fill
// those that are far.
bool is_refused(const Control& control, const Filling& filling) noexcept {
    Range range;
    if (!is_of_heap(filling.to, filling.bytes, &range) || is_all_handed_out(range.within(heap_range())))
        return false;
    return whose(control.fd, UFFDIO_REGISTER_MODE_MISSING) != Whose::anothers;
}

long refuse(const Control& control, const Target& target) noexcept {
    const std::int64_t result = -ENOENT;
    if (target.result_at != 0) write_field(control.argument + target.result_at, &result, sizeof result);
    return result;
}

// A source that is far is brought near piece by piece, so that it need not be near at once.
long copy_in_pieces(const Control& control, const Filling& filling) noexcept {
    constexpr std::uint64_t piece_bytes = std::uint64_t{1} << 20;
    uffdio_copy wanted;
    if (!Hold::may_be_managed(filling.from, filling.bytes) || !read_argument(control, &wanted))
        return ask_kernel(control);
    std::uint64_t done = 0;
    long result = 0;
    uffdio_copy piece;
    do {
        piece = wanted;
        piece.dst += done;
        piece.src += done;
        piece.len = std::min<std::uint64_t>(wanted.len - done, piece_bytes);
        piece.copy = 0;
        result = ask_kernel(control, &piece);
        if (piece.copy > 0) done += static_cast<std::uint64_t>(piece.copy);
        // Part of it is done: the rest says what is the matter.
    } while (piece.copy > 0 && done < wanted.len);
    wanted.copy = done != 0 ? static_cast<__s64>(done) : piece.copy;
    if (done != 0) result = done == wanted.len ? 0 : -EAGAIN;
    const Address result_at = control.argument + offsetof(uffdio_copy, copy);
    return write_field(result_at, &wanted.copy, sizeof wanted.copy) ? result : -EFAULT;
}

// The kernel takes the source's pages away: they cannot be the heap's any more.
long move_pages(const Control& control, const Filling& filling) noexcept {
    Range source;
    if (is_of_heap(filling.from, filling.bytes, &source) && !is_inside_runtime()) {
        const MappingFrame frame;
        if (const int error = lend_pages(source.within(heap_range()))) return -error;
    }
    return ask_kernel(control);
}

long fill(const Control& control, const Target& target) noexcept {
    Filling filling;
    if (!read_filling(control, target, &filling)) return ask_kernel(control);
    if (is_refused(control, filling)) return refuse(control, target);
    if (control.request == UFFDIO_COPY) return copy_in_pieces(control, filling);
    return control.request == UFFDIO_MOVE ? move_pages(control, filling) : ask_kernel(control);
}

}  // namespace

bool is_userfault_request(std::uint32_t request) noexcept {
    return request == UFFDIO_REGISTER || request == UFFDIO_UNREGISTER || find_target(request) != nullptr;
}

long userfault_control(int fd, std::uint32_t request, Address argument) noexcept {
    const Control control{fd, request, argument};
    if (heap_range().is_empty()) return ask_kernel(control);
    if (request == UFFDIO_REGISTER) return register_range(control);
    if (request == UFFDIO_UNREGISTER) return unregister_range(control);
    return fill(control, *find_target(request));
}

}  // namespace pnode::preload
