// The kernel's own part of a fault that the faulting thread serves: the exception, the signal and its return,
// and UFFDIO_COPY of a page that lies ready uncompressed. Nothing that serves faults this way is faster.
#pragma once

#include <signal.h>

#include "bench/fault/tier.h"
#include "runtime/os/userfaultfd.h"

namespace pnode::bench {

class FloorTier final : public Tier {
  public:
    // One at a time, made after the heaps: it takes their signal, and passes on what is theirs. Throws
    // std::system_error.
    explicit FloorTier(std::size_t pages);
    ~FloorTier() override;
    std::byte* memory() const override { return memory_.data(); }
    bool compresses() const override { return false; }
    void demote(std::size_t first_page, std::size_t pages) override;
    std::vector<std::size_t> far_pages() const override;

  private:
    static void on_sigbus(int signal, siginfo_t* info, void* context);
    bool serve(std::uintptr_t address) const noexcept;

    AnonymousMemory memory_;
    AnonymousMemory copies_;
    std::size_t pages_;
    os::UffdOpened uffd_;
    struct sigaction before_ = {};
};

}  // namespace pnode::bench
