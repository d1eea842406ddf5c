// The device's engine: takes descriptors, checks them as the hardware does, executes them on a process's
// memory, and writes completion records, the status last. It reaches memory with process_vm_readv(2) and
// process_vm_writev(2) alone, its own process's too, and looks into /proc/PID/pagemap first: like the device
// it does not fill in a page that is absent (unless it may block on faults), and no pointer of the
// submitter's is ever followed.
//
// Thread rule: one thread. No allocation after construction.
#pragma once

#include <sys/types.h>

#include <array>

#include "compress/codec.h"
#include "compress/iaa/hardware.h"
#include "compress/iaa/model/plan.h"

namespace pnode::compress::iaa::model {

class Engine {
  public:
    static constexpr std::size_t transfer_bytes_max = 65536;

    Engine(pid_t process, Plan plan, bool queue_blocks_on_fault = false)
        : process_(process), plan_(std::move(plan)), queue_blocks_on_fault_(queue_blocks_on_fault) {}

    // False: the device is gone.
    bool execute(const Descriptor& descriptor) noexcept;
    // Completes what was late.
    void drain() noexcept;

  private:
    struct Late {
        Descriptor descriptor;
        int requests_left = -1;  // < 0: unused
    };
    void execute_with(const Descriptor& descriptor, const Fault& fault) noexcept;
    std::uint8_t check(const Descriptor& descriptor) const noexcept;
    void work(const Descriptor& descriptor, Completion& record) noexcept;
    bool fetch(std::uint64_t from, MutableBytes to, Completion& record) noexcept;
    bool deliver(Bytes from, std::uint64_t to, Completion& record) noexcept;
    bool is_present(std::uint64_t address, std::size_t bytes, bool blocks,
                    std::uint64_t* absent) const noexcept;
    void complete(const Descriptor& descriptor, const Completion& record) noexcept;
    void postpone(const Descriptor& descriptor, int requests) noexcept;
    void pass_time() noexcept;

    pid_t process_;
    Plan plan_;
    bool queue_blocks_on_fault_;
    bool blocks_ = false;  // the descriptor at hand may block on faults
    Fault fault_;          // of the descriptor at hand
    std::array<Late, 64> late_{};
    std::array<std::byte, transfer_bytes_max> source_{};
    std::array<std::byte, transfer_bytes_max> destination_{};
    CompressAecs aecs_{};
};

}  // namespace pnode::compress::iaa::model
