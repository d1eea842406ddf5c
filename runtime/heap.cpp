#include "runtime/heap.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <mutex>
#include <utility>

#include "compress/blob.h"
#include "cxl/sizes.h"
#include "runtime/os/descriptors.h"
#include "runtime/os/processors.h"
#include "runtime/os/signals_blocked.h"

namespace pnode {
namespace {

constexpr std::uint64_t chunk_bytes_min = std::uint64_t{2} << 20;
constexpr std::uint64_t chunks_max =
    16384;  // each may be a mapping of its own, and vm.max_map_count is 65530
constexpr std::uint64_t pages_max = std::uint64_t{1} << 31;

std::uint64_t round_up(std::uint64_t value, std::uint64_t alignment) {
    return (value + alignment - 1) & ~(alignment - 1);
}

}  // namespace

Heap::~Heap() {
    if (page_count == 0) {
        far.close();
        return;
    }
    forget_heap(*this);
    stop.store(true);
    if (evictor.is_running()) {
        near.wake_evictor();
        evictor.join();
    }
    recompressor.stop();
    if (engine == Engine::thread && is_active()) fault_threads.stop();
    os::close_userfaultfd(uffd);
    os::close_descriptor(page_map);
    offload.close();
    leases.close();
    far.close();
}

// A limit below the activation size must be kept too.
void Heap::set_limits() noexcept {
    for (const std::uint64_t bytes_max : {config.near_bytes_max, config.total_bytes_max})
        if (bytes_max != 0) config.activation_bytes = std::min(config.activation_bytes, bytes_max / 2);
    near.set_limit(config.near_bytes_max == 0 ? NearLedger::unlimited : config.near_bytes_max / page_bytes);
    near.set_total(config.total_bytes_max / page_bytes);
}

int Heap::open(Config wanted, std::string* message) {
    config = std::move(wanted);
    config.far.user = this;
    if (const int error = far.configure(config.far)) {
        *message = error == EBUSY ? "the node is not to be shared (no SHARE) and has its heap"
                                  : "too many heaps use the node";
        return error;
    }
    set_limits();
    if (config.stress) near.set_stress();
    if (int error = reserve(message)) return error;
    if (int error = map_lanes(message)) return error;
    register_heap(*this);
    os::Thread::find_count();
    return config.activation_bytes == 0 ? activate(message) : 0;
}

int Heap::reserve(std::string* message) {
    const std::uint64_t chunk_bytes =
        std::max(chunk_bytes_min, std::bit_ceil(config.address_bytes / chunks_max));
    const std::uint64_t bytes = round_up(config.address_bytes, chunk_bytes);
    const std::uint64_t pages = bytes / page_bytes;
    if (bytes < config.address_bytes || pages > pages_max) {
        *message = "address_bytes_max is larger than 8 TiB";
        return EINVAL;
    }
    chunk_pages = chunk_bytes / page_bytes;
    // Inaccessible as far as no buffer has come yet (open_up_to), so that a stray pointer is caught there,
    // and who goes over all writable memory of the process, as Redis does when it crashes, does not fill
    // memory.
    int error = address_space_.map(bytes, chunk_bytes, PROT_NONE);
    if (error == 0) error = words_memory_.map(round_up(pages * sizeof(AtomicPageWord), page_bytes));
    if (error == 0) error = pins_memory_.map(round_up(pages, page_bytes));
    if (error == 0)
        error = spans.init(pages, reinterpret_cast<std::uint64_t>(address_space_.address()) / page_bytes);
    if (error == 0) error = chunks.init(bytes / chunk_bytes);
    if (error == 0) error = traits.init(pages);
    if (error == 0) error = near_map.init(pages);
    if (error != 0) {
        *message = "cannot reserve " + format_size(bytes) +
                   " of address space: lower address_bytes_max or raise the address-space limit (ulimit -v)";
        return error;
    }
    // Huge pages would leave 2 MiB at a time (DESIGN 9); advice only.
    ::madvise(address_space_.address(), bytes, MADV_NOHUGEPAGE);
    // A core dump looks at every page of what it holds: a minute for addresses that nobody ever had.
    ::madvise(address_space_.address(), bytes, MADV_DONTDUMP);
    base = address_space_.address();
    words = reinterpret_cast<AtomicPageWord*>(words_memory_.address());
    pins = reinterpret_cast<std::atomic<std::uint8_t>*>(pins_memory_.address());
    page_count = pages;
    return 0;
}

// Buffers and scratch of all lanes in one mapping; nothing of it is resident before its lane is used.
int Heap::map_lanes(std::string* message) {
    const std::uint64_t decode_bytes = round_up(compress::decode_scratch_bytes_max(), page_bytes);
    const std::uint64_t encode_bytes = round_up(compress::encode_scratch_bytes(config.far.codec), page_bytes);
    constexpr std::uint64_t blobs_bytes = batch_pages * EvictLane::blob_bytes_max;
    constexpr std::uint64_t copies_bytes = batch_pages * page_bytes;
    constexpr std::uint64_t pages_bytes = ResolveLane::pages_max * page_bytes;
    const std::uint64_t room_bytes = config.far.codec.block_pages > 1 ? compress::block_bytes_max : 0;
    const std::uint64_t total = ResolveLanes::count * (pages_bytes + room_bytes + decode_bytes) +
                                EvictLanes::count * (blobs_bytes + copies_bytes + encode_bytes);
    if (int error = lanes_memory_.map(total)) {
        *message = "cannot map the fault path's buffers";
        return error;
    }
    std::byte* at = lanes_memory_.address();
    for (unsigned index = 0; index < ResolveLanes::count; ++index) {
        resolve_lanes[index].pages = at;
        at += pages_bytes;
        resolve_lanes[index].room = {.bytes = {at, room_bytes}, .scratch = {at + room_bytes, decode_bytes}};
        at += room_bytes + decode_bytes;
    }
    for (unsigned index = 0; index < EvictLanes::count; ++index) {
        evict_lanes[index].blob = at;
        evict_lanes[index].copies = at + blobs_bytes;
        evict_lanes[index].scratch = {at + blobs_bytes + copies_bytes, encode_bytes};
        evict_lanes[index].first_slot = index * batch_pages;
        at += blobs_bytes + copies_bytes + encode_bytes;
    }
    return 0;
}

// The staging area and the doorbell: registered (UFFDIO_MOVE wants that of its destination), not inherited,
// so that its pages stay exclusive. A forked child gets one elsewhere: what was mapped since may lie in the
// hole.
int Heap::map_staging() noexcept {
    const std::uint64_t bytes = staging_bytes() + page_bytes;
    if (int error = staging_.map(bytes)) return error;
    ::madvise(staging_.address(), bytes, MADV_NOHUGEPAGE);
    if (::madvise(staging_.address(), bytes, MADV_DONTFORK) != 0) return errno;
    for (unsigned index = 0; index < EvictLanes::count; ++index)
        evict_lanes[index].staging = staging_.address() + index * batch_pages * page_bytes;
    if (int error = os::uffd_register(uffd.fd, staging_.address(), bytes, UFFDIO_REGISTER_MODE_MISSING))
        return error;
    // Where mlockall(2) filled it. From now on it is watched, and only a move fills it.
    os::drop_pages(staging_.address(), bytes);
    return 0;
}

int Heap::open_userfaultfd(std::string* message) {
    // A forked child knows what its parent found, and may have opened it already.
    if (uffd.fd >= 0) return 0;
    if (uffd.rung != os::UffdRung::none) {
        const int error = os::reopen_userfaultfd(uffd);
        if (error != 0) *message = "no userfaultfd of its own (descriptors, or no right to one any more)";
        return error;
    }
    std::uint64_t wanted =
        UFFD_FEATURE_MOVE | UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_THREAD_ID | UFFD_FEATURE_POISON;
    const bool in_line = config.engine == PN_ENGINE_INLINE;
    if (in_line) wanted |= UFFD_FEATURE_SIGBUS;
    uffd = os::open_userfaultfd(wanted, !in_line);
    if (uffd.fd < 0) {
        *message =
            "no right to a full userfaultfd: as root run `sysctl vm.unprivileged_userfaultfd=1`, or let the "
            "user read and write "
            "/dev/userfaultfd (in a container: allow it in the seccomp profile)";
        return uffd.error != 0 ? uffd.error : EPERM;
    }
    if (in_line && !uffd.has(UFFD_FEATURE_SIGBUS)) {
        *message = "this kernel's userfaultfd raises no signals: Linux 4.14 or later is needed";
        return ENOSYS;
    }
    if (!uffd.has(UFFD_FEATURE_MOVE) && !uffd.has(UFFD_FEATURE_PAGEFAULT_FLAG_WP)) {
        *message =
            "this kernel's userfaultfd can neither move nor write-protect pages: Linux 5.7 or later is "
            "needed";
        return ENOSYS;
    }
    engine = in_line ? Engine::in_line : Engine::thread;
    return 0;
}

int Heap::activate(std::string* message, unsigned handlers_now) {
    if (is_active()) return 0;
    const os::SignalsBlocked signals;
    const std::lock_guard lock(activation_lock);
    return activate_locked(message, handlers_now);
}

int Heap::activate_locked(std::string* message, unsigned handlers_now) {
    if (is_active()) return 0;
    if (activation_failed.load()) {
        *message = "the heap could not be activated before";
        return EPERM;
    }
    stop.store(false);
    int error = open_userfaultfd(message);
    moves_pages.store(uffd.has(UFFD_FEATURE_MOVE));
    if (error == 0 && page_map < 0) page_map = os::open_page_map();
    if (error == 0) error = far.open(message);
    if (error == 0 && (error = map_staging()) != 0) *message = "cannot map the staging area";
    if (error == 0 && engine == Engine::in_line) error = install_inline_engine();
    if (error == 0) open_offload();
    // The handlers' lanes are theirs for good.
    for (unsigned index = 0; error == 0 && index < FaultThreads::threads_max; ++index)
        resolve_lanes[index].taken.store(true);
    if (error == 0 && engine == Engine::thread) error = fault_threads.start(*this, uffd.fd, handlers_now);
    if (error == 0) {
        // From here on faults are served; the evictor needs that.
        active.store(true, std::memory_order_release);
        read_ahead.set_processors(os::processors_allowed());
        if (evictor.start(&evictor_main, this) != 0)
            report("no evictor thread could be started: threads that fault make room themselves");
        if (recompressor.start(*this) != 0)
            report("no recompressor thread could be started: blobs stay as they are");
        if (config.verbose) say_active();
        return 0;
    }
    if (message->empty()) *message = "the fault engine could not be started";
    activation_failed.store(true);
    offload.close();
    os::close_userfaultfd(uffd);
    os::close_descriptor(std::exchange(page_map, -1));
    engine = Engine::none;
    return error;
}

// An accelerator that cannot be had is not an error: software does its work, in the same format.
void Heap::open_offload() {
    std::string why;
    const LentEvictLane lane(evict_lanes);
    offload.open(config.far.codec, lane->scratch, &why);
    if (config.verbose && !why.empty()) report("codec %s: %s", compress::name_of(far.codec()), why.c_str());
}

void Heap::far_room_made(std::uint64_t pages) noexcept {
    constexpr std::uint64_t worth_a_look = 64;
    if (far_left.fetch_add(pages, std::memory_order_relaxed) + pages < worth_a_look) return;
    far_left.store(0, std::memory_order_relaxed);
    near.end_rest();
    near.wake_evictor();
}

// What could not be placed, or not be pinned, may be now; what is in excess has to go. Called by whoever
// changed the node.
void Heap::node_changed() noexcept {
    near.try_again();
    near.wake_evictor();
}

void Heap::say_active() const {
    report("active in process %d: %s engine, %s eviction by %s, node %s, codec %s, near limit %s", ::getpid(),
           engine == Engine::in_line ? "inline" : "thread",
           uffd.has(UFFD_FEATURE_MOVE) ? "move" : "write-protect", os::describe(uffd.rung),
           far.node()->spec().c_str(), compress::name_of(far.codec()),
           near.is_limited() ? format_size(near.limit_pages() * page_bytes).c_str() : "none");
    const std::string& notice = far.node()->region().notice();
    if (!notice.empty()) report("%s", notice.c_str());
}

int Heap::pages_of(const void* address, std::uint64_t bytes, std::uint64_t* first,
                   std::uint64_t* pages) const noexcept {
    const auto at = reinterpret_cast<std::uint64_t>(address);
    if (bytes == 0 || at % page_bytes != 0 || !contains(at) || bytes > page_count * page_bytes) return EINVAL;
    *first = page_at(at);
    *pages = round_up(bytes, page_bytes) / page_bytes;
    if (!spans.is_allocated(*first, *pages)) return EINVAL;
    const std::uint8_t mask = PageTraits::handed_out;
    return (traits[*first] & mask) == 0 && traits.run(*first, *pages, mask) == *pages ? 0 : EINVAL;
}

int Heap::allocate(std::uint64_t bytes, const Placing& placing, void** out) {
    if (bytes == 0 || (placing.alignment & (placing.alignment - 1)) != 0) return EINVAL;
    if (bytes > page_count * page_bytes || placing.alignment > page_count * page_bytes) return ENOMEM;
    const std::uint64_t pages = round_up(bytes, page_bytes) / page_bytes;
    if (!placing.reserved) {
        if (placing.activates) activate_if_due(pages);
        if (config.strict && !has_room_for(pages)) return ENOMEM;
    }
    const os::SignalsBlocked signals;
    const Inside inside(operations);
    std::uint64_t first = 0;
    if (const int error = take_pages(pages, placing, &first)) return error;
    if (const int error = make_ordinary(first, pages, placing.reserved)) {
        const std::lock_guard lock(span_lock);
        spans.free(first, pages);
        return error;
    }
    if (!placing.reserved) charge_new(first, pages);
    *out = address_of(first);
    return 0;
}

int Heap::take_pages(std::uint64_t pages, const Placing& placing, std::uint64_t* first) noexcept {
    const std::lock_guard lock(span_lock);
    if (placing.at == nullptr) {
        const std::uint64_t alignment = std::max<std::uint64_t>(placing.alignment / page_bytes, 1);
        if (!spans.allocate(pages, alignment, first)) return ENOMEM;
    } else {
        *first = page_at(reinterpret_cast<std::uint64_t>(placing.at));
        if (!spans.allocate_at(*first, pages)) return EEXIST;
    }
    const int error = open_up_to(*first + pages);
    if (error != 0) spans.free(*first, pages);
    return error;
}

// Makes the address space accessible, and a part of core dumps, as far as buffers come. With the span lock
// held. Buffers lie low in it, so it is rare that they grow past all others.
int Heap::open_up_to(std::uint64_t end) noexcept {
    constexpr std::uint64_t step_pages = (std::uint64_t{64} << 20) / page_bytes;
    if (end <= opened_pages_) return 0;
    end = std::min(round_up(end, step_pages), page_count);
    void* const from = address_of(opened_pages_);
    const std::uint64_t bytes = (end - opened_pages_) * page_bytes;
    if (::mprotect(from, bytes, PROT_READ | PROT_WRITE) != 0) return errno;
    ::madvise(from, bytes, MADV_DODUMP);
    opened_pages_ = end;
    return 0;
}

// What a former owner left inaccessible is accessible again; what is reserved is not. The range is ours.
int Heap::make_ordinary(std::uint64_t first, std::uint64_t pages, bool reserved) noexcept {
    const std::uint8_t wanted =
        reserved ? PageTraits::reserved | PageTraits::of_protection(PROT_NONE) : PageTraits::ordinary;
    const std::uint8_t all = 0xff;
    if (!reserved && traits[first] == wanted && traits.run(first, pages, all) == pages) return 0;
    if (::mprotect(address_of(first), pages * page_bytes, reserved ? PROT_NONE : PROT_READ | PROT_WRITE) != 0)
        return errno;
    const std::lock_guard lock(span_lock);
    traits.set(first, pages, all, wanted);
    return 0;
}

// Of pages that nobody can touch yet. What does not fit under the high watermark is watched from the start,
// and charged page by page as it is touched.
void Heap::charge_new(std::uint64_t first, std::uint64_t pages) noexcept {
    {
        const std::lock_guard lock(span_lock);
        if (near.fits(pages) || !is_active()) return charge_spans(first, pages, +1);
    }
    for (std::uint64_t chunk = chunk_of(first); chunk <= chunk_of(first + pages - 1); ++chunk)
        track_chunk(*this, chunk);
    const std::lock_guard lock(span_lock);
    charge_spans(first, pages, +1);
}

void Heap::activate_if_due(std::uint64_t pages_more) {
    if (!is_activation_due(pages_more)) return;
    const os::SignalsBlocked signals;
    const std::unique_lock lock(activation_lock, std::try_to_lock);
    if (!lock.owns_lock() || activation_failed.load()) return;
    std::string message;
    if (activate_locked(&message, FaultThreads::threads_max) != 0)
        report("%s; the program runs unmanaged", message.c_str());
}

// Strict: what cannot be near must fit into what is left of the node, uncompressed.
// And what is near now must be able to leave: pinned or incompressible pages count for good.
bool Heap::has_room_for(std::uint64_t pages) noexcept {
    if (!near.is_limited()) return true;
    const std::uint64_t beyond = spans.allocated_pages() + pages;
    if (beyond <= near.limit_pages()) return true;
    if (!is_active() || far.is_nearly_full()) return false;
    const os::SignalsBlocked signals;
    const Inside inside(operations);
    make_room(*this, Evicting::other);
    return near.pages() < near.limit_pages();
}

// With the span lock held. An untracked chunk's allocated pages are charged as near, whether touched or not.
void Heap::charge_spans(std::uint64_t first, std::uint64_t pages, std::int64_t sign) noexcept {
    while (pages != 0) {
        const std::uint64_t chunk = chunk_of(first);
        const std::uint64_t here = std::min(pages, (chunk + 1) * chunk_pages - first);
        chunks.add_allocated(chunk, sign * static_cast<std::int64_t>(here));
        if (chunks.state(chunk) != ChunkState::tracked) {
            if (sign > 0) near.charge(here, statistics);
            if (sign < 0) near.discharge(here);
        }
        first += here;
        pages -= here;
    }
}

int Heap::free(std::uint64_t first, std::uint64_t pages) {
    const os::SignalsBlocked signals;
    const Inside inside(operations);
    if (any_pinned(*this, first, pages)) return EBUSY;
    release(*this, first, pages);
    const std::lock_guard lock(span_lock);
    if (!spans.is_allocated(first, pages)) return EINVAL;  // somebody else freed it meanwhile
    spans.free(first, pages);
    traits.for_each(first, pages, PageTraits::reserved, 0,
                    [&](std::uint64_t at, std::uint64_t count) { charge_spans(at, count, -1); });
    traits.set(first, pages, PageTraits::reserved, 0);
    return 0;
}

}  // namespace pnode
