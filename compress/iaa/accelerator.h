// Compressing and decoding pages on Intel IAA, with software for whatever the device does not do: per
// operation, counted by cause, in the same format, so that the answer never depends on who gave it.
//
//     caller ── copy ──> arena ── descriptor ──> queue ──> device ── record ──> status table ──> copy or
//     software
//
// Nothing waits without a bound. Demotion may wait for the device (wait_ns_max); a promotion waits no longer
// than decoding in software takes on this processor, which is measured at start, and asks the device at all
// only while it has been quicker than that.
//
// Thread rule: open, add, close and forget by one thread, with nobody else in here; compress, decompress and
// the counters by any thread, in any context: no allocation, no lock. Callers block signals, as for the blob
// store.
#pragma once

#include <array>
#include <atomic>
#include <span>
#include <string>

#include "compress/codec.h"
#include "compress/iaa/arena.h"
#include "compress/iaa/queue.h"
#include "compress/iaa/status.h"

namespace pnode::compress::iaa {

// One page of `source`, 4 KiB; bytes_written is 0 when it did not fit into `destination`.
struct CompressJob {
    Bytes source;
    MutableBytes destination;
    std::size_t bytes_written = 0;
};

// Monotonic. submitted = completed + abandoned when nothing is in flight; late is part of abandoned.
struct Counters {
    std::atomic<std::uint64_t> submitted{0};
    std::atomic<std::uint64_t> completed{0};
    std::atomic<std::uint64_t> abandoned{0};  // given up, the device may complete them later
    std::atomic<std::uint64_t> late{0};       // of these, seen completed since
    std::atomic<std::uint64_t> resubmitted{0};
    std::atomic<std::uint64_t> compressed{0};  // pages, by the device
    std::atomic<std::uint64_t> decompressed{0};
    std::atomic<std::uint64_t> verified{0};
    std::atomic<std::uint64_t> queues_retired{0};
    std::array<std::atomic<std::uint64_t>, causes> software{};  // operations, by Cause
};

class Accelerator {
  public:
    static constexpr unsigned queues_max = 8;
    static constexpr unsigned batch_max = 8;

    struct Config {
        std::uint64_t wait_ns_max = 2'000'000;
        unsigned verify_pct = 100;  // of what the device compressed; 100 for a while after any error
        std::uint64_t promotion_wait_ns = 0;  // 0: as long as decoding in software takes here
    };

    Accelerator() = default;
    ~Accelerator() { close(); }
    Accelerator(const Accelerator&) = delete;
    Accelerator& operator=(const Accelerator&) = delete;

    // Maps the arena and measures software. 0 or an errno. `scratch` is deflate's, and only borrowed.
    int open(const Config& config, MutableBytes scratch) noexcept;
    // Every queue that sysfs lists under `root` and that passes add(). How many; why not, in `message`.
    unsigned add_devices(const std::string& root, MutableBytes scratch, std::string* message);
    // A slot for another queue, for its caller to open; nullptr when there are queues_max.
    WorkQueue* new_queue() noexcept;
    // Puts new_queue()'s to use if it passes the self test: a no-op, a page compressed and verified, a page
    // of software's decoded. Else closes it and says why.
    bool add(WorkQueue* queue, MutableBytes scratch, std::string* message);
    void close() noexcept;
    void forget() noexcept;

    bool has_queue() const noexcept;
    // A place for each descriptor this holds: queues' files.
    std::span<const WorkQueue> queues() const noexcept { return {queues_, queue_count_}; }

    // Each job by the device or by software; up to batch_max are in flight at once.
    void compress(std::span<CompressJob> jobs, MutableBytes scratch) noexcept;
    // False: the caller decodes in software. `contents` is then unspecified; when true it is a page, and
    // still to be proven by its hash.
    bool decompress(Bytes payload, MutableBytes contents) noexcept;
    // The page that decompress() delivered was not the one that was stored.
    void decompressed_wrongly() noexcept;

    const Counters& counters() const noexcept { return counters_; }
    // How long a promotion waits for the device at most.
    std::uint64_t promotion_wait_ns() const noexcept { return promotion_wait_ns_; }

  private:
    struct Operation;
    bool begin(Operation& op, Opcode opcode) noexcept;
    bool submit(Operation& op) noexcept;
    bool settle(Operation& op, std::uint64_t deadline_ns, Cause when_late) noexcept;
    bool recover(Operation& op) noexcept;
    void fail(Operation& op, Cause cause) noexcept;
    void end(Operation& op) noexcept;
    void blame(WorkQueue& queue, Blame whom) noexcept;
    WorkQueue* choose() noexcept;

    bool begin_compress(Operation& op, CompressJob& job) noexcept;
    bool begin_verify(Operation& op) noexcept;
    void finish_compress(Operation& op, CompressJob& job, MutableBytes scratch) noexcept;
    void compress_batch(std::span<CompressJob> jobs, MutableBytes scratch) noexcept;
    bool begin_decompress(Operation& op, Bytes payload) noexcept;
    bool passes_self_test(WorkQueue& queue, MutableBytes scratch, const char** failed) noexcept;
    bool due_for_verification() noexcept;
    bool promotion_may_ask() noexcept;
    void note_decode_ns(std::uint64_t spent_ns) noexcept;
    void count_software(Cause cause) noexcept;

    Config config_;
    Arena arena_;
    WorkQueue queues_[queues_max];
    unsigned queue_count_ = 0;
    WorkQueue* only_ = nullptr;  // during a self test
    std::atomic<unsigned> next_queue_{0};
    std::uint64_t promotion_wait_ns_ = 0;
    std::atomic<std::uint64_t> device_decode_ns_{0};  // a moving average
    std::atomic<std::uint64_t> promotions_{0};
    std::atomic<std::uint64_t> compressions_{0};
    std::atomic<int> verify_all_left_{0};
    Counters counters_;
};

}  // namespace pnode::compress::iaa
