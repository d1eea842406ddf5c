// The near limit's ledger: how many pages are near, what is allowed, and who must act.
//
//     low < high < hard <= limit        (or, where little may leave, all of them the limit: set_tight)
//
// Past `high` the evictor wakes and works down to `low`; past `hard` whoever brought a page near takes a
// batch out itself, after it answered. The charge is an upper bound: pages in limbo count, and so does every
// allocated page of a chunk whose first touches the kernel serves unseen (chunk_table.h). The limit is passed
// by at most the pages that threads are bringing near at that moment, 2 MiB at the very most.
//
// Thread rule: any thread, any context.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "runtime/os/wait.h"
#include "runtime/statistics.h"

namespace pnode {

class NearLedger {
  public:
    static constexpr std::uint64_t unlimited = std::uint64_t{1} << 50;
    static constexpr std::uint64_t limit_pages_min = 256;  // 1 MiB

    void set_limit(std::uint64_t pages) noexcept { set(near_pages_max_, pages); }
    // What is in force now.
    std::uint64_t limit_pages() const noexcept { return limit_pages_.load(std::memory_order_relaxed); }
    bool is_limited() const noexcept { return limit_pages() != unlimited; }

    // A limit of near and far together: near is what far leaves of it, a sixteenth at least. 0: none.
    void set_total(std::uint64_t pages) noexcept { set(total_pages_, pages); }
    std::uint64_t total_pages() const noexcept { return total_pages_.load(std::memory_order_relaxed); }
    bool has_total() const noexcept { return total_pages() != 0; }
    // With a total: what far takes now. For whoever changed that.
    void set_far(std::uint64_t pages) noexcept { set(far_pages_, pages); }
    // In a forked child, whose far pages are its parent's: near stays what it is.
    void forget_total() noexcept {
        if (!has_total()) return;
        set_limit(limit_pages());
        set_total(0);
    }

    // The stress switch evicts down to almost nothing, whatever the limit says.
    void set_stress() noexcept { stress_ = true; }
    std::uint64_t hard_pages() const noexcept { return below(hard_margin()); }
    std::uint64_t high_pages() const noexcept { return below(margin(48, 64)); }
    std::uint64_t low_pages() const noexcept { return below(margin(112, 32)); }

    // Little of what is near may leave (hand.h), and is in use: then the marks are one, the limit.
    void set_tight(bool is_tight) noexcept { is_tight_.store(is_tight, std::memory_order_relaxed); }
    bool is_tight() const noexcept { return is_tight_.load(std::memory_order_relaxed); }

    std::uint64_t pages() const noexcept { return pages_.load(std::memory_order_relaxed); }
    bool past_high() const noexcept { return pages() > high_pages(); }
    bool past_limit() const noexcept { return pages() > enforced(); }
    bool past_hard() const noexcept { return pages() > hard_pages(); }
    bool fits(std::uint64_t pages_more) const noexcept { return pages() + pages_more <= high_pages(); }
    // Is there more than one part in so many of the limit left before anything has to leave?
    bool has_left(std::uint64_t parts) const noexcept { return pages() + enforced() / parts < low_pages(); }

    // Who makes room when there is little left?
    enum class Room : std::uint8_t {
        by_evictor,  // past `high`
        by_caller    // past `hard`, right afterwards; the evictor helps well past the limit
    };
    void charge(std::uint64_t pages, Statistics& statistics, Room room = Room::by_evictor) noexcept {
        const std::uint64_t now = pages_.fetch_add(pages, std::memory_order_relaxed) + pages;
        if (now > statistics.near_pages_peak.value()) statistics.near_pages_peak.raise_to(now);
        const bool by_caller = room == Room::by_caller || is_tight();
        if (now > (by_caller ? well_past_limit_pages() : high_pages()) && !is_resting()) wake_evictor();
    }
    void discharge(std::uint64_t pages) noexcept { pages_.fetch_sub(pages, std::memory_order_relaxed); }

    // After eviction found nothing it could take out, or the node full, nobody tries again for a while:
    // longer each time it finds nothing, up to a second.
    bool is_resting() const noexcept {
        const std::uint64_t until = resting_until_ns_.load(std::memory_order_relaxed);
        return until != 0 && until > os::now_ns();
    }
    void rest() noexcept {
        const std::uint64_t rest_ns = rest_ns_.load(std::memory_order_relaxed);
        rest_ns_.store(std::min(2 * rest_ns, rest_ns_max), std::memory_order_relaxed);
        resting_until_ns_.store(os::now_ns() + rest_ns, std::memory_order_relaxed);
    }
    // Something changed: what was pinned, full or too tight may not be any more.
    void try_again() noexcept {
        rest_ns_.store(rest_ns_min, std::memory_order_relaxed);
        end_rest();
    }
    void end_rest() noexcept { resting_until_ns_.store(0, std::memory_order_relaxed); }
    // Something left. Where that is one page in many, the next rest is to be hardly shorter.
    void rested_well() noexcept {
        const std::uint64_t rest_ns = rest_ns_.load(std::memory_order_relaxed);
        if (rest_ns != rest_ns_min)
            rest_ns_.store(std::max(rest_ns / 2, rest_ns_min), std::memory_order_relaxed);
    }
    std::uint64_t rest_left_ns() const noexcept {
        const std::uint64_t until = resting_until_ns_.load(std::memory_order_relaxed);
        const std::uint64_t now = os::now_ns();
        return until > now ? until - now : 0;
    }

    // Wakes once: the evictor clears the word before it looks at the ledger (wait_for_work), so no wake is
    // lost.
    void wake_evictor() noexcept {
        if (work_.load(std::memory_order_relaxed) == 0 && work_.exchange(1, std::memory_order_release) == 0)
            os::futex_wake_all(work_);
    }
    // The evictor's sleep: until woken or `wait_ns` passed (0: for ever).
    void wait_for_work(std::uint64_t wait_ns) noexcept {
        looks_soon_.store(wait_ns != 0 && wait_ns <= soon_ns_max);
        if (work_.exchange(0, std::memory_order_acquire) == 0) os::futex_wait(work_, 0, wait_ns);
        work_.store(0, std::memory_order_relaxed);
        looks_soon_.store(false);
    }
    // For what the evictor is to look at now and then: is it going to, without being woken? Who changed that
    // before it asked, and the evictor, which looks at it after its sleep: one of them sees the other.
    static constexpr std::uint64_t soon_ns_max = 100'000'000;
    bool evictor_looks_soon() const noexcept { return looks_soon_.load(); }
    // In a forked child: the evictor is not here.
    void forget_evictor() noexcept { looks_soon_.store(false); }

  private:
    // Any of the three that the limit follows from. Who changes one while another thread stores a limit that
    // followed from the old one: that thread stores first and looks then, and so sees it.
    void set(std::atomic<std::uint64_t>& one, std::uint64_t pages) noexcept {
        one.store(pages);
        std::uint64_t limit = 0;
        do {
            limit = limit_that_follows();
            limit_pages_.store(limit);
        } while (limit_that_follows() != limit);
    }
    std::uint64_t limit_that_follows() const noexcept {
        const std::uint64_t near_pages_max = near_pages_max_.load();
        const std::uint64_t total = total_pages_.load();
        if (total == 0) return near_pages_max;
        const std::uint64_t left = total - std::min(total, far_pages_.load());
        return std::min(near_pages_max, std::max({left, total / 16, limit_pages_min}));
    }

    std::uint64_t enforced() const noexcept {
        return stress_ ? std::min(limit_pages(), limit_pages_min) : limit_pages();
    }

    std::uint64_t margin(std::uint64_t pages_min, std::uint64_t part) const noexcept {
        return std::max(pages_min, enforced() / part);
    }
    std::uint64_t hard_margin() const noexcept { return margin(24, 256); }
    std::uint64_t below(std::uint64_t pages) const noexcept { return enforced() - (is_tight() ? 0 : pages); }
    // More than who makes room at each fault leaves for a moment.
    std::uint64_t well_past_limit_pages() const noexcept { return enforced() + hard_margin(); }

    static constexpr std::uint64_t rest_ns_min = 10'000'000;
    static constexpr std::uint64_t rest_ns_max = 1'280'000'000;

    std::atomic<std::uint64_t> resting_until_ns_{0};
    std::atomic<std::uint64_t> rest_ns_{rest_ns_min};
    std::atomic<std::uint64_t> pages_{0};
    std::atomic<std::uint64_t> limit_pages_{unlimited};  // follows from these:
    std::atomic<std::uint64_t> near_pages_max_{unlimited};
    std::atomic<std::uint64_t> total_pages_{0};  // of near and far; 0: none
    std::atomic<std::uint64_t> far_pages_{0};    // physical, as last told
    std::atomic<std::uint32_t> work_{0};
    std::atomic<bool> looks_soon_{false};
    std::atomic<bool> is_tight_{false};
    bool stress_ = false;
};

}  // namespace pnode
