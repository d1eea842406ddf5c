#include "compress/iaa/accelerator.h"

#include <libdeflate.h>
#include <sched.h>
#include <time.h>

#include <algorithm>
#include <cstring>

#include "compress/codec_tables.h"
#include "compress/iaa/instructions.h"

namespace pnode::compress::iaa {
namespace {

constexpr unsigned attempts_max =
    6;  // a page fault at each of source, destination, record and AECS, and two more
constexpr int verify_all_after_error = 1024;
constexpr std::uint64_t probe_every = 1024;  // promotions, when the device was slower than software
constexpr std::uint64_t spin_ns = 50'000;    // then the processor is left to others between looks

std::uint64_t now_ns() noexcept {
    timespec now;
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

bool is_complete(const void* record) noexcept {
    return static_cast<Completion*>(const_cast<void*>(record))->load_status() != status::in_progress;
}

void rest_a_moment(Completion& record, bool long_since) noexcept {
    if (instructions().waitpkg) return wait_for_write(&record, is_complete);
    for (unsigned i = 0; i < 16; ++i) __builtin_ia32_pause();
    if (long_since) ::sched_yield();
}

bool wait_until(Completion& record, std::uint64_t deadline_ns) noexcept {
    if (is_complete(&record)) return true;
    const std::uint64_t began_ns = now_ns();
    for (std::uint64_t now = began_ns; now < deadline_ns; now = now_ns()) {
        rest_a_moment(record, now - began_ns > spin_ns);
        if (is_complete(&record)) return true;
    }
    return false;
}

std::uint32_t crc_of(Bytes bytes) noexcept {
    return libdeflate_crc32(0, bytes.data(), bytes.size());
}

std::uint64_t address(const void* pointer) noexcept {
    return reinterpret_cast<std::uint64_t>(pointer);
}

// A page that is neither too easy nor incompressible: words and counters.
void fill_test_page(MutableBytes page) noexcept {
    constexpr char words[] = "the device compresses this page and software reads it back; ";
    for (std::size_t i = 0; i < page.size(); ++i)
        page[i] = static_cast<std::byte>(i % 97 < 60 ? words[i % 60] : static_cast<char>(i / 97));
}

}  // namespace

// One request from its slot to its answer. Holds a slot while `queue` is set.
struct Accelerator::Operation {
    WorkQueue* queue = nullptr;
    unsigned slot = Arena::none;
    unsigned attempts = 0;
    Cause cause = Cause::none;     // why it failed
    bool did_not_fit = false;      // the answer: incompressible
    std::uint32_t source_crc = 0;  // of the plain bytes
    std::size_t compressed_bytes = 0;
    alignas(64) Descriptor descriptor{};
};

// ---- one operation ----

WorkQueue* Accelerator::choose() noexcept {
    if (only_ != nullptr) return only_;
    const unsigned first = next_queue_.fetch_add(1, std::memory_order_relaxed);
    for (unsigned i = 0; i < queue_count_; ++i) {
        WorkQueue& queue = queues_[(first + i) % queue_count_];
        if (queue.is_usable()) return &queue;
    }
    return nullptr;
}

bool Accelerator::begin(Operation& op, Opcode opcode) noexcept {
    WorkQueue* const queue = choose();
    if (queue == nullptr) {
        op.cause = Cause::no_queue;
        return false;
    }
    std::uint64_t late = 0;
    op.slot = arena_.take(&late);
    if (late != 0) counters_.late.fetch_add(late, std::memory_order_relaxed);
    if (op.slot == Arena::none) {
        op.cause = Cause::no_slot;
        return false;
    }
    op.queue = queue;
    op.descriptor = {};
    op.descriptor.set(opcode, flag::completion_address_valid | flag::request_completion_record |
                                  (queue->block_on_fault() ? flag::block_on_fault : 0));
    op.descriptor.completion_addr = address(&arena_.record(op.slot));
    return true;
}

bool Accelerator::submit(Operation& op) noexcept {
    arena_.record(op.slot).clear();
    ++op.attempts;
    switch (op.queue->submit(op.descriptor, op.slot)) {
        case Submitted::accepted:
            counters_.submitted.fetch_add(1, std::memory_order_relaxed);
            return true;
        case Submitted::busy:
            fail(op, Cause::busy);
            return false;
        case Submitted::lost:
            break;
    }
    if (op.queue->retire()) counters_.queues_retired.fetch_add(1, std::memory_order_relaxed);
    fail(op, Cause::queue_lost);
    return false;
}

// Nothing of it is in flight: the slot can serve again.
void Accelerator::end(Operation& op) noexcept {
    if (op.queue != nullptr) arena_.give_back(op.slot);
    op.queue = nullptr;
}

void Accelerator::fail(Operation& op, Cause cause) noexcept {
    op.cause = cause;
    end(op);
}

void Accelerator::blame(WorkQueue& queue, Blame whom) noexcept {
    verify_all_left_.store(verify_all_after_error, std::memory_order_relaxed);
    const bool retired = whom == Blame::ourselves ? queue.retire()
                         : whom == Blame::device  ? queue.count_error()
                                                  : false;
    if (retired) counters_.queues_retired.fetch_add(1, std::memory_order_relaxed);
}

// Waits for the submitted operation and does what its status asks for. True: there is an answer.
bool Accelerator::settle(Operation& op, std::uint64_t deadline_ns, Cause when_late) noexcept {
    while (op.queue != nullptr) {
        if (!wait_until(arena_.record(op.slot), deadline_ns)) {
            counters_.abandoned.fetch_add(1, std::memory_order_relaxed);
            arena_.abandon(op.slot, op.queue);
            if (when_late == Cause::time_out) blame(*op.queue, Blame::device);
            op.queue = nullptr;
            op.cause = when_late;
            return false;
        }
        counters_.completed.fetch_add(1, std::memory_order_relaxed);
        op.queue->give_credit();
        if (recover(op)) return true;
    }
    return false;
}

// True: done. Otherwise the operation was submitted again, or has failed and holds no slot.
bool Accelerator::recover(Operation& op) noexcept {
    const Completion& record = arena_.record(op.slot);
    const bool compressing = op.descriptor.opcode() == Opcode::compress;
    const StatusRow& row = status_row(record.status, record.error_code, compressing);
    if (row.recovery == Recovery::accept || row.recovery == Recovery::incompressible) {
        op.did_not_fit = row.recovery == Recovery::incompressible;
        return true;
    }
    blame(*op.queue, row.blame);
    // IAA completes nothing in part: the whole operation is submitted again.
    const bool again =
        (row.recovery == Recovery::again && op.attempts == 1) ||
        (row.recovery == Recovery::touch && op.attempts < attempts_max && arena_.touch(record.fault_addr));
    if (!again) {
        fail(op, row.cause);
    } else {
        counters_.resubmitted.fetch_add(1, std::memory_order_relaxed);
        submit(op);
    }
    return false;
}

void Accelerator::count_software(Cause cause) noexcept {
    if (cause != Cause::none)
        counters_.software[static_cast<unsigned>(cause)].fetch_add(1, std::memory_order_relaxed);
}

// ---- compress ----

bool Accelerator::begin_compress(Operation& op, CompressJob& job) noexcept {
    if (!begin(op, Opcode::compress)) return false;
    std::memcpy(arena_.source(op.slot), job.source.data(), page_bytes);
    Descriptor& descriptor = op.descriptor;
    descriptor.flags_opcode |= flag::read_source2_aecs | flag::cache_control;
    descriptor.operation_flags = compress_flag::whole_page;
    descriptor.source1_addr = address(arena_.source(op.slot));
    descriptor.source1_bytes = page_bytes;
    descriptor.source2_addr = address(&arena_.aecs());
    descriptor.source2_bytes = sizeof(CompressAecs);
    descriptor.destination_addr = address(arena_.destination(op.slot));
    descriptor.destination_bytes_max =
        static_cast<std::uint32_t>(std::min(job.destination.size(), page_bytes));
    return submit(op);
}

// The device decodes what it wrote, without output; the CRC of what it read must be that of the page, which
// the processor computes.
bool Accelerator::begin_verify(Operation& op) noexcept {
    Descriptor& descriptor = op.descriptor;
    descriptor.set(Opcode::decompress, descriptor.flags() & ~flag::read_source2_aecs);
    descriptor.operation_flags = decompress_flag::whole_page | decompress_flag::suppress_output;
    descriptor.source1_addr = address(arena_.destination(op.slot));
    descriptor.source1_bytes = static_cast<std::uint32_t>(op.compressed_bytes);
    descriptor.source2_addr = 0;
    descriptor.source2_bytes = 0;
    descriptor.destination_addr = address(arena_.source(op.slot));  // not written to
    descriptor.destination_bytes_max = page_bytes;
    op.attempts = 0;
    return submit(op);
}

bool Accelerator::due_for_verification() noexcept {
    const std::uint64_t count = compressions_.fetch_add(1, std::memory_order_relaxed);
    if (verify_all_left_.load(std::memory_order_relaxed) > 0) {
        verify_all_left_.fetch_sub(1, std::memory_order_relaxed);
        return true;
    }
    // Spread evenly: as often as the share's whole multiples are passed.
    return count * config_.verify_pct / 100 != (count + 1) * config_.verify_pct / 100;
}

void Accelerator::finish_compress(Operation& op, CompressJob& job, MutableBytes scratch) noexcept {
    if (op.queue == nullptr) {
        count_software(op.cause);
        job.bytes_written = deflate_codec.compress(job.source, job.destination, 0, scratch);
        return;
    }
    job.bytes_written = op.did_not_fit ? 0 : op.compressed_bytes;
    std::memcpy(job.destination.data(), arena_.destination(op.slot), job.bytes_written);
    counters_.compressed.fetch_add(1, std::memory_order_relaxed);
    op.queue->count_success();
    end(op);
}

void Accelerator::compress_batch(std::span<CompressJob> jobs, MutableBytes scratch) noexcept {
    Operation ops[batch_max];
    const std::uint64_t deadline_ns = now_ns() + config_.wait_ns_max;
    for (std::size_t i = 0; i < jobs.size(); ++i) begin_compress(ops[i], jobs[i]);
    bool verifying[batch_max] = {};
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        Operation& op = ops[i];
        if (!settle(op, deadline_ns, Cause::time_out)) continue;
        if (op.did_not_fit) continue;
        op.compressed_bytes = arena_.record(op.slot).output_bytes;
        if (op.compressed_bytes == 0 || op.compressed_bytes > op.descriptor.destination_bytes_max) {
            blame(*op.queue, Blame::device);
            fail(op, Cause::wrong);
        } else if (due_for_verification()) {
            op.source_crc = crc_of(jobs[i].source);
            verifying[i] = begin_verify(op);
        }
    }
    const std::uint64_t verify_deadline_ns = now_ns() + config_.wait_ns_max;
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        Operation& op = ops[i];
        if (verifying[i] && settle(op, verify_deadline_ns, Cause::time_out)) {
            const Completion& record = arena_.record(op.slot);
            counters_.verified.fetch_add(1, std::memory_order_relaxed);
            if (record.output_bytes != page_bytes || record.crc != op.source_crc) {
                blame(*op.queue, Blame::device);
                fail(op, Cause::wrong);
            }
        }
        finish_compress(op, jobs[i], scratch);
    }
}

void Accelerator::compress(std::span<CompressJob> jobs, MutableBytes scratch) noexcept {
    for (; !jobs.empty(); jobs = jobs.subspan(std::min<std::size_t>(jobs.size(), batch_max)))
        compress_batch(jobs.first(std::min<std::size_t>(jobs.size(), batch_max)), scratch);
}

// ---- decompress ----

bool Accelerator::begin_decompress(Operation& op, Bytes payload) noexcept {
    if (!begin(op, Opcode::decompress)) return false;
    std::memcpy(arena_.source(op.slot), payload.data(), payload.size());
    Descriptor& descriptor = op.descriptor;
    descriptor.flags_opcode |= flag::cache_control;
    descriptor.operation_flags = decompress_flag::whole_page;
    descriptor.source1_addr = address(arena_.source(op.slot));
    descriptor.source1_bytes = static_cast<std::uint32_t>(payload.size());
    descriptor.destination_addr = address(arena_.destination(op.slot));
    descriptor.destination_bytes_max = page_bytes;
    return submit(op);
}

bool Accelerator::promotion_may_ask() noexcept {
    const std::uint64_t count = promotions_.fetch_add(1, std::memory_order_relaxed);
    return device_decode_ns_.load(std::memory_order_relaxed) <= promotion_wait_ns_ ||
           count % probe_every == probe_every - 1;
}

// An update lost to another thread's is no loss.
void Accelerator::note_decode_ns(std::uint64_t spent_ns) noexcept {
    const std::uint64_t before = device_decode_ns_.load(std::memory_order_relaxed);
    device_decode_ns_.store(before - before / 8 + spent_ns / 8, std::memory_order_relaxed);
}

bool Accelerator::decompress(Bytes payload, MutableBytes contents) noexcept {
    if (contents.size() != page_bytes || payload.empty() || payload.size() > page_bytes) return false;
    if (queue_count_ == 0 || !promotion_may_ask()) return false;
    // Far memory may be bad, and a reader that meets that may leave by a jump: not while it holds a slot.
    std::array<std::byte, page_bytes> copy;
    std::memcpy(copy.data(), payload.data(), payload.size());
    Operation op;
    const std::uint64_t began_ns = now_ns();
    bool done = begin_decompress(op, Bytes(copy).first(payload.size())) &&
                settle(op, began_ns + promotion_wait_ns_, Cause::slow);
    if (done && arena_.record(op.slot).output_bytes != page_bytes) {
        blame(*op.queue, Blame::device);
        fail(op, Cause::wrong);
        done = false;
    }
    if (done || op.cause == Cause::slow) note_decode_ns(done ? now_ns() - began_ns : 2 * promotion_wait_ns_);
    if (!done) {
        count_software(op.cause);
        return false;
    }
    std::memcpy(contents.data(), arena_.destination(op.slot), page_bytes);
    op.queue->count_success();
    end(op);
    counters_.decompressed.fetch_add(1, std::memory_order_relaxed);
    return true;
}

void Accelerator::decompressed_wrongly() noexcept {
    count_software(Cause::wrong);
    verify_all_left_.store(verify_all_after_error, std::memory_order_relaxed);
}

// ---- open and close ----

int Accelerator::open(const Config& config, MutableBytes scratch) noexcept {
    config_ = config;
    if (const int error = arena_.open()) return error;
    std::array<std::byte, page_bytes> page;
    std::array<std::byte, page_bytes> packed;
    fill_test_page(page);
    const std::size_t packed_bytes = deflate_codec.compress(page, packed, 0, scratch);
    promotion_wait_ns_ = config.promotion_wait_ns != 0 ? config.promotion_wait_ns : UINT64_MAX;
    for (unsigned round = 0; config.promotion_wait_ns == 0 && round < 16; ++round) {
        const std::uint64_t began_ns = now_ns();
        deflate_codec.decompress(Bytes(packed).first(packed_bytes), page, scratch);
        promotion_wait_ns_ = std::min(promotion_wait_ns_, now_ns() - began_ns);
    }
    return 0;
}

unsigned Accelerator::add_devices(const std::string& root, MutableBytes scratch, std::string* message) {
    const QueuesFound found = find_queues(root);
    unsigned added = 0;
    *message = "";
    const auto say = [&](const std::string& line) { *message += (message->empty() ? "" : "; ") + line; };
    for (const QueueInfo& info : found.usable) {
        std::string why;
        WorkQueue* const queue = new_queue();
        if (queue == nullptr) break;
        if (queue->open(info, &why) && add(queue, scratch, &why))
            ++added;
        else
            say(why);
    }
    for (const std::string& refused : found.refused) say(refused);
    if (found.usable.empty() && found.refused.empty()) say("no iax work queue in /sys/bus/dsa/devices");
    return added;
}

WorkQueue* Accelerator::new_queue() noexcept {
    return queue_count_ < queues_max ? &queues_[queue_count_] : nullptr;
}

bool Accelerator::add(WorkQueue* queue, MutableBytes scratch, std::string* message) {
    const char* failed = "";
    only_ = queue;
    const bool passed = passes_self_test(*queue, scratch, &failed);
    only_ = nullptr;
    ++queue_count_;  // one that failed keeps its place: slots that it left behind name it
    if (passed) return true;
    *message = queue->name() + ": self test: " + failed;
    queue->close();
    return false;
}

bool Accelerator::passes_self_test(WorkQueue& queue, MutableBytes scratch, const char** failed) noexcept {
    *failed = "the no-op was not completed";
    Operation noop;
    if (!begin(noop, Opcode::noop) || !submit(noop) ||
        !settle(noop, now_ns() + config_.wait_ns_max, Cause::time_out))
        return false;
    end(noop);

    *failed = "a compressed page was not right";
    std::array<std::byte, page_bytes> page;
    std::array<std::byte, page_bytes> packed;
    std::array<std::byte, page_bytes> decoded;
    fill_test_page(page);
    CompressJob job = {page, packed, 0};
    const std::uint64_t compressed_before = counters_.compressed.load(std::memory_order_relaxed);
    verify_all_left_.fetch_add(1, std::memory_order_relaxed);
    compress_batch({&job, 1}, scratch);
    if (counters_.compressed.load(std::memory_order_relaxed) == compressed_before) return false;
    if (!deflate_codec.decompress(Bytes(packed).first(job.bytes_written), decoded, scratch) ||
        !std::ranges::equal(page, decoded))
        return false;

    *failed = "a page that software compressed was not decoded";
    const std::size_t packed_bytes = deflate_codec.compress(page, packed, 0, scratch);
    for (unsigned round = 0; round < 4; ++round) {
        Operation op;
        const std::uint64_t began_ns = now_ns();
        if (!begin_decompress(op, Bytes(packed).first(packed_bytes)) ||
            !settle(op, began_ns + config_.wait_ns_max, Cause::time_out))
            return false;
        const std::uint64_t spent_ns = now_ns() - began_ns;
        const bool right = std::ranges::equal(page, std::span(arena_.destination(op.slot), page_bytes));
        end(op);
        if (!right) return false;
        device_decode_ns_.store(
            round == 0 ? spent_ns : std::min(spent_ns, device_decode_ns_.load(std::memory_order_relaxed)),
            std::memory_order_relaxed);
    }
    return queue.is_usable();
}

bool Accelerator::has_queue() const noexcept {
    return std::ranges::any_of(queues(), [](const WorkQueue& queue) { return queue.is_usable(); });
}

// Queues first: closing one waits until the device no longer writes to the arena.
void Accelerator::close() noexcept {
    for (WorkQueue& queue : queues_) queue.close();
    queue_count_ = 0;
    arena_.close();
}

void Accelerator::forget() noexcept {
    for (WorkQueue& queue : queues_) queue.forget();
    queue_count_ = 0;
    arena_.forget();
}

}  // namespace pnode::compress::iaa
