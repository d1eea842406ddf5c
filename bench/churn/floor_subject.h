// The kernel's own part of churn that faulting threads serve themselves: the exception, the signal,
// UFFDIO_COPY of a page that lies ready, and taking out the oldest pages, many at once. Where they are only
// read: dropping them, with one call and one flush. Where they are written to: UFFDIO_MOVE of each run of
// them, a copy, and dropping that. With a codec, pages that are only read lie ready compressed, as if all
// blobs were kept, and are decoded. Nothing is encoded, proven or learnt.
#pragma once

#include <signal.h>

#include <atomic>
#include <vector>

#include "bench/churn/subject.h"
#include "bench/common/anonymous_memory.h"
#include "bench/fault/page_copies.h"
#include "cxl/spin_lock.h"
#include "runtime/os/userfaultfd.h"

namespace pnode::bench {

class FloorSubject final : public Subject {
  public:
    enum class Pages : std::uint8_t { only_read, written_to };
    // One in a process. `codec`: as PageCopies has it, "-" where pages are written to. Throws
    // std::system_error.
    FloorSubject(std::size_t bytes, Pages kind, const std::string& codec);
    ~FloorSubject() override;
    std::byte* memory() const override { return memory_.data(); }
    void set_limits(const Limits& limits) override;
    Usage usage() const override;

  private:
    enum class Where : std::uint8_t { away, busy, near };

    static void on_sigbus(int signal, siginfo_t* info, void* context);
    bool serve(std::uintptr_t address) noexcept;
    void came(std::uint32_t page) noexcept;
    void take_out_oldest() noexcept;
    void drop(const std::uint32_t* pages, std::size_t count) noexcept;
    void move_out(const std::uint32_t* pages, std::size_t count) noexcept;
    void keep_near_pages() noexcept;
    void keep(std::uint32_t page, const std::byte* contents) noexcept;

    const std::size_t pages_;
    AnonymousMemory memory_;
    PageCopies copies_;
    AnonymousMemory moved_;  // of each thread that moves, a batch
    const Pages kind_;
    os::UffdOpened uffd_;
    std::vector<std::atomic<Where>> where_;
    // Near pages, oldest first, in a ring.
    cxl::SpinLock lock_;
    std::vector<std::uint32_t> ring_;
    std::size_t first_ = 0, count_ = 0;
    std::size_t near_pages_max_;
};

}  // namespace pnode::bench
