// runtime/os/userfaultfd.h and runtime/os/pages.h over the machine's pages: ioctl_userfaultfd(2), madvise(2)
// and mincore(2) as the kernel has them for anonymous memory, each page one step.
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "runtime/os/pages.h"
#include "runtime/os/userfaultfd.h"
#include "tests/interleaving/machine.h"
#include "tests/interleaving/stepped_atomic.h"

namespace pnode::os {
namespace {

using interleaving::Broken;
using interleaving::Machine;
using Page = Machine::Page;

Machine& machine() noexcept {
    return *Machine::running;
}

// Whoever reads what is not there shall read what nobody wrote.
void become_absent(void* address, Page& page) noexcept {
    page.present = page.write_protected = false;
    std::memset(address, 0xee, page_bytes);
}

// visit(page, its address) for each page, a step before each, until one says no: its errno.
template <class Visit>
int for_each_page(const char* what, void* address, std::size_t bytes, Visit visit) noexcept {
    for (std::size_t offset = 0; offset < bytes; offset += page_bytes) {
        auto* const at = static_cast<std::byte*>(address) + offset;
        Page* const page = machine().page_at(at);
        if (page == nullptr) return 0;  // memory of the runtime's own
        interleaving::step();
        const int error = visit(*page, at);
        interleaving::saw(static_cast<std::uint64_t>(error));
        interleaving::touched();
        if (interleaving::is_noting())
            interleaving::note(std::string(what) +
                               (error != 0 ? std::string(": ") + strerrorname_np(error) : ""));
        if (error != 0) return error;
    }
    return 0;
}

int copy(void* destination, const void* source, std::size_t bytes, bool protect, std::size_t* done) noexcept {
    *done = 0;
    const auto* from = static_cast<const std::byte*>(source);
    const int error = for_each_page("copy", destination, bytes, [&](Page& page, std::byte* at) {
        if (page.present) return EEXIST;
        if (!page.watched) return ENOENT;
        if (machine().is_refused()) return EAGAIN;
        std::memcpy(at, from, page_bytes);
        page.present = true;
        page.write_protected = protect;
        if (!machine().breaks(Broken::wakes)) machine().wake(at);
        *done += page_bytes;
        from += page_bytes;
        return 0;
    });
    if (error == 0) *done = bytes;  // also where the destination is memory of the runtime's own
    return error;
}

}  // namespace

const char* describe(UffdRung) noexcept {
    return "model";
}

UffdOpened open_userfaultfd(std::uint64_t, bool) noexcept {
    UffdOpened opened;
    opened.fd = 1000;
    opened.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_POISON | UFFD_FEATURE_SIGBUS;
    if (machine().has_move()) opened.features |= UFFD_FEATURE_MOVE;
    return opened;
}

int reopen_userfaultfd(UffdOpened&) noexcept {
    return 0;
}

void close_userfaultfd(UffdOpened& opened) noexcept {
    opened = UffdOpened{};
}

int uffd_register(int, void* address, std::size_t bytes, std::uint64_t) noexcept {
    return for_each_page("register", address, bytes, [](Page& page, void*) {
        page.watched = true;
        return 0;
    });
}

int uffd_unregister(int, void* address, std::size_t bytes) noexcept {
    return for_each_page("unregister", address, bytes, [](Page& page, std::byte* at) {
        page.watched = page.write_protected = false;
        machine().wake(at);
        return 0;
    });
}

int uffd_copy(int, void* destination, const void* source, std::size_t bytes, std::size_t* done) noexcept {
    return copy(destination, source, bytes, false, done);
}

int uffd_copy_protected(int, void* destination, const void* source, std::size_t bytes,
                        std::size_t* done) noexcept {
    return copy(destination, source, bytes, true, done);
}

int uffd_move(int, void* destination, void* source, std::size_t bytes, std::size_t* done) noexcept {
    *done = 0;
    auto* from = static_cast<std::byte*>(source);
    return for_each_page("move", destination, bytes, [&](Page& page, std::byte* at) {
        Page& moved = *machine().page_at(from);
        if (page.present) return EEXIST;
        if (!moved.present) return ENOENT;
        if (machine().is_refused()) {
            if (machine().breaks(Broken::cancelled_move)) become_absent(from, moved);
            return EBUSY;
        }
        std::memcpy(at, from, page_bytes);
        page.present = true;
        become_absent(from, moved);
        machine().wake(at);
        if (machine().is_refused()) return *done == 0 ? EBUSY : EAGAIN;  // moved, and not counted
        *done += page_bytes;
        from += page_bytes;
        return 0;
    });
}

bool uffd_is_occupied(int, std::byte* page, std::uint64_t) noexcept {
    return is_present(page);
}

int uffd_write_protect(int, void* address, std::size_t bytes, bool protect) noexcept {
    return for_each_page(protect ? "protect" : "unprotect", address, bytes, [&](Page& page, std::byte* at) {
        if (protect && machine().is_refused()) return EAGAIN;
        if (page.present) page.write_protected = protect;
        if (!protect) machine().wake(at);
        return 0;
    });
}

int uffd_wake(int, void* address, std::size_t bytes) noexcept {
    return for_each_page("wake", address, bytes, [](Page&, std::byte* at) {
        machine().wake(at);
        return 0;
    });
}

int uffd_poison(int, void*, std::size_t) noexcept {
    interleaving::fail("a page is poisoned");
    return 0;
}

void drop_pages(void* address, std::size_t bytes) noexcept {
    for_each_page("drop", address, bytes, [](Page& page, std::byte* at) {
        become_absent(at, page);
        return 0;
    });
}

bool drop_ranges(const iovec* ranges, unsigned count) noexcept {
    for (const iovec* range = ranges; range != ranges + count; ++range)
        drop_pages(range->iov_base, range->iov_len);
    return true;
}

void keep_unmerged(void*, std::size_t) noexcept {}

std::size_t read_ranges(std::byte* to, std::size_t, const iovec* from, unsigned count) noexcept {
    std::size_t done = 0;
    for (const iovec* range = from; range != from + count; ++range) {
        const int error =
            for_each_page("read", range->iov_base, range->iov_len, [&](Page& page, std::byte* at) {
                if (!page.present || machine().is_refused()) return EFAULT;
                std::memcpy(to + done, at, page_bytes);
                done += page_bytes;
                return 0;
            });
        if (error != 0) break;
    }
    return done;
}

int find_present(const void* address, std::size_t bytes, unsigned char* present) noexcept {
    return for_each_page("find", const_cast<void*>(address), bytes, [&](Page& page, std::byte*) {
        *present++ = page.present ? 1 : 0;
        interleaving::saw(page.present ? 1 : 0);
        return 0;
    });
}

int find_occupied(int, const void* address, std::size_t bytes, unsigned char* occupied) noexcept {
    return find_present(address, bytes, occupied);
}

int open_page_map() noexcept {
    return -1;
}

bool is_present(const void* page) noexcept {
    unsigned char present = 1;
    return find_present(page, page_bytes, &present) != 0 || (present & 1) != 0;
}

bool is_locked(void*) noexcept {
    return false;
}

int populate(void* address, std::size_t bytes, Populate) noexcept {
    return for_each_page("populate", address, bytes, [](Page& page, std::byte* at) {
        if (page.present) return 0;
        if (page.watched) return EFAULT;
        std::memset(at, 0, page_bytes);
        page.present = true;
        return 0;
    });
}

int move_page_tables(void* to, void* from, std::size_t bytes) noexcept {
    auto* source = static_cast<std::byte*>(from);
    return for_each_page("remap", to, bytes, [&](Page& page, std::byte* at) {
        Page& moved = *machine().page_at(source);
        std::memcpy(at, source, page_bytes);
        page.present = moved.present;
        page.write_protected = moved.write_protected;
        become_absent(source, moved);
        source += page_bytes;
        return 0;
    });
}

}  // namespace pnode::os
