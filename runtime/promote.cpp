// promote: far pages come near, one that somebody faulted on, or a run of neighbours that are wanted soon:
// each is decoded and proven, and one UFFDIO_COPY puts all of them in place.
//
// Allocates nothing, takes no lock that application code can hold while it faults, throws nothing.

#include "runtime/promote.h"

#include <algorithm>
#include <cerrno>

#include "runtime/under_our_feet.h"

namespace pnode {
namespace {

constexpr std::uint64_t report_after_ns = 10'000'000'000;

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

// Should the page's first write fault? Then the kernel vouches for it until that write, and it leaves again
// without being moved, or even looked at (unwritten.h). A page that was written to in its last stay would
// fault twice for nothing; so would many without a kept blob where writes are not rare.
bool should_protect(Heap& heap, PageWord word, FaultKind kind, bool keep) noexcept {
    return kind == FaultKind::missing_to_read && !word.written() && word.store() == heap.far.own_store() &&
           (keep || heap.kept_outcomes.pays()) && heap.uffd.has(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
}

// Neighbours on their way near; all of them are owned, and their contents are in the lane, in order. The
// first is the one that was asked for.
struct Run {
    struct Page {
        PageWord word;
        bool keep = false;     // its blob
        bool present = false;  // somebody had put it in place already
    };
    std::uint64_t first = 0;
    unsigned count = 0;
    bool protect = false;  // all of them, or none
    bool writes = false;   // the access, to the first
    bool ahead = false;    // nobody asked for the first either
    Page pages[ResolveLane::pages_max] = {};
};

// Null, or why it cannot be decoded.
const char* decode(Heap& heap, std::uint64_t page, PageWord word, std::byte* contents,
                   ResolveLane& lane) noexcept {
    compress::DecodeResult decoded = compress::DecodeResult::truncated;
    const bool readable = heap.far.load(word, [&] {
        decoded = heap.far.decode(word, page, {contents, page_bytes}, lane.room, heap.offload.accelerator());
    });
    if (!readable) return "its memory is bad";
    return decoded == compress::DecodeResult::ok ? nullptr : compress::describe(decoded);
}

// A page that is written to at once would keep a blob of what it was; under lease that costs nothing.
bool should_keep(Heap& heap, PageWord word, FaultKind kind) noexcept {
    if (is_forking_here()) return true;
    if (kind == FaultKind::missing_to_write && word.store() == heap.far.own_store()) {
        heap.kept_outcomes.changed();
        return false;
    }
    return heap.far.should_keep(warmed(heap, word, true), heap.statistics, heap.near);
}

// So many may come near with the first. What is ahead of its time must not push out what is in use, and who
// forks frees no blobs.
unsigned room_for(Heap& heap, unsigned pages) noexcept {
    if (pages <= 1 || is_forking_here()) return 1;
    const std::uint64_t near_pages = heap.near.pages();
    const std::uint64_t limit_pages = heap.near.limit_pages();
    const std::uint64_t room = limit_pages > near_pages ? limit_pages - near_pages : 1;
    return static_cast<unsigned>(std::min<std::uint64_t>({pages, room, ResolveLane::pages_max}));
}

// The next page, if it is far, free, and to be treated as the first. One that cannot be decoded is for
// whoever needs it to find.
bool add_next(Heap& heap, Run& run, FaultKind kind, ResolveLane& lane) noexcept {
    const std::uint64_t page = run.first + run.count;
    if (page >= heap.page_count) return false;
    const PageWord word = heap.word(page).load();
    if (word.state() != PageState::far || is_under_our_feet(heap, page)) return false;
    const bool keep = should_keep(heap, word, kind);
    const bool protect = should_protect(heap, word, kind, keep);
    if (run.count == 0) run.protect = protect;
    if (protect != run.protect) return false;
    if (!heap.word(page).make_busy(word)) return false;
    if (decode(heap, page, word, lane.pages + run.count * page_bytes, lane) != nullptr) {
        heap.word(page).publish(word);
        return false;
    }
    run.pages[run.count++] = {.word = word, .keep = keep};
    return true;
}

// Waits a little for memory; says so every ten seconds.
class MemoryWait {
  public:
    void wait(Heap& heap, std::uint64_t page, int error) noexcept {
        const std::uint64_t now = os::now_ns();
        if (since_ == 0) since_ = now;
        if (now - since_ > report_after_ns) {
            report("waiting for memory to bring page %p near: errno %d", heap.address_of(page), error);
            since_ = now;
        }
        heap.near.wake_evictor();
        os::sleep_ns(1'000'000);
    }

  private:
    std::uint64_t since_ = 0;
};

// Copies all of the run in that can be. How many of it are in place, from the first on; 0: the first is
// gone. Only one that was asked for is worth waiting for.
unsigned copy_run(Heap& heap, Run& run, const ResolveLane& lane) noexcept {
    const auto copy = run.protect ? os::uffd_copy_protected : os::uffd_copy;
    MemoryWait memory;
    unsigned end = run.count;
    for (unsigned at = 0; at < end;) {
        std::size_t done = 0;
        const int error = copy(heap.uffd.fd, heap.address_of(run.first + at), lane.pages + at * page_bytes,
                               (end - at) * page_bytes, &done);
        at += static_cast<unsigned>(done / page_bytes);
        switch (error) {
            case 0:
                break;
            case EEXIST:
                run.pages[at++].present = true;
                break;
            case EAGAIN:
                break;    // the address space is being changed: it will be over soon
            case ENOENT:  // not all of it is registered, or part of one mapping; or it is gone
            case ESRCH:
                if (at != 0 || end == 1) return at;
                end = 1;
                break;
            default:
                if (at != 0 || run.ahead) return at;
                memory.wait(heap, run.first, error);
        }
    }
    return end;
}

// The page is in place.
void settle(Heap& heap, std::uint64_t page, const Run& run, const Run::Page& promoted, bool ahead) noexcept {
    const PageWord word = promoted.word;
    if (promoted.present) wake(heap, page);
    // What came ahead has yet to show that it is wanted.
    PageWord near_word = ahead ? word.with_skip(0) : warmed(heap, word, promoted.keep);
    if (run.writes && !ahead) near_word = near_word.with_written(true);
    near_word = near_word.with(PageState::near).with_write_protected(run.protect && !promoted.present);
    if (promoted.keep) {
        heap.statistics.kept_blob_bytes.add(heap.far.bytes(word).size());
    } else {
        near_word = near_word.without_blob();
    }
    heap.near_map.mark(page);
    heap.word(page).publish(near_word);
    if (word.store() != heap.far.own_store() && near_word.skip() == 0) heap.leased_pages.add(page);
    if (!promoted.keep) heap.far.drop(word);
}

// The first `placed` are in place; the others stay far.
void settle_run(Heap& heap, const Run& run, unsigned placed) noexcept {
    heap.near.discharge(run.count - placed);
    unsigned freed = 0;
    for (unsigned index = 0; index < placed; ++index) {
        settle(heap, run.first + index, run, run.pages[index], run.ahead || index != 0);
        freed += run.pages[index].keep ? 0 : 1;
    }
    for (unsigned index = placed; index < run.count; ++index)
        heap.word(run.first + index).publish(run.pages[index].word);
    if (freed != 0 && heap.near.is_resting()) heap.far_room_made(freed);
    heap.statistics.far_pages.subtract(placed);
    heap.statistics.promotions.add(placed);
    const unsigned asked = run.ahead ? 0 : 1;
    if (placed > asked) heap.statistics.promotions_ahead.add(placed - asked);
}

// Adds to the run what can be had, up to `pages` in all. How many came near.
unsigned bring_run(Heap& heap, Run& run, FaultKind kind, unsigned pages, ResolveLane& lane) noexcept {
    const unsigned count_max = room_for(heap, pages);
    while (run.count < count_max && add_next(heap, run, kind, lane)) {
    }
    if (run.count == 0) return 0;
    charge(heap, run.count);
    const unsigned placed = copy_run(heap, run, lane);
    settle_run(heap, run, placed);
    return placed;
}

}  // namespace

Copied copy_in(Heap& heap, std::uint64_t page, const std::byte* contents) noexcept {
    MemoryWait memory;
    for (;;) {
        std::size_t done = 0;
        switch (const int error =
                    os::uffd_copy(heap.uffd.fd, heap.address_of(page), contents, page_bytes, &done)) {
            case 0:
                return Copied::done;
            case EEXIST:
                return Copied::present;
            case ENOENT:  // the range was unmapped or is not registered any more
            case ESRCH:
                return Copied::gone;
            case EAGAIN:
                break;  // the address space is being changed: it will be over soon
            default:
                memory.wait(heap, page, error);
        }
    }
}

void wake(Heap& heap, std::uint64_t page) noexcept {
    if (heap.engine != Engine::in_line || heap.engine_change.is_under_way())
        os::uffd_wake(heap.uffd.fd, heap.address_of(page), page_bytes);
}

void charge(Heap& heap, std::uint64_t pages) noexcept {
    const auto room = heap.makes_room_itself() ? NearLedger::Room::by_caller : NearLedger::Room::by_evictor;
    heap.near.charge(pages, heap.statistics, room);
}

PageWord warmed(Heap& heap, PageWord word, bool kept) noexcept {
    const unsigned age = (heap.epoch() - word.stamp()) % stamps;
    const unsigned level = level_rule.next(word.level(), age);
    return word.with_level(level).with_skip(level_rule.sweeps(level, kept));
}

Resolved promote_far(Heap& heap, std::uint64_t page, PageWord word, FaultKind kind, unsigned pages,
                     ResolveLane& lane) noexcept {
    if (const char* const why = decode(heap, page, word, lane.pages, lane))
        return poison(heap, page, word, why);
    const bool keep = should_keep(heap, word, kind);
    Run run = {.first = page,
               .count = 1,
               .protect = should_protect(heap, word, kind, keep),
               .writes = kind == FaultKind::missing_to_write};
    run.pages[0] = {.word = word, .keep = keep};
    return bring_run(heap, run, kind, pages, lane) == 0 ? Resolved::gone : Resolved::served;
}

void bring_ahead(Heap& heap, const ReadAhead::Run& ahead, ResolveLane& lane) noexcept {
    if (is_forking_here()) return;
    const std::uint64_t end = ahead.first + ahead.pages;
    // One page that is asked for may pass the limit; none of these.
    for (std::uint64_t page = ahead.first; page < end && heap.near.pages() < heap.near.limit_pages();) {
        Run run = {.first = page, .ahead = true};
        bring_run(heap, run, ahead.kind, static_cast<unsigned>(end - page), lane);
        page += std::max(run.count, 1U);
    }
}

int promote(Heap& heap, std::uint64_t first, std::uint64_t pages) noexcept {
    int error = 0;
    LentResolveLane lane(heap.resolve_lanes);
    const std::uint64_t end = first + pages;
    for (std::uint64_t page = first; page < end; ++page) {
        if (heap.chunks.state(heap.chunk_of(page)) == ChunkState::untracked) {
            page = (heap.chunk_of(page) + 1) * heap.chunk_pages - 1;  // nothing in it was ever taken out
            continue;
        }
        const PageState state = heap.word(page).load().state();
        if (state == PageState::near) make_writable(heap, page);
        if (state == PageState::fresh || state == PageState::near) continue;
        const auto run = static_cast<unsigned>(std::min<std::uint64_t>(end - page, ResolveLane::pages_max));
        if (state == PageState::poisoned ||
            resolve(heap, page, FaultKind::asked, *lane, run) == Resolved::poisoned)
            error = EIO;
        make_room(heap, Evicting::other);
    }
    return error;
}

}  // namespace pnode
