// jemalloc as it is embedded: its public symbols carry the prefix pn_je_ (jemalloc_symbols.txt), so that ours
// can have the names that programs call.
#pragma once

#include <jemalloc/jemalloc.h>  // extent_hooks_t and the MALLOCX_ flags; its functions are the host's, not these

#include <cstddef>

extern "C" {
// Read once, when jemalloc starts. Ours overrides the archive's weak one.
extern const char* pn_je_malloc_conf;

void* pn_je_malloc(std::size_t bytes) noexcept;
void* pn_je_calloc(std::size_t count, std::size_t bytes) noexcept;
void* pn_je_realloc(void* address, std::size_t bytes) noexcept;
void pn_je_free(void* address) noexcept;
int pn_je_posix_memalign(void** out, std::size_t alignment, std::size_t bytes) noexcept;
void* pn_je_aligned_alloc(std::size_t alignment, std::size_t bytes) noexcept;
void* pn_je_memalign(std::size_t alignment, std::size_t bytes) noexcept;
void* pn_je_valloc(std::size_t bytes) noexcept;
std::size_t pn_je_malloc_usable_size(void* address) noexcept;

void* pn_je_mallocx(std::size_t bytes, int flags) noexcept;
void* pn_je_rallocx(void* address, std::size_t bytes, int flags) noexcept;
std::size_t pn_je_xallocx(void* address, std::size_t bytes, std::size_t extra, int flags) noexcept;
std::size_t pn_je_sallocx(const void* address, int flags) noexcept;
void pn_je_dallocx(void* address, int flags) noexcept;
void pn_je_sdallocx(void* address, std::size_t bytes, int flags) noexcept;
std::size_t pn_je_nallocx(std::size_t bytes, int flags) noexcept;
int pn_je_mallctl(const char* name, void* old_value, std::size_t* old_bytes, void* new_value,
                  std::size_t new_bytes) noexcept;
int pn_je_mallctlnametomib(const char* name, std::size_t* mib, std::size_t* mib_length) noexcept;
int pn_je_mallctlbymib(const std::size_t* mib, std::size_t mib_length, void* old_value,
                       std::size_t* old_bytes, void* new_value, std::size_t new_bytes) noexcept;
void pn_je_malloc_stats_print(void (*write)(void*, const char*), void* context, const char* options) noexcept;
}
