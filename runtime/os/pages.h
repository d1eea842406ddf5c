// What the kernel is told and asked about whole pages of the process's private memory, by our own
// instructions (system_call.h) for the fault path's sake.
//
// Thread rule: any thread, any context. Nothing here allocates; errno is left alone.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

namespace pnode::os {

// The contents are gone: they read as zeros, or fault. Locked pages too, which MADV_DONTNEED leaves alone:
// the program may have locked what is ours to drop (mlock, mlockall).
void drop_pages(void* address, std::size_t bytes) noexcept;

// The same for several ranges: one call, and one flush of other processors' TLBs, where the kernel lets a
// process advise itself (6.14); else one after the other. The kernel writes to no range. False: some of it is
// locked, and stays; the rest may be gone or not.
[[nodiscard]] bool drop_ranges(const iovec* ranges, unsigned count) noexcept;

// The kernel merges none of the pages with equal ones (KSM), which MADV_MERGEABLE and PR_SET_MEMORY_MERGE ask
// for, that one inherited over execve(2), and parts those that it has merged. A merged page is
// write-protected no more, as far as userfaultfd goes (mm/ksm.c, replace_page, still in Linux 6.18): who
// writes to it is not told of.
void keep_unmerged(void* address, std::size_t bytes) noexcept;

// Copies `bytes`, which is what the ranges are together, as the kernel reads them: where a page is not there
// or not readable it stops. How many bytes. Where handler threads serve the kernel's faults it would wait for
// them.
std::size_t read_ranges(std::byte* to, std::size_t bytes, const iovec* from, unsigned count) noexcept;

// A page to copy a first touch from: read-only data, so the kernel never has to zero-fill it for us.
alignas(4096) inline constexpr std::byte zeros[4096] = {};

// Which pages the kernel has in place: the lowest bit of each byte. 0 or an errno.
int find_present(const void* address, std::size_t bytes, unsigned char* present) noexcept;

// Which pages there is anything of in the kernel's page table: the same, and those that are swapped out,
// which mincore(2) does not tell apart from none. By proc_pid_pagemap(5) where the system has swap:
// `page_map` is open_page_map()'s, of this process (a forked child's is its parent's no more); without one
// that is an error, for nobody knows.
int find_occupied(int page_map, const void* address, std::size_t bytes, unsigned char* occupied) noexcept;

// A descriptor of ours (descriptors.h), or -1: there is no /proc, or the process may not look at itself.
int open_page_map() noexcept;

// One page. What the kernel will not say counts as present: whoever then finds it absent is told so. One that
// is swapped out does not count: uffd_is_occupied() tells whether there is one at all.
bool is_present(const void* page) noexcept;

// Has the program locked it (mlock)? The kernel says so only by refusing advice that reclaim might take,
// which costs the page nothing that being on its way out does not.
bool is_locked(void* page) noexcept;

// Fills in what is absent, or makes what is shared with a forked child the process's own. 0 or an errno.
enum class Populate : std::uint8_t { read, write };
int populate(void* address, std::size_t bytes, Populate how) noexcept;

// The page tables change hands whole: `from` stays mapped, and is empty; what was at `to` is gone. 0 or an
// errno: the kernel refuses a range that it keeps as several mappings.
int move_page_tables(void* to, void* from, std::size_t bytes) noexcept;

}  // namespace pnode::os
