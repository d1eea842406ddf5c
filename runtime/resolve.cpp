// resolve(): one page comes near, whoever asks, whichever engine. DESIGN 4.
//
// Allocates nothing, takes no lock that application code can hold while it faults, throws nothing.

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "runtime/heap.h"

namespace pnode {
namespace {

// A page of zeros to copy a first touch from: read-only data, so the kernel never has to zero-fill it for us.
alignas(4096) constexpr std::byte zeros[page_bytes] = {};

constexpr std::uint64_t report_after_ns = 10'000'000'000;

enum class Copied : std::uint8_t { done, present, gone };

// UFFDIO_COPY with each errno's decision. ENOMEM: DRAM is short: make room, wait, and say so every ten
// seconds.
Copied copy_in(Heap& heap, std::uint64_t page, const std::byte* contents, bool protect = false) noexcept {
    const auto copy = protect ? os::uffd_copy_protected : os::uffd_copy;
    std::uint64_t waiting_since = 0;
    for (;;) {
        std::size_t done = 0;
        switch (const int error = copy(heap.uffd.fd, heap.address_of(page), contents, page_bytes, &done)) {
            case 0:
                return Copied::done;
            case EEXIST:
                return Copied::present;
            case ENOENT:  // the range was unmapped or is not registered any more
            case ESRCH:
                return Copied::gone;
            case EAGAIN:
                break;  // the address space is being changed: it will be over soon
            default: {
                const std::uint64_t now = os::now_ns();
                if (waiting_since == 0) waiting_since = now;
                if (now - waiting_since > report_after_ns) {
                    report("waiting for memory to bring page %p near: errno %d", heap.address_of(page),
                           error);
                    waiting_since = now;
                }
                heap.near.wake_evictor();
                os::sleep_ns(1'000'000);
            }
        }
    }
}

// Only threads that sleep in the kernel are to be woken.
void wake(Heap& heap, std::uint64_t page) noexcept {
    if (heap.engine != Engine::in_line) os::uffd_wake(heap.uffd.fd, heap.address_of(page), page_bytes);
}

// A thread that serves its own faults makes room itself (make_room) past `hard`: to have another thread do it
// would cost the interrupts by which two processors flush each other's TLB, more than what is done. But a
// device is the evictor's to wait for.
void charge(Heap& heap) noexcept {
    const bool by_caller = heap.engine == Engine::in_line && heap.offload.accelerator() == nullptr;
    heap.near.charge(1, heap.statistics,
                     by_caller ? NearLedger::Room::by_caller : NearLedger::Room::by_evictor);
}

// A page that came back soon after it left rises, and is passed over exponentially more sweeps; one that came
// back late sinks (DESIGN 5.2). "Soon": within as many evictions as half the near pages, told by an epoch of
// an eighth of them.
PageWord warmed(Heap& heap, PageWord word) noexcept {
    const unsigned age = (heap.epoch() - word.stamp()) % stamps;
    unsigned level = word.level();
    if (age <= 4 && level < level_max) ++level;
    if (age > 16 && level > 0) --level;
    return word.with_level(level).with_skip((1u << level) - 1);
}

// A page that kept its blob leaves again for a tenth of what another one costs, and comes back at the same
// cost: in all for a third. So it is passed over a quarter as often, and the pages that would have to be
// compressed stay longer; bench/policy has what that is worth, and that misses do not rise.
constexpr unsigned kept_skip_shift = 2;

Resolved poison(Heap& heap, std::uint64_t page, PageWord word, const char* why) noexcept {
    report("page %p is lost: its blob at %#llx of the node: %s", heap.address_of(page),
           static_cast<unsigned long long>(word.place()), why);
    heap.statistics.poisoned.add();
    heap.statistics.far_pages.subtract(1);
    // The slot is never freed: nothing else shall be stored in bytes that went wrong once.
    heap.far.give_up(word);
    heap.word(page).publish(word.without_blob().with(PageState::poisoned));
    return Resolved::poisoned;
}

Resolved resolve_poisoned(Heap& heap, std::uint64_t page, FaultKind kind) noexcept {
    // UFFDIO_POISON (6.6): the access raises SIGBUS. Without it the process cannot be told in place, and must
    // not go on with a wrong byte. Who only asked is told by the answer.
    const int error = os::uffd_poison(heap.uffd.fd, heap.address_of(page), page_bytes);
    if (error != 0 && error != EEXIST) {
        if (kind == FaultKind::asked) return Resolved::poisoned;
        report("page %p is lost and this kernel cannot deliver that as SIGBUS: the process ends",
               heap.address_of(page));
        ::kill(::getpid(), SIGBUS);
    }
    os::uffd_wake(heap.uffd.fd, heap.address_of(page), page_bytes);
    return Resolved::poisoned;
}

// The caller owns the busy page. A fresh page reads as zeros.
Resolved resolve_fresh(Heap& heap, std::uint64_t page, PageWord word) noexcept {
    charge(heap);
    const Copied copied = copy_in(heap, page, zeros);
    if (copied == Copied::gone) {
        heap.near.discharge(1);
        heap.word(page).publish(word);
        return Resolved::gone;
    }
    if (copied == Copied::present) wake(heap, page);
    heap.word(page).publish(PageWord().with_pinned(word.pinned()).with(PageState::near));
    return Resolved::fresh;
}

// The caller owns the busy page.
Resolved unprotect(Heap& heap, std::uint64_t page, PageWord word) noexcept {
    os::uffd_write_protect(heap.uffd.fd, heap.address_of(page), page_bytes, false);
    os::uffd_wake(heap.uffd.fd, heap.address_of(page), page_bytes);
    heap.word(page).publish(word);
    return Resolved::redundant;
}

// A fault on a near page: somebody else served it, or the application dropped the page behind our back (a raw
// madvise): then it reads as zeros.
Resolved resolve_near(Heap& heap, std::uint64_t page, PageWord word, FaultKind kind) noexcept {
    if (kind == FaultKind::write_protected || kind == FaultKind::unknown)
        word = unprotected(heap, page, word);
    if (kind != FaultKind::write_protected && copy_in(heap, page, zeros) == Copied::done)
        word = word.with_write_protected(false);
    wake(heap, page);
    heap.word(page).publish(word);
    return Resolved::redundant;
}

// Back from limbo at once. The staging page stays its evictor's, who frees it when it sees that the page is
// gone.
Resolved resolve_limbo(Heap& heap, std::uint64_t page, PageWord word) noexcept {
    heap.statistics.limbo_returns.add();
    if (word.in_place()) {
        os::uffd_write_protect(heap.uffd.fd, heap.address_of(page), page_bytes, false);
        os::uffd_wake(heap.uffd.fd, heap.address_of(page), page_bytes);
        heap.word(page).publish(word.without_blob().with_in_place(false).with(PageState::near));
        return Resolved::served;
    }
    const OutgoingPage& out = heap.slot(word.place());
    const PageWord near_word = warmed(heap, out.word).with(PageState::near);
    const Copied copied = copy_in(heap, page, out.contents);
    if (copied == Copied::present) wake(heap, page);
    heap.word(page).publish(near_word);
    return copied == Copied::gone ? Resolved::gone : Resolved::served;
}

// Should the page's first write fault? Then the kernel vouches for it until that write, and it leaves again
// without being looked at (evict, is_unwritten). A page that was written to in its last stay would fault
// twice for nothing.
bool should_protect(Heap& heap, PageWord word, FaultKind kind) noexcept {
    return kind == FaultKind::missing_to_read && !word.written() && word.store() == heap.far.own_store() &&
           heap.uffd.has(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
}

Resolved resolve_far(Heap& heap, std::uint64_t page, PageWord word, FaultKind kind,
                     ResolveLane& lane) noexcept {
    compress::DecodeResult decoded = compress::DecodeResult::truncated;
    const bool readable = heap.far.load(word, [&] {
        decoded = compress::decode(heap.far.bytes(word), heap.far.key(),
                                   std::span<std::byte>(lane.page, page_bytes), lane.scratch,
                                   heap.offload.accelerator(), heap.far.dictionaries().of(word));
    });
    if (!readable) return poison(heap, page, word, "its memory is bad");
    if (decoded != compress::DecodeResult::ok) return poison(heap, page, word, compress::describe(decoded));
    charge(heap);
    const bool keep =
        is_forking_here() || heap.far.should_keep(word, heap.statistics, heap.near.kept_bytes_max());
    const bool protect = keep && should_protect(heap, word, kind);
    const Copied copied = copy_in(heap, page, lane.page, protect);
    if (copied == Copied::gone) {
        heap.near.discharge(1);
        heap.word(page).publish(word.with(PageState::far));
        return Resolved::gone;
    }
    if (copied == Copied::present) wake(heap, page);
    PageWord near_word =
        warmed(heap, word).with(PageState::near).with_write_protected(protect && copied == Copied::done);
    if (keep) near_word = near_word.with_skip(near_word.skip() >> kept_skip_shift);
    if (keep) heap.statistics.kept_blob_bytes.add(heap.far.bytes(word).size());
    if (!keep) near_word = near_word.without_blob();
    heap.word(page).publish(near_word);
    if (word.store() != heap.far.own_store() && near_word.skip() == 0) heap.leased_pages.add(page);
    if (!keep) heap.far.drop(word);
    if (!keep && heap.near.is_resting()) heap.far_room_made(1);
    heap.statistics.far_pages.subtract(1);
    heap.statistics.promotions.add();
    return Resolved::served;
}

}  // namespace

PageWord unprotected(Heap& heap, std::uint64_t page, PageWord word) noexcept {
    os::Backoff backoff;
    while (os::uffd_write_protect(heap.uffd.fd, heap.address_of(page), page_bytes, false) == EAGAIN)
        backoff.wait();  // the address space is being changed: it will be over soon
    return word.with_written(word.written() || word.write_protected()).with_write_protected(false);
}

void make_writable(Heap& heap, std::uint64_t page) noexcept {
    for (;;) {
        const PageWord word = heap.word(page).load();
        if (word.state() != PageState::near || !word.write_protected()) return;
        if (!heap.word(page).make_busy(word)) continue;
        heap.word(page).publish(unprotected(heap, page, word));
        return;
    }
}

Resolved resolve(Heap& heap, std::uint64_t page, FaultKind kind, ResolveLane& lane) noexcept {
    os::Backoff backoff;
    std::uint64_t reported_at = 0;
    for (;;) {
        const PageWord word = heap.word(page).load();
        switch (word.state()) {
            case PageState::busy: {
                backoff.wait();
                if (backoff.rounds() < 5000) continue;
                const std::uint64_t now = os::now_ns();
                if (reported_at == 0) reported_at = now;
                if (now - reported_at > report_after_ns) {
                    report("page %p has been in transit for ten seconds", heap.address_of(page));
                    reported_at = now;
                }
                continue;
            }
            case PageState::poisoned:
                return resolve_poisoned(heap, page, kind);
            default:
                break;
        }
        if (!heap.word(page).make_busy(word)) continue;
        switch (word.state()) {
            case PageState::fresh:
                // Released since it was write-protected: whoever still wants it faults again.
                if (kind == FaultKind::write_protected) return unprotect(heap, page, word);
                return resolve_fresh(heap, page, word);
            case PageState::near:
                return resolve_near(heap, page, word, kind);
            case PageState::limbo:
                return resolve_limbo(heap, page, word);
            case PageState::far: {
                const Resolved resolved = resolve_far(heap, page, word, kind, lane);
                return resolved == Resolved::poisoned ? resolve_poisoned(heap, page, kind) : resolved;
            }
            default:
                __builtin_unreachable();
        }
    }
}

int promote(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    int error = 0;
    LentResolveLane lane(heap.resolve_lanes);
    for (std::uint64_t page = first; page < first + pages; ++page) {
        if (heap.chunks.state(heap.chunk_of(page)) == ChunkState::untracked) {
            page = (heap.chunk_of(page) + 1) * heap.chunk_pages - 1;  // nothing in it was ever taken out
            continue;
        }
        const PageState state = heap.word(page).load().state();
        if (state == PageState::near) make_writable(heap, page);
        if (state == PageState::fresh || state == PageState::near) continue;
        if (state == PageState::poisoned ||
            resolve(heap, page, FaultKind::asked, *lane) == Resolved::poisoned)
            error = EIO;
        make_room(heap, Evicting::other);
    }
    return error;
}

}  // namespace pnode
