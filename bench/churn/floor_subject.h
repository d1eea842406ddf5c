// The kernel's own part of churn that faulting threads serve themselves: the exception, the signal,
// UFFDIO_COPY of a page that lies ready uncompressed, and dropping the oldest pages, many with one call and
// one flush. Nothing is decoded, encoded, proven or learnt. For pages that are only read.
#pragma once

#include <signal.h>

#include <atomic>
#include <vector>

#include "bench/churn/subject.h"
#include "bench/common/anonymous_memory.h"
#include "cxl/spin_lock.h"
#include "runtime/os/userfaultfd.h"

namespace pnode::bench {

class FloorSubject final : public Subject {
  public:
    // One in a process. Throws std::system_error.
    explicit FloorSubject(std::size_t bytes);
    ~FloorSubject() override;
    std::byte* memory() const override { return memory_.data(); }
    void set_limits(const Limits& limits) override;
    Usage usage() const override;

  private:
    enum class Where : std::uint8_t { away, busy, near };

    static void on_sigbus(int signal, siginfo_t* info, void* context);
    bool serve(std::uintptr_t address) noexcept;
    void came(std::uint32_t page) noexcept;
    void drop_oldest() noexcept;
    void copy_near_pages() noexcept;

    const std::size_t pages_;
    AnonymousMemory memory_;
    AnonymousMemory copies_;
    os::UffdOpened uffd_;
    std::vector<std::atomic<Where>> where_;
    // Near pages, oldest first, in a ring.
    cxl::SpinLock lock_;
    std::vector<std::uint32_t> ring_;
    std::size_t first_ = 0, count_ = 0;
    std::size_t near_pages_max_;
};

}  // namespace pnode::bench
