// The statistics file that the evictor rewrites now and then: where, and how often.
//
// Thread rule: any thread with signals blocked, or the evictor.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <mutex>

#include "cxl/spin_lock.h"

namespace pnode {

class StatsFile {
  public:
    static constexpr std::size_t path_max = 1024;

    // `path` is shorter than path_max.
    void set(const char* path, std::uint64_t every_ns) noexcept {
        const std::lock_guard lock(lock_);
        std::memcpy(path_, path, std::strlen(path) + 1);
        due_ns_ = 0;
        every_ns_.store(every_ns, std::memory_order_relaxed);
    }
    // 0: nobody asked.
    std::uint64_t every_ns() const noexcept { return every_ns_.load(std::memory_order_relaxed); }

    // Copies the path when it is time to write it, and says when the next time is.
    bool take_due(std::uint64_t now_ns, char* path) noexcept {
        if (every_ns() == 0) return false;
        const std::lock_guard lock(lock_);
        if (now_ns < due_ns_) return false;
        due_ns_ = now_ns + every_ns();
        std::memcpy(path, path_, path_max);
        return true;
    }

    // Held while a file is written, which is one at a time: two of a process write the same temporary file,
    // and what was counted last must be renamed last. The evictor only tries: whoever holds it may wait for
    // the evictor.
    cxl::SpinLock& writing() noexcept { return writing_; }

    // In a forked child: the file is the parent's, and whoever held the locks is not here.
    void leave_to_parent() noexcept {
        lock_.unlock();
        writing_.unlock();
        every_ns_.store(0, std::memory_order_relaxed);
    }

  private:
    cxl::SpinLock lock_;
    cxl::SpinLock writing_;
    char path_[path_max] = {};
    std::uint64_t due_ns_ = 0;
    std::atomic<std::uint64_t> every_ns_{0};
};

}  // namespace pnode
