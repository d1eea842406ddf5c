// The kernel's own part of a fault: the exception, UFFDIO_COPY of a page that lies ready uncompressed, and
// between them the signal and its return, where the faulting thread serves itself, or a handler thread on
// each processor that is woken, reads the message, and wakes. Nothing that serves faults one by one is
// faster.
#pragma once

#include <signal.h>

#include <thread>
#include <vector>

#include "bench/fault/tier.h"
#include "runtime/os/userfaultfd.h"

namespace pnode::bench {

class FloorTier final : public Tier {
  public:
    enum class Served { inline_by_signal, by_handlers };
    // One of each at a time, made after the heaps: it takes their signal, and passes on what is theirs.
    // Throws std::system_error.
    FloorTier(Served how, std::size_t pages);
    ~FloorTier() override;
    std::byte* memory() const override { return memory_.data(); }
    bool compresses() const override { return false; }
    void demote(std::size_t first_page, std::size_t pages) override;
    std::vector<std::size_t> far_pages() const override;

  private:
    static void on_sigbus(int signal, siginfo_t* info, void* context);
    void take_signal();
    void start_handlers();
    void handle() const;
    bool serve(std::uintptr_t address) const noexcept;

    AnonymousMemory memory_;
    AnonymousMemory copies_;
    std::size_t pages_;
    os::UffdOpened uffd_;
    struct sigaction before_ = {};       // by signal
    std::vector<std::thread> handlers_;  // by handlers
};

}  // namespace pnode::bench
