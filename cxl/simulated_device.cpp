#include "cxl/simulated_device.h"

#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>

namespace pnode::cxl {

namespace {

constexpr std::size_t line_bytes = 64;

bool all_zero(const std::byte* bytes, std::size_t count) {
    return bytes[0] == std::byte{0} && std::memcmp(bytes, bytes + 1, count - 1) == 0;
}

}  // namespace

SimulatedDevice::SimulatedDevice(MemoryFile&& window, OwnedDescriptor&& hole, std::uint64_t physical_bytes)
    : window_(std::move(window)),
      hole_(std::move(hole)),
      physical_bytes_(physical_bytes),
      cost_(window_.size_bytes() / page_bytes) {
    bytes_ = window_.bytes();
    size_bytes_ = window_.size_bytes();
    may_go_bad();
    (void)madvise(bytes_, size_bytes_, MADV_NOHUGEPAGE);
}

// Whole lines; a page that does not compress takes a page.
std::uint16_t SimulatedDevice::cost_of(const std::byte* contents) noexcept {
    if (all_zero(contents, page_bytes)) return 0;
    const int size = LZ4_compress_fast_extState(&state_, reinterpret_cast<const char*>(contents),
                                                reinterpret_cast<char*>(compressed_), page_bytes,
                                                page_bytes - line_bytes, 1);
    if (size <= 0) return page_bytes;
    return static_cast<std::uint16_t>((static_cast<std::size_t>(size) + line_bytes - 1) / line_bytes *
                                      line_bytes);
}

// Any access to a mapping of an empty file is beyond its end: SIGBUS, as from a poisoned line. Where the
// kernel has no mapping left, the store is dropped all the same, and what is stale is found by its hash.
void SimulatedDevice::poison(std::size_t page) noexcept {
    void* const address = mmap(bytes_ + page * page_bytes, page_bytes, PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_FIXED, hole_.get(), 0);
    if (address == MAP_FAILED) return;
    used_bytes_.store(used_bytes() - cost_[page], std::memory_order_relaxed);
    cost_[page] = poisoned;
    poisoned_pages_.fetch_add(1, std::memory_order_relaxed);
}

// Writing a poisoned line makes it good again; what was lost stays lost.
bool SimulatedDevice::heal(std::size_t page) noexcept {
    void* const address =
        mmap(bytes_ + page * page_bytes, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
             window_.descriptor(), static_cast<off_t>(page * page_bytes));
    if (address == MAP_FAILED) return false;
    std::memset(bytes_ + page * page_bytes, 0, page_bytes);
    cost_[page] = 0;
    poisoned_pages_.fetch_sub(1, std::memory_order_relaxed);
    return true;
}

void SimulatedDevice::keep(std::size_t page, std::uint16_t cost) noexcept {
    const std::uint64_t used = used_bytes() - cost_[page] + cost;
    if (used > physical_bytes_) return poison(page);
    cost_[page] = cost;
    used_bytes_.store(used, std::memory_order_relaxed);
    std::memcpy(bytes_ + page * page_bytes, page_, page_bytes);
}

// `source` null: zeros.
void SimulatedDevice::change_page(std::size_t page, std::size_t from, std::size_t length,
                                  const std::byte* source) noexcept {
    if (cost_[page] == poisoned && !heal(page)) return;
    std::memcpy(page_, bytes_ + page * page_bytes, page_bytes);
    if (source != nullptr) std::memcpy(page_ + from, source, length);
    if (source == nullptr) std::memset(page_ + from, 0, length);
    const std::uint16_t cost = cost_of(page_);
    keep(page, source != nullptr ? cost : std::min(cost, cost_[page]));
}

void SimulatedDevice::change(std::size_t offset, std::size_t length, const std::byte* source) noexcept {
    while (length != 0) {
        const std::size_t from = offset % page_bytes;
        const std::size_t piece = std::min(length, page_bytes - from);
        {
            const std::lock_guard guard(lock_);
            change_page(offset / page_bytes, from, piece, source);
        }
        if (source != nullptr) source += piece;
        offset += piece;
        length -= piece;
    }
    raise_events();
}

bool SimulatedDevice::store(std::size_t offset, std::span<const std::byte> bytes) noexcept {
    change(offset, bytes.size(), bytes.data());
    return true;
}

bool SimulatedDevice::clear(std::size_t offset, std::size_t length) noexcept {
    change(offset, length, nullptr);
    return true;
}

// Called once a store. Late on purpose: the world has moved on when the listener hears of it.
void SimulatedDevice::raise_events() noexcept {
    Listener* const listener = listener_.load(std::memory_order_acquire);
    if (listener == nullptr) return;
    bool is_low = false;
    {
        const std::lock_guard guard(lock_);
        const std::uint64_t used = used_bytes();
        is_low = told_low_ ? used >= physical_bytes_ / 4 * 3 : used > physical_bytes_ / 8 * 7;
        if (is_low == told_low_) {
            stores_until_told_ = behaviour.event_delay_stores.load(std::memory_order_relaxed);
            return;
        }
        if (stores_until_told_ != 0) {
            --stores_until_told_;
            return;
        }
        told_low_ = is_low;
    }
    if (is_low) listener->capacity_low();
    if (!is_low) listener->capacity_recovered();
}

SimulatedDevice::Capacity SimulatedDevice::capacity() noexcept {
    const std::uint64_t used = used_bytes();
    for (unsigned left = behaviour.answer_delay_yields.load(std::memory_order_relaxed); left != 0; --left)
        sched_yield();
    return {used * behaviour.answer_permille.load(std::memory_order_relaxed) / 1000, physical_bytes_};
}

int SimulatedDevice::trim(std::size_t offset, std::size_t length) noexcept {
    unsigned refusals = behaviour.trim_refusals.load(std::memory_order_relaxed);
    while (refusals != 0) {
        if (behaviour.trim_refusals.compare_exchange_weak(refusals, refusals - 1, std::memory_order_relaxed))
            return refusals % 2 == 0 ? EAGAIN : EBUSY;
    }
    for (std::size_t page = offset / page_bytes; page < (offset + length) / page_bytes; ++page) {
        const std::lock_guard guard(lock_);
        if (cost_[page] == poisoned && !heal(page)) return EAGAIN;
        used_bytes_.store(used_bytes() - cost_[page], std::memory_order_relaxed);
        cost_[page] = 0;
    }
    if (const int error = window_.punch(offset, length)) return error;
    raise_events();
    return 0;
}

int SimulatedDevice::discard(std::size_t offset, std::size_t length) noexcept {
    for (unsigned tries = 0; tries <= trim_retries_max; ++tries) {
        if (tries != 0) trim_retries_.fetch_add(1, std::memory_order_relaxed);
        if (trim(offset, length) == 0) return 0;
    }
    return clear(offset, length) ? 0 : EIO;
}

int open_simulated_region(const RegionSpec& spec, std::unique_ptr<Region>* out, std::string* message) {
    constexpr std::uint64_t page_bytes = 4096;
    const std::uint64_t bytes = (spec.size_bytes + page_bytes - 1) / page_bytes * page_bytes;
    if (const int error = install_guard()) return fail(error, message, "sim: no SIGBUS handler to be had");
    MemoryFile window;
    if (const int error = window.open(bytes, message)) return error;
    OwnedDescriptor hole(move_above_100(memfd_create("pnode-hole", MFD_CLOEXEC)));
    if (hole.get() < 0)
        return fail(EMFILE, message,
                    "sim: no descriptor above 100 is free: raise the limit (ulimit -n 1024)");
    out->reset(new SimulatedDevice(std::move(window), std::move(hole), spec.physical_bytes));
    return 0;
}

}  // namespace pnode::cxl
