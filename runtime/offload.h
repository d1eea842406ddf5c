// The accelerator that a heap's codec names: opened when the heap becomes active, once more in a forked
// child.
//
// Thread rule: open, close and forget by one thread, with nobody compressing; accelerator() by any.
#pragma once

#include <atomic>
#include <memory>
#include <span>
#include <string>

#include "compress/iaa/accelerator.h"
#include "compress/iaa/model/transports.h"
#include "runtime/os/thread.h"

namespace pnode {

class Offload {
  public:
    Offload() = default;
    ~Offload() { close(); }
    Offload(const Offload&) = delete;
    Offload& operator=(const Offload&) = delete;

    // Nothing to do where the codec names none. Where no queue can be had, software does the work, and `why`
    // says why. `scratch` is an eviction lane's.
    void open(const compress::CodecChoice& choice, std::span<std::byte> scratch, std::string* why);
    void close() noexcept;
    // In a forked child: queues, arena and threads are the parent's.
    void forget() noexcept;

    // Null where the codec names none.
    compress::iaa::Accelerator* accelerator() noexcept { return is_open() ? &accelerator_ : nullptr; }
    bool is_open() const noexcept { return is_open_.load(std::memory_order_acquire); }

  private:
    void add_model(std::span<std::byte> scratch, std::string* why);

    compress::iaa::Accelerator accelerator_;
    std::unique_ptr<compress::iaa::model::Portal> model_;
    os::Thread model_engine_;
    std::atomic<bool> is_open_{false};  // set last: whoever sees it sees the queues
};

}  // namespace pnode
