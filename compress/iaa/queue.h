// A work queue, however it is reached. The seam between what is asked of the device and how it gets there:
//
//     portal, MOVDIR64B   dedicated queues; posted, so that we must count (credits)
//     portal, ENQCMD      shared queues; answers whether it was taken
//     write(2)            either, where the kernel does not map the portal (INTEL-SA-01084)
//
// A model of the device (model/) stands behind the same seam: a page of memory as portal, a socket to write
// to.
//
// Thread rule: open and close by one thread at a time, with nobody submitting; the rest by any thread, in any
// context.
#pragma once

#include <atomic>
#include <string>

#include "compress/iaa/discovery.h"
#include "compress/iaa/hardware.h"

namespace pnode::compress::iaa {

enum class Transport : std::uint8_t { none, movdir64b, enqcmd, write, model_portal };
const char* name_of(Transport transport) noexcept;

enum class Submitted : std::uint8_t { accepted, busy, lost };

class WorkQueue {
  public:
    WorkQueue() = default;
    ~WorkQueue() { close(); }
    WorkQueue(const WorkQueue&) = delete;
    WorkQueue& operator=(const WorkQueue&) = delete;

    // Opens the character device and its portal. False with what failed in `message`.
    bool open(const QueueInfo& info, std::string* message);
    // A portal of the model's: borrowed; at most `size` descriptors at a time.
    void open_model_portal(void* portal, unsigned size) noexcept;
    // A socket to the model, which takes over `fd`, non-blocking.
    void open_model_socket(int fd) noexcept;
    // Waits until the device is done with what was submitted (the kernel drains a queue when its last
    // descriptor is closed), then forgets it.
    void close() noexcept;
    // In a forked child: the portal is not there, the descriptor is the parent's.
    void forget() noexcept;

    // A staging slot has one request at a time, so its index is also a place in the portal that no request in
    // flight uses.
    Submitted submit(const Descriptor& descriptor, unsigned slot) noexcept;
    // A completion was seen, or will never be waited for again.
    void give_credit() noexcept { credits_.fetch_add(1, std::memory_order_relaxed); }

    // Three errors of the device's in a row retire it: true to whoever did it. It takes nothing more then.
    bool count_error() noexcept;
    void count_success() noexcept { errors_in_a_row_.store(0, std::memory_order_relaxed); }
    bool retire() noexcept { return !retired_.exchange(true, std::memory_order_relaxed); }
    bool is_usable() const noexcept {
        return transport_ != Transport::none && !retired_.load(std::memory_order_relaxed);
    }

    Transport transport() const noexcept { return transport_; }
    bool block_on_fault() const noexcept { return block_on_fault_; }
    int descriptor() const noexcept { return fd_; }
    const std::string& name() const noexcept { return name_; }

  private:
    bool take_credit() noexcept;
    Submitted write_to_device(const Descriptor& descriptor) noexcept;
    void drain_model() noexcept;

    std::string name_;
    Transport transport_ = Transport::none;
    bool owns_portal_ = false;
    bool is_model_ = false;
    bool block_on_fault_ = false;
    int fd_ = -1;
    void* portal_ = nullptr;
    std::atomic<int> credits_{0};
    std::atomic<unsigned> errors_in_a_row_{0};
    std::atomic<bool> retired_{false};
};

}  // namespace pnode::compress::iaa
