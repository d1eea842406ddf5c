// resolve(): one page comes near, whoever asks, whichever engine. DESIGN 4.
//
// Allocates nothing, takes no lock that application code can hold while it faults, throws nothing.

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "runtime/promote.h"

namespace pnode {
namespace {

constexpr std::uint64_t rounds_late = 1500;  // of waiting: half a millisecond
constexpr std::uint64_t report_after_ns = 10'000'000'000;

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

// Handed out since the fault: what is absent there, and what is write-protected, is so for others' reasons.
// The caller owns the busy page. The access is made again.
Resolved leave_handed_out(Heap& heap, std::uint64_t page, PageWord word) noexcept {
    heap.word(page).publish(word);
    os::uffd_wake(heap.uffd.fd, heap.address_of(page), page_bytes);
    return Resolved::gone;
}

// The caller owns the busy page. A fresh page reads as zeros.
Resolved resolve_fresh(Heap& heap, std::uint64_t page, PageWord word) noexcept {
    charge(heap, 1);
    const Copied copied = copy_in(heap, page, os::zeros);
    if (copied == Copied::gone) {
        heap.near.discharge(1);
        heap.word(page).publish(word);
        return Resolved::gone;
    }
    if (copied == Copied::present) wake(heap, page);
    heap.near_map.mark(page);
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

// It was unwritten, and is written to: the blob it kept, if any, is of no use any more. Under lease it costs
// nothing; and who forks frees no blobs.
PageWord changed(Heap& heap, PageWord word, bool was_written) noexcept {
    if (word.store() != heap.far.own_store() || is_forking_here()) return word;
    if (!was_written) heap.kept_outcomes.changed();
    drop_kept(heap, word);
    return word.without_blob();
}

// A fault on a near page: somebody else served it, or the application dropped the page behind our back (a raw
// madvise): then it reads as zeros.
Resolved resolve_near(Heap& heap, std::uint64_t page, PageWord word, FaultKind kind) noexcept {
    const bool was_protected = word.write_protected();
    const bool was_written = word.written();  // and protected with others since (protect_spans.cpp)
    if (kind == FaultKind::write_protected || kind == FaultKind::unknown)
        word = unprotected(heap, page, word);
    if (kind == FaultKind::write_protected && was_protected) word = changed(heap, word, was_written);
    if (kind != FaultKind::write_protected && copy_in(heap, page, os::zeros) == Copied::done)
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
    const PageWord left_now = out.word.with_stamp(heap.epoch());
    const PageWord near_word = warmed(heap, left_now, left_now.place() != cxl::no_blob).with(PageState::near);
    const Copied copied = copy_in(heap, page, out.contents);
    if (copied == Copied::present) wake(heap, page);
    heap.word(page).publish(near_word);
    return copied == Copied::gone ? Resolved::gone : Resolved::served;
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

Resolved resolve(Heap& heap, std::uint64_t page, FaultKind kind, ResolveLane& lane, unsigned pages) noexcept {
    os::Backoff backoff;
    std::uint64_t reported_at = 0;
    for (;;) {
        const PageWord word = heap.word(page).load();
        switch (word.state()) {
            case PageState::busy: {
                if (const ReadAhead::Run run = heap.read_ahead.take_behind(page); run.pages != 0) {
                    bring_ahead(heap, run, lane);
                    continue;
                }
                backoff.wait();
                if (backoff.rounds() == rounds_late) heap.read_ahead.answers_late(page);
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
                if ((heap.traits[page] & PageTraits::handed_out) != 0)
                    return leave_handed_out(heap, page, word);
                // Released since it was write-protected: whoever still wants it faults again.
                if (kind == FaultKind::write_protected) return unprotect(heap, page, word);
                return resolve_fresh(heap, page, word);
            case PageState::near:
                return resolve_near(heap, page, word, kind);
            case PageState::limbo:
                return resolve_limbo(heap, page, word);
            case PageState::far: {
                const Resolved resolved = promote_far(heap, page, word, kind, pages, lane);
                return resolved == Resolved::poisoned ? resolve_poisoned(heap, page, kind) : resolved;
            }
            default:
                __builtin_unreachable();
        }
    }
}

}  // namespace pnode
