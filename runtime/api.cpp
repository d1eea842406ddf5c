// The public C API: arguments are checked here, once; everything behind trusts them.

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "compress/codec.h"
#include "cxl/node.h"
#include "cxl/sizes.h"
#include "pnode/pnode.h"
#include "runtime/handles.h"
#include "runtime/os/runtime_scope.h"
#include "runtime/os/signals_blocked.h"
#include "runtime/process.h"
#include "runtime/stats_json.h"

namespace {

using pnode::fail_with;
using pnode::guarded;
using pnode::Heap;
using pnode::PageTraits;
using pnode::os::RuntimeScope;
using pnode::os::SignalsBlocked;

thread_local char last_message[256];

// The common frame of the calls that own pages: range checked, fork kept out, signals blocked.
template <class Body>
int on_pages(pn_heap* heap, const void* address, std::uint64_t bytes, Body body) noexcept {
    std::uint64_t first = 0;
    std::uint64_t pages = 0;
    if (heap == nullptr || heap->heap.pages_of(address, bytes, &first, &pages) != 0) return EINVAL;
    const RuntimeScope scope;
    return body(heap->heap, first, pages);
}

template <class Body>
int on_active_pages(pn_heap* heap, const void* address, std::uint64_t bytes, Body body) noexcept {
    return on_pages(heap, address, bytes, [&](Heap& managed, std::uint64_t first, std::uint64_t pages) {
        std::string message;
        if (!managed.is_active()) {
            if (const int error = managed.activate(&message)) return fail_with(error, message);
        }
        const SignalsBlocked signals;
        const pnode::Inside inside(managed.operations);
        return body(managed, first, pages);
    });
}

// Whole pages of the heap's address space, in buffers or not.
bool is_in_range(const Heap& heap, const void* address, std::uint64_t bytes) noexcept {
    const auto at = reinterpret_cast<std::uint64_t>(address);
    return bytes != 0 && at % pnode::page_bytes == 0 && heap.contains(at) &&
           bytes <= (heap.page_count - heap.page_at(at)) * pnode::page_bytes;
}

bool is_ordinary(const Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    constexpr std::uint8_t mask = 0xff & ~PageTraits::codec_mask;
    return (heap.traits[first] & mask) == PageTraits::ordinary &&
           heap.traits.run(first, pages, mask) == pages;
}

int parse_options(const pn_heap_options& options, Heap::Config* config) {
    const std::uint64_t physical = pnode::physical_memory_bytes();
    if (options.struct_bytes != sizeof options || options.version != PN_VERSION)
        return fail_with(EINVAL, "pn_heap_options of another version: call pn_heap_options_init()");
    if (options.near_bytes_max != 0 &&
        options.near_bytes_max < pnode::NearLedger::limit_pages_min * pnode::page_bytes)
        return fail_with(EINVAL, "near_bytes_max must be 0 or at least 1 MiB");
    if (options.near_bytes_max > std::uint64_t{1} << 60)
        return fail_with(EINVAL, "near_bytes_max must be below 1 EiB");
    if (options.far_bytes_max != 0 && options.far_bytes_max < std::uint64_t{1} << 20)
        return fail_with(EINVAL, "far_bytes_max must be 0 or at least 1 MiB");
    if (options.total_bytes_max != 0 &&
        options.total_bytes_max < pnode::NearLedger::limit_pages_min * pnode::page_bytes)
        return fail_with(EINVAL, "total_bytes_max must be 0 or at least 1 MiB");
    if (options.total_bytes_max > std::uint64_t{1} << 60)
        return fail_with(EINVAL, "total_bytes_max must be below 1 EiB");
    if (options.engine > PN_ENGINE_INLINE)
        return fail_with(EINVAL, "engine must be one of PN_ENGINE_AUTO, _THREAD, _INLINE");
    if ((options.flags & ~static_cast<std::uint32_t>(PN_HEAP_STRICT | PN_HEAP_STRESS | PN_HEAP_VERBOSE |
                                                     PN_HEAP_PINNED_IO)) != 0)
        return fail_with(EINVAL, "unknown bits in flags");
    const char* codec = options.codec != nullptr ? options.codec : "lz4";
    if (!pnode::compress::parse_codec_choice(codec, &config->far.codec))
        return fail_with(
            EINVAL, std::string("unknown codec '") + codec + "': " + pnode::compress::codec_choice_grammar);
    const char* stress = std::getenv("PNODE_STRESS");
    config->address_bytes = options.address_bytes_max != 0 ? options.address_bytes_max : 4 * physical;
    config->near_bytes_max = options.near_bytes_max;
    config->activation_bytes = options.activation_bytes;
    config->engine = options.engine;
    config->strict = (options.flags & PN_HEAP_STRICT) != 0;
    config->stress =
        (options.flags & PN_HEAP_STRESS) != 0 || (stress != nullptr && std::strcmp(stress, "1") == 0);
    config->verbose = (options.flags & PN_HEAP_VERBOSE) != 0;
    config->pins_io = (options.flags & PN_HEAP_PINNED_IO) != 0;
    config->total_bytes_max = options.total_bytes_max;
    config->far.bytes_max = options.far_bytes_max;
    config->far.node = options.node != nullptr ? options.node->node.get() : nullptr;
    config->far.spec =
        options.node_spec != nullptr
            ? options.node_spec
            : "memory:" + std::to_string(options.far_bytes_max != 0 ? options.far_bytes_max : physical);
    return 0;
}

// Demotes down to limits that have changed. 0, or why the heap cannot become active.
int enforce_limits(Heap& managed) noexcept {
    managed.near.try_again();
    std::string message;
    if (!managed.is_active() && managed.near.past_high()) {
        if (const int error = managed.activate(&message)) return fail_with(error, message);
    }
    if (!managed.is_active()) return 0;
    managed.near.wake_evictor();
    const SignalsBlocked signals;
    const pnode::Inside inside(managed.operations);
    // Enough for the hand to pass over the warmest page as often as it is passed over at most.
    const std::uint64_t fruitless_max = 64 + managed.spans.allocated_pages() / 256;
    for (std::uint64_t fruitless = 0; managed.near.past_hard() && fruitless < fruitless_max;) {
        pnode::LentEvictLane lane(managed.evict_lanes);
        fruitless = evict_batch(managed, *lane, pnode::Evicting::other) == 0 ? fruitless + lane->turns : 0;
    }
    return 0;
}

}  // namespace

int pnode::fail_with(int error, const std::string& message) noexcept {
    std::strncpy(last_message, message.c_str(), sizeof last_message - 1);
    return error;
}

extern "C" {

void pn_heap_options_init(pn_heap_options* options) noexcept {
    if (options == nullptr) return;
    *options = pn_heap_options{};
    options->struct_bytes = sizeof *options;
    options->version = PN_VERSION;
}

int pn_heap_open(const pn_heap_options* options, pn_heap** out) noexcept {
    if (options == nullptr || out == nullptr) return fail_with(EINVAL, "options and out must not be NULL");
    return guarded([&] {
        Heap::Config config;
        if (const int error = parse_options(*options, &config)) return error;
        auto opened = std::make_unique<pn_heap>();
        std::string message;
        if (const int error = opened->heap.open(std::move(config), &message))
            return fail_with(error, message);
        *out = opened.release();
        return 0;
    });
}

int pn_heap_close(pn_heap* heap) noexcept {
    const RuntimeScope scope;
    delete heap;
    return 0;
}

int pn_heap_set_near_limit(pn_heap* heap, std::uint64_t near_bytes_max) noexcept {
    const std::uint64_t pages = near_bytes_max / PN_PAGE_BYTES;
    if (heap == nullptr || pages < pnode::NearLedger::limit_pages_min || pages > pnode::NearLedger::unlimited)
        return EINVAL;
    const RuntimeScope scope;
    heap->heap.near.set_limit(pages);
    return enforce_limits(heap->heap);
}

int pn_heap_set_total_limit(pn_heap* heap, std::uint64_t total_bytes_max) noexcept {
    const std::uint64_t pages = total_bytes_max / PN_PAGE_BYTES;
    if (heap == nullptr || (total_bytes_max != 0 && pages < pnode::NearLedger::limit_pages_min) ||
        pages > pnode::NearLedger::unlimited)
        return EINVAL;
    const RuntimeScope scope;
    heap->heap.near.set_total(pages);
    share_total(heap->heap);
    return enforce_limits(heap->heap);
}

int pn_buffer_alloc(pn_heap* heap, std::uint64_t bytes, std::uint64_t alignment, void** out) noexcept {
    if (heap == nullptr || out == nullptr) return EINVAL;
    return guarded([&] { return heap->heap.allocate(bytes, {.alignment = alignment}, out); });
}

int pn_buffer_reserve(pn_heap* heap, std::uint64_t bytes, std::uint64_t alignment, void** out) noexcept {
    if (heap == nullptr || out == nullptr) return EINVAL;
    return guarded(
        [&] { return heap->heap.allocate(bytes, {.alignment = alignment, .reserved = true}, out); });
}

int pn_buffer_alloc_at(pn_heap* heap, void* address, std::uint64_t bytes, std::uint32_t flags) noexcept {
    if (heap == nullptr || !is_in_range(heap->heap, address, bytes) ||
        (flags & ~std::uint32_t{PN_RESERVED}) != 0)
        return EINVAL;
    return guarded([&] {
        void* out = nullptr;
        return heap->heap.allocate(bytes, {.at = address, .reserved = flags != 0}, &out);
    });
}

int pn_heap_range(pn_heap* heap, void** address, std::uint64_t* bytes) noexcept {
    if (heap == nullptr || address == nullptr || bytes == nullptr) return EINVAL;
    *address = heap->heap.base;
    *bytes = heap->heap.page_count * pnode::page_bytes;
    return 0;
}

int pn_protect(pn_heap* heap, void* address, std::uint64_t bytes, int protection) noexcept {
    if ((protection & ~(PROT_READ | PROT_WRITE | PROT_EXEC)) != 0) return EINVAL;
    return on_pages(heap, address, bytes, [&](Heap& managed, std::uint64_t first, std::uint64_t pages) {
        return managed.protect(first, pages, protection);
    });
}

int pn_buffer_set_codec(pn_heap* heap, void* address, std::uint64_t bytes, const char* codec) noexcept {
    pnode::compress::CodecChoice choice;
    const bool is_own = codec != nullptr && *codec != '\0';
    if (is_own &&
        (!pnode::compress::parse_codec_choice(codec, &choice) || !pnode::BufferCodecs::is_possible(choice)))
        return EINVAL;
    return on_pages(heap, address, bytes, [&](Heap& managed, std::uint64_t first, std::uint64_t pages) {
        const SignalsBlocked signals;
        const std::lock_guard lock(managed.span_lock);
        unsigned number = 0;
        if (is_own) {
            if (const int error = managed.buffer_codecs.add(choice, pnode::EvictLanes::count, &number))
                return error;
        }
        managed.traits.set(first, pages, PageTraits::codec_mask, PageTraits::of_codec(number));
        return 0;
    });
}

int pn_relocate(pn_heap* heap, void* from, void* to, std::uint64_t bytes) noexcept {
    return on_pages(heap, from, bytes, [&](Heap& managed, std::uint64_t first, std::uint64_t pages) {
        std::uint64_t target = 0;
        if (managed.pages_of(to, bytes, &target, &pages) != 0) return EINVAL;
        if (target < first + pages && first < target + pages) return EINVAL;
        if (!is_ordinary(managed, first, pages) || !is_ordinary(managed, target, pages)) return EINVAL;
        const SignalsBlocked signals;
        const pnode::Inside inside(managed.operations);
        if (any_pinned(managed, first, pages) || any_pinned(managed, target, pages)) return EBUSY;
        release(managed, target, pages);
        const int error = relocate(managed, first, target, pages);
        if (managed.is_active()) make_room(managed, pnode::Evicting::other);
        return error;
    });
}

int pn_hand_out(pn_heap* heap, void* address, std::uint64_t bytes) noexcept {
    return on_pages(heap, address, bytes, [](Heap& managed, std::uint64_t first, std::uint64_t pages) {
        return managed.hand_out(first, pages, Heap::Contents::dropped);
    });
}

int pn_hand_out_contents(pn_heap* heap, void* address, std::uint64_t bytes) noexcept {
    return on_pages(heap, address, bytes, [](Heap& managed, std::uint64_t first, std::uint64_t pages) {
        return managed.hand_out(first, pages, Heap::Contents::left);
    });
}

int pn_take_back(pn_heap* heap, void* address, std::uint64_t bytes) noexcept {
    if (heap == nullptr || !is_in_range(heap->heap, address, bytes)) return EINVAL;
    Heap& managed = heap->heap;
    const std::uint64_t first = managed.page_at(reinterpret_cast<std::uint64_t>(address));
    const std::uint64_t pages = (bytes + pnode::page_bytes - 1) / pnode::page_bytes;
    const std::uint8_t mask = PageTraits::handed_out;
    if ((managed.traits[first] & mask) == 0 || managed.traits.run(first, pages, mask) != pages) return EINVAL;
    const RuntimeScope scope;
    return managed.take_back(first, pages);
}

int pn_extent(pn_heap* heap, const void* address, std::uint64_t bytes, pn_extent_t* out) noexcept {
    if (heap == nullptr || out == nullptr || !is_in_range(heap->heap, address, bytes)) return EINVAL;
    const Heap& managed = heap->heap;
    const std::uint64_t first = managed.page_at(reinterpret_cast<std::uint64_t>(address));
    std::uint64_t pages = managed.spans.run(first, (bytes + pnode::page_bytes - 1) / pnode::page_bytes);
    *out = {pages * pnode::page_bytes, PN_EXTENT_FREE, 0};
    if (!managed.spans.is_allocated(first, 1)) return 0;
    constexpr std::uint8_t told = 7 | PageTraits::handed_out;
    const std::uint8_t traits = managed.traits[first];
    const bool is_out = (traits & PageTraits::handed_out) != 0;
    pages = managed.traits.run(first, pages, told);
    *out = {pages * pnode::page_bytes,
            static_cast<std::uint32_t>(is_out ? PN_EXTENT_HANDED_OUT : PN_EXTENT_BUFFER),
            PageTraits::protection_of(traits)};
    return 0;
}

int pn_buffer_free(pn_heap* heap, void* address, std::uint64_t bytes) noexcept {
    return on_pages(heap, address, bytes, [](Heap& managed, std::uint64_t first, std::uint64_t pages) {
        return managed.free(first, pages);
    });
}

int pn_release(pn_heap* heap, void* address, std::uint64_t bytes) noexcept {
    return on_pages(heap, address, bytes, [](Heap& managed, std::uint64_t first, std::uint64_t pages) {
        const SignalsBlocked signals;
        const pnode::Inside inside(managed.operations);
        release(managed, first, pages);
        return 0;
    });
}

int pn_demote(pn_heap* heap, void* address, std::uint64_t bytes, std::uint64_t* pages_done) noexcept {
    return on_active_pages(heap, address, bytes,
                           [&](Heap& managed, std::uint64_t first, std::uint64_t pages) {
                               std::uint64_t done = 0;
                               const int error = demote(managed, first, pages, &done);
                               if (pages_done != nullptr) *pages_done = done;
                               return error;
                           });
}

int pn_promote(pn_heap* heap, void* address, std::uint64_t bytes) noexcept {
    return on_pages(heap, address, bytes, [](Heap& managed, std::uint64_t first, std::uint64_t pages) {
        if (!managed.is_active()) return 0;  // nothing was ever taken out
        const SignalsBlocked signals;
        const pnode::Inside inside(managed.operations);
        return promote(managed, first, pages);
    });
}

int pn_pin(pn_heap* heap, void* address, std::uint64_t bytes) noexcept {
    return on_active_pages(heap, address, bytes, [](Heap& managed, std::uint64_t first, std::uint64_t pages) {
        if (!managed.far.node()->permits(pnode::cxl::service::pin)) return EPERM;
        return pin(managed, first, pages);
    });
}

int pn_unpin(pn_heap* heap, void* address, std::uint64_t bytes) noexcept {
    return on_pages(heap, address, bytes, [](Heap& managed, std::uint64_t first, std::uint64_t pages) {
        const SignalsBlocked signals;
        const pnode::Inside inside(managed.operations);
        return unpin(managed, first, pages);
    });
}

int pn_prefetch(pn_heap* heap, const void* address) noexcept {
    if (heap == nullptr) return EINVAL;
    Heap& managed = heap->heap;
    const auto at = reinterpret_cast<std::uint64_t>(address);
    if (!managed.is_active() || !managed.contains(at)) return 0;
    const std::uint64_t page = managed.page_at(at);
    if (managed.chunks.state(managed.chunk_of(page)) != pnode::ChunkState::tracked ||
        managed.word(page).load().state() != pnode::PageState::far)
        return 0;
    const SignalsBlocked signals;
    const pnode::Inside inside(managed.operations);
    if (!managed.far.node()->permits(pnode::cxl::service::prefetch)) return EPERM;
    if (!managed.nominations.add(page)) managed.statistics.prefetches_dropped.add();
    managed.near.wake_evictor();
    return 0;
}

int pn_heap_set_prefetch_limit(pn_heap* heap, std::uint64_t bytes_per_second) noexcept {
    if (heap == nullptr) return EINVAL;
    heap->heap.prefetch_budget.set_rate(bytes_per_second / pnode::page_bytes);
    return 0;
}

int pn_query(pn_heap* heap, const void* address, std::uint64_t bytes, std::uint8_t* states) noexcept {
    if (states == nullptr) return EINVAL;
    return on_pages(heap, address, bytes, [&](Heap& managed, std::uint64_t first, std::uint64_t pages) {
        for (std::uint64_t index = 0; index < pages; ++index) {
            switch (managed.word(first + index).load().state()) {
                case pnode::PageState::fresh:
                    states[index] = PN_PAGE_FRESH;
                    break;
                case pnode::PageState::near:
                    states[index] = PN_PAGE_NEAR;
                    break;
                case pnode::PageState::busy:
                    states[index] = PN_PAGE_BUSY;
                    break;
                case pnode::PageState::limbo:
                    states[index] = PN_PAGE_LIMBO;
                    break;
                case pnode::PageState::far:
                    states[index] = PN_PAGE_FAR;
                    break;
                case pnode::PageState::poisoned:
                    states[index] = PN_PAGE_POISONED;
                    break;
            }
        }
        return 0;
    });
}

int pn_stats(pn_heap* heap, pn_stats_t* out) noexcept {
    if (heap == nullptr || out == nullptr || out->struct_bytes != sizeof *out || out->version != PN_VERSION)
        return EINVAL;
    pnode::take_snapshot(heap->heap, out);
    return 0;
}

int pn_stats_json(pn_heap* heap, char* text, std::size_t capacity) noexcept {
    if (heap == nullptr || text == nullptr) return EINVAL;
    return pnode::stats_json(heap->heap, text, capacity) != 0 ? 0 : ENOSPC;
}

int pn_stats_file(pn_heap* heap, const char* path, std::uint32_t every_ms) noexcept {
    if (heap == nullptr || path == nullptr || std::strlen(path) >= pnode::StatsFile::path_max) return EINVAL;
    const SignalsBlocked signals;
    if (every_ms == 0) {
        const std::lock_guard writing(heap->heap.stats_file.writing());
        return pnode::write_stats_file(heap->heap, path);
    }
    heap->heap.stats_file.set(path, std::uint64_t{every_ms} * 1'000'000);
    if (heap->heap.is_active()) heap->heap.near.wake_evictor();
    return 0;
}

const char* pn_heap_validate(pn_heap* heap) noexcept {
    if (heap == nullptr) return "no heap";
    const RuntimeScope scope;
    return validate(heap->heap);
}

const char* pn_strerror(int error) noexcept {
    switch (error) {
        case 0:
            return "success";
        case EINVAL:
            return "an argument is out of its range, or not a range of this heap's buffers";
        case ENOMEM:
            return "no address space or memory left, or the near limit would be passed";
        case ENOSPC:
            return "the node is full or gated, or the buffer for the answer is too small";
        case EBUSY:
            return "in use: pinned pages, what a node cannot do without, or another owner";
        case EPERM:
            return "no right to a userfaultfd (pnode probe says what cures it), or the node was opened "
                   "without "
                   "this service";
        case EAGAIN:
            return "a page is pinned 255 times already";
        case EIO:
            return "a page is poisoned: its bytes are lost and were reported";
        case ENOSYS:
            return "the kernel lacks something needed: pnode probe says what";
        default:
            return ::strerrordesc_np(error) != nullptr ? ::strerrordesc_np(error) : "unknown error";
    }
}

const char* pn_last_message(void) noexcept {
    return last_message;
}

}  // extern "C"

namespace pnode {

int allocate_under_locks(pn_heap* heap, std::uint64_t bytes, std::uint64_t alignment, void** out) noexcept {
    return guarded(
        [&] { return heap->heap.allocate(bytes, {.alignment = alignment, .activates = false}, out); });
}

bool is_activation_due(pn_heap* heap) noexcept {
    return heap->heap.is_activation_due(0);
}

bool is_near_scarce(pn_heap* heap, bool was) noexcept {
    return !heap->heap.near.has_left(was ? 4 : 8);
}

void activate_if_due(pn_heap* heap, std::uint64_t bytes) noexcept {
    guarded([&] {
        heap->heap.activate_if_due((bytes + page_bytes - 1) / page_bytes);
        return 0;
    });
}

}  // namespace pnode
