// The kernel's own part of a fault: the exception, UFFDIO_COPY of a page that lies ready, and between them
// the signal and its return, where the faulting thread serves itself, or a handler thread on each processor
// that is woken, reads the message, and wakes. Nothing that serves faults one by one is faster. With a codec
// the page lies there compressed and is decoded first: nothing that serves such pages one by one is faster.
// A floor may also serve runs: a fault brings the pages that follow, by the same UFFDIO_COPY.
// Demoting is the codec's work and dropping the pages, with no defence against who writes meanwhile.
#pragma once

#include <signal.h>

#include <cstdint>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "bench/fault/page_copies.h"
#include "bench/fault/tier.h"
#include "runtime/os/userfaultfd.h"

namespace pnode::bench {

class FloorTier final : public Tier {
  public:
    enum class Served { inline_by_signal, by_handlers };
    static constexpr std::size_t run_pages_max = 16;
    // Made after the heaps: it takes their signal, and passes on what is theirs. `codec`: "-", or one of
    // compress/codec.h that decodes without scratch. `run_pages`: what a fault brings, up to run_pages_max.
    // Throws std::system_error.
    FloorTier(Served how, const std::string& codec, std::size_t pages, std::size_t run_pages = 1);
    ~FloorTier() override;
    std::byte* memory() const override { return memory_.data(); }
    // However faults are served, demoting is the same: one of them is enough.
    bool compresses() const override { return copies_.compresses() && handlers_.empty() && run_pages_ == 1; }
    bool keeps_blobs() const override { return false; }
    bool serves_runs_only() const override { return run_pages_ > 1; }
    void demote(std::size_t first_page, std::size_t pages) override;
    std::vector<std::size_t> far_pages() const override;

  private:
    static void on_sigbus(int signal, siginfo_t* info, void* context);
    void take_signal();
    void start_handlers();
    void handle() const;
    bool serve(std::uintptr_t address) const noexcept;
    const std::byte* run_contents(std::size_t page, std::span<std::byte> decoded) const noexcept;

    AnonymousMemory memory_;
    PageCopies copies_;
    std::size_t pages_;
    std::size_t run_pages_;
    os::UffdOpened uffd_;
    std::vector<std::thread> handlers_;  // by handlers
};

}  // namespace pnode::bench
