#include "cxl/node.h"

#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <mutex>
#include <new>
#include <utility>

#include "cxl/memory_file.h"
#include "cxl/size_classes.h"
#include "cxl/sizes.h"

namespace pnode::cxl {

namespace {

void count(std::atomic<std::uint64_t>& counter) noexcept {
    counter.fetch_add(1, std::memory_order_relaxed);
}

std::uint64_t scale(std::uint64_t bytes, std::uint64_t part, std::uint64_t whole) noexcept {
    using Wide = unsigned __int128;
    return static_cast<std::uint64_t>(Wide{bytes} * part / whole);
}

}  // namespace

const char* refuse_services(std::uint32_t services, bool compresses_inline) noexcept {
    constexpr std::uint32_t of_blobs =
        service::recompress | service::spill | service::prefetch | service::pin;
    if ((services & ~service::all) != 0) return "unknown services";
    if ((services & (service::demote | service::direct)) == 0) return "neither DEMOTE nor DIRECT: of no use";
    if ((services & service::spill) != 0) return "SPILL is not offered by this version";
    if ((services & of_blobs) != 0 && (services & service::demote) == 0)
        return "RECOMPRESS, PREFETCH and PIN are about demoted pages: they need DEMOTE";
    if ((services & service::direct) != 0 && compresses_inline)
        return "DIRECT is impossible where stores can be lost: the device compresses them";
    return nullptr;
}

Node::Node(std::string spec, std::uint32_t services, std::unique_ptr<Region> region)
    : spec_(std::move(spec)),
      services_(services),
      region_(std::move(region)),
      device_(region_->device()),
      store_(*region_),
      bytes_max_(region_->size_bytes()),
      effective_(bytes_max_),
      placeable_(bytes_max_),
      fallbacks_(fallbacks_max) {
    if (device_ == nullptr) return;
    bound_.emplace(device_->physical_bytes());
    device_->set_listener(this);
}

Node::~Node() {
    if (device_ != nullptr) device_->set_listener(nullptr);
    if (const int fd = event_descriptor_.load(std::memory_order_relaxed); fd >= 0) close(fd);
    if (region_->outlives_owner() && region_->is_owner() && !store_.is_leased()) store_.wipe();
}

int Node::open(const std::string& spec, std::uint32_t services, std::unique_ptr<Node>* out,
               std::string* message) {
    RegionSpec parsed;
    if (const int error = read_region_spec(spec, &parsed, message)) return error;
    if (const char* why = refuse_services(services, parsed.kind == RegionKind::simulated))
        return fail(EINVAL, message, "\"" + spec + "\": " + why);
    std::unique_ptr<Region> region;
    if (const int error = open_region(spec, &region, message)) return error;
    if (region->size_bytes() < BlobStore::region_bytes_min) {
        return fail(EINVAL, message,
                    "\"" + spec + "\" is too small to hold a blob: name at least " +
                        format_size(BlobStore::region_bytes_min));
    }
    try {
        out->reset(new Node(spec, services, std::move(region)));
    } catch (const std::bad_alloc&) {
        return fail(ENOMEM, message, "\"" + spec + "\": no memory for its tables: name a smaller size");
    }
    return 0;
}

// ---- placing ----

bool Node::admit(std::uint64_t worst_bytes) noexcept {
    if (bound_->begin(worst_bytes)) return true;
    const std::uint64_t question = bound_->question();
    count(counters.questions);
    if (!bound_->answer(question, device_->capacity().used_bytes)) count(counters.answers_disbelieved);
    return bound_->begin(worst_bytes);
}

// Before something is placed.
void Node::hear_bad_news() noexcept {
    BadRange bad;
    while (region_->next_bad_news(&bad)) went_bad(bad);
}

BlobRef Node::place(std::span<const std::byte> blob) noexcept {
    if (!permits(service::demote)) {
        count(counters.refused_service);
        return no_blob;
    }
    if (!gate_.is_open()) {
        count(counters.refused_gated);
        return no_blob;
    }
    hear_bad_news();
    const bool is_bounded = device_ != nullptr && !bound_ignored_.load(std::memory_order_relaxed);
    const std::uint64_t worst_bytes = is_bounded ? SimulatedDevice::worst_bytes(blob.size()) : 0;
    if (is_bounded && !admit(worst_bytes)) {
        count(counters.refused_full);
        return no_blob;
    }
    BlobRef ref = store_.allocate(blob.size());
    if (ref == no_blob) count(counters.refused_full);
    if (ref != no_blob) ref = write_or_quarantine(ref, blob);
    if (ref != no_blob) count(counters.placements);
    if (is_bounded) bound_->end(worst_bytes);
    return ref;
}

BlobRef Node::place_elsewhere(BlobRef ref, std::span<const std::byte> slot) noexcept {
    if (!may_pack()) return no_blob;
    const BlobRef elsewhere = store_.allocate_elsewhere(ref);
    if (elsewhere == no_blob) return no_blob;
    return write_or_quarantine(elsewhere, slot.first(std::min(slot.size(), store_.bytes(elsewhere).size())));
}

// A slot that is bad stays taken for good.
BlobRef Node::write_or_quarantine(BlobRef ref, std::span<const std::byte> blob) noexcept {
    if (store_.write(ref, blob)) return ref;
    store_.quarantine((ref - 1) * unit_bytes, blob.size());
    count(counters.bad_ranges);
    return no_blob;
}

void Node::went_bad(const BadRange& bad) noexcept {
    count(counters.bad_ranges);
    const auto base = reinterpret_cast<std::uintptr_t>(region_->bytes());
    const std::uintptr_t begin = std::max(bad.address, base);
    const std::uintptr_t end = std::min(bad.address + bad.bytes, base + region_->size_bytes());
    if (begin < end) store_.quarantine(begin - base, end - begin);
    notify();
}

// ---- limits ----

std::uint64_t Node::perceived_bytes() const noexcept {
    const std::lock_guard guard(limits_lock_);
    return bytes_max_;
}

// Under limits_lock_.
void Node::apply_limits() noexcept {
    const std::uint64_t current = std::min(ratio_current_, ratio_promised_);
    const std::uint64_t effective = scale(bytes_max_, current, ratio_promised_);
    const unsigned pressure = this->pressure();
    const std::uint64_t placeable = scale(effective, pressure_max - pressure, pressure_max);
    effective_.store(effective, std::memory_order_relaxed);
    placeable_.store(placeable, std::memory_order_relaxed);
    store_.set_physical_bytes_max(std::max<std::uint64_t>(placeable, 1));
    if (pressure == pressure_max) gate_.shut(GateReason::closed_by_user);
    if (pressure != pressure_max) gate_.open(GateReason::closed_by_user);
    if (store_.physical_bytes() > effective) gate_.shut(GateReason::converging);
    if (store_.physical_bytes() <= effective) gate_.open(GateReason::converging);
}

void Node::set_bytes_max(std::uint64_t bytes) noexcept {
    const std::lock_guard guard(limits_lock_);
    const std::uint64_t all = region_->size_bytes();
    bytes_max_ = bytes == 0 ? all : std::min(bytes, all);
    apply_limits();
}

int Node::set_pressure(unsigned permille) noexcept {
    if (permille > pressure_max) return EINVAL;
    {
        const std::lock_guard guard(limits_lock_);
        if (permille == pressure()) return 0;
        pressure_.store(permille, std::memory_order_relaxed);
        apply_limits();
    }
    notify();
    return 0;
}

int Node::set_ratio(std::uint64_t current, std::uint64_t promised) noexcept {
    if (promised == 0) return EINVAL;
    {
        const std::lock_guard guard(limits_lock_);
        ratio_current_ = current;
        ratio_promised_ = promised;
        apply_limits();
    }
    notify();
    return 0;
}

std::uint64_t Node::excess_bytes() const noexcept {
    const std::uint64_t held = store_.physical_bytes();
    const std::uint64_t effective = effective_bytes();
    return held > effective ? held - effective : 0;
}

bool Node::settle() noexcept {
    if (!gate_.is_shut_for(GateReason::converging)) return excess_bytes() == 0;
    {
        const std::lock_guard guard(limits_lock_);
        apply_limits();
        if (gate_.is_shut_for(GateReason::converging)) return false;
    }
    failure_told_.store(false, std::memory_order_relaxed);
    notify();
    return true;
}

void Node::tell_failure() noexcept {
    if (failure_told_.exchange(true, std::memory_order_relaxed)) return;
    count(counters.ladder_failures);
    notify();
    if (failed_ != nullptr) failed_(failed_context_, excess_bytes());
}

void Node::capacity_low() noexcept {
    gate_.shut(GateReason::full);
    notify();
}

void Node::capacity_recovered() noexcept {
    gate_.open(GateReason::full);
    notify();
}

// ---- buffers in place ----

int Node::take_fallback(std::size_t bytes, void** out) noexcept {
    void* const address = map_unmanaged(bytes);
    if (address == nullptr) return ENOMEM;
    const std::lock_guard guard(fallbacks_lock_);
    for (unsigned index = 0; index < fallbacks_max; ++index) {
        if (fallbacks_[index].address != nullptr) continue;
        fallbacks_[index] = {address, bytes};
        count(counters.direct_fallbacks);
        *out = address;
        return 0;
    }
    unmap_unmanaged(address, bytes);
    return ENOMEM;
}

int Node::take_direct(std::size_t bytes, bool strict, void** out) noexcept {
    if (!permits(service::direct)) return EPERM;
    if (bytes == 0) return EINVAL;
    hear_bad_news();
    const bool is_possible = gate_.is_open() && bytes <= region_->size_bytes();
    std::byte* const address = is_possible ? store_.take_direct(bytes) : nullptr;
    if (address == nullptr) {
        count(gate_.is_open() ? counters.refused_full : counters.refused_gated);
        return strict ? ENOSPC : take_fallback(bytes, out);
    }
    *out = address;
    return 0;
}

int Node::give_direct(void* address) noexcept {
    if (address == nullptr) return 0;
    if (store_.give_direct(static_cast<std::byte*>(address))) {
        settle();
        return 0;
    }
    Fallback found{};
    {
        const std::lock_guard guard(fallbacks_lock_);
        for (unsigned index = 0; index < fallbacks_max && found.address == nullptr; ++index) {
            if (fallbacks_[index].address == address) found = std::exchange(fallbacks_[index], {});
        }
    }
    if (found.address == nullptr) return EINVAL;
    unmap_unmanaged(found.address, found.bytes);
    return 0;
}

// ---- users and events ----

int Node::attach(NodeUser* user) noexcept {
    const std::lock_guard guard(users_lock_);
    const unsigned before = users();
    if (before != 0 && !permits(service::share)) return EBUSY;
    if (before == users_max) return ENFILE;
    users_[before] = user;
    users_count_.store(before + 1, std::memory_order_release);
    return 0;
}

void Node::detach(NodeUser* user) noexcept {
    const std::lock_guard guard(users_lock_);
    const unsigned before = users();
    NodeUser** const end = users_.data() + before;
    NodeUser** const found = std::find(users_.data(), end, user);
    if (found == end) return;
    *found = users_[before - 1];
    users_count_.store(before - 1, std::memory_order_release);
}

unsigned Node::copy_users(NodeUser** out) const noexcept {
    const std::lock_guard guard(users_lock_);
    const unsigned found = users();
    std::copy_n(users_.data(), found, out);
    return found;
}

void Node::notify() noexcept {
    count(counters.events);
    if (const int fd = event_descriptor_.load(std::memory_order_acquire); fd >= 0) {
        const std::uint64_t one = 1;
        // Full: somebody has 2^64 - 2 events to read first.
        [[maybe_unused]] const ssize_t written = write(fd, &one, sizeof one);
    }
    const std::lock_guard guard(users_lock_);
    for (unsigned index = 0; index < users(); ++index) users_[index]->node_changed();
}

int Node::event_descriptor() noexcept {
    int fd = event_descriptor_.load(std::memory_order_acquire);
    if (fd >= 0) return fd;
    const int made = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const int mine = made < 0 ? made : move_above_100(made);
    if (mine < 0) return -1;
    if (event_descriptor_.compare_exchange_strong(fd, mine, std::memory_order_acq_rel)) return mine;
    close(mine);
    return fd;
}

}  // namespace pnode::cxl
