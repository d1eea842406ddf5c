#include "runtime/os/pages.h"

#include <sys/mman.h>

#include <cerrno>

#include "runtime/os/injection.h"
#include "runtime/os/system_call.h"
#include "runtime/os/wait.h"

namespace pnode::os {
namespace {

// Not in every libc's headers.
constexpr int madv_populate_read = 22;  // 5.14
constexpr int madv_populate_write = 23;
constexpr int madv_dontneed_locked = 24;  // 5.18
constexpr int mremap_dontunmap = 4;       // 5.7

}  // namespace

void drop_pages(void* address, std::size_t bytes) noexcept {
    Backoff backoff;
    for (int advice = MADV_DONTNEED;;) {
        int error = injected(Call::drop);
        if (error == 0) error = error_of(system_call(SYS_madvise, address, bytes, advice));
        if (error == 0) return;
        if (error == EINVAL && advice == MADV_DONTNEED) {
            advice = madv_dontneed_locked;
        } else if (error != EAGAIN) {
            return;  // not our pages, or not pages: there is nothing to drop
        }
        backoff.wait();  // the kernel is short of something for a moment
    }
}

int find_present(const void* address, std::size_t bytes, unsigned char* present) noexcept {
    if (const int error = injected(Call::find_present)) return error;
    return error_of(system_call(SYS_mincore, address, bytes, present));
}

bool is_present(const void* page) noexcept {
    unsigned char present = 1;
    return find_present(page, 1, &present) != 0 || (present & 1) != 0;
}

int populate(void* address, std::size_t bytes, Populate how) noexcept {
    if (const int error = injected(Call::populate)) return error;
    return error_of(system_call(SYS_madvise, address, bytes,
                                how == Populate::write ? madv_populate_write : madv_populate_read));
}

int move_page_tables(void* to, void* from, std::size_t bytes) noexcept {
    constexpr int flags = MREMAP_MAYMOVE | MREMAP_FIXED | mremap_dontunmap;
    if (const int error = injected(Call::move_page_tables)) return error;
    return error_of(system_call(SYS_mremap, from, bytes, bytes, flags, to));
}

}  // namespace pnode::os
