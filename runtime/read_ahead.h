// Reading ahead by two. Who reads pages in order brings near what it faults on and the run behind that
// (streams.h); where a processor is free, the evictor meanwhile brings the runs behind those. Neither waits
// for the other while there is something to bring: a reader that comes to a page on its way takes the next
// run itself, so that both work at full speed, a run each at a time.
//
//     window    the pages that may be brought ahead: [next, next + left). A reader opens it (ask) as
//               it serves its own run; whoever has time takes a run off its beginning (take, take_behind).
//
// One window a heap. With as many readers as processors there is none to spare, and a helper that answers
// late has none either: it costs more than it brings, and nobody asks it for a while, longer each time.
//
// Thread rule: any thread, any context; help() is the evictor's. The window is one word, so that a run is
// taken once; what is taken is a hint, and the page words say who brings a page.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>

#include "runtime/os/wait.h"
#include "runtime/streams.h"

namespace pnode {

class Heap;
enum class FaultKind : std::uint8_t;

class ReadAhead {
  public:
    static constexpr unsigned window_pages = 4 * Streams::run_max;

    struct Run {
        std::uint64_t first = 0;
        unsigned pages = 0;  // 0: nothing is to be brought
        FaultKind kind{};    // of the reader's fault
    };

    // So much ahead is no use where little is near: it would leave again unread.
    static constexpr std::uint64_t near_pages_least = 16 * window_pages;

    // For how many threads there are processors. Before anybody asks.
    void set_processors(unsigned processors) noexcept { processors_ = processors; }

    // A reader, any number of its own, is about to bring a run that ends before `first`. True: the evictor
    // has to be woken for what is behind it.
    bool ask(std::uint64_t first, FaultKind kind, unsigned reader) noexcept {
        if (is_muted() || are_too_many(reader)) return false;
        std::uint64_t word = window_.load(std::memory_order_relaxed);
        const Window now = unpack(word);
        const std::uint64_t next = now.next - first <= window_pages ? now.next : first;
        const auto left = static_cast<unsigned>(first + window_pages - next);
        window_.compare_exchange_strong(word, pack({next, left, kind}));
        return !helping_.load(std::memory_order_relaxed);
    }

    Run take() noexcept {
        return take_if([](const Window&) { return true; });
    }
    // For who waits for this page, which is on its way.
    Run take_behind(std::uint64_t page) noexcept {
        return take_if([page](const Window& now) { return is_behind(now, page); });
    }
    // How many pages before this one may have been brought ahead: for Streams.
    unsigned brought_before(std::uint64_t page) const noexcept {
        const Window now = unpack(window_.load(std::memory_order_relaxed));
        return page == now.next || is_behind(now, page) ? window_pages : 0;
    }
    // A reader had to wait, so long that it would have been faster alone.
    void answers_late(std::uint64_t page) noexcept {
        if (is_behind(unpack(window_.load(std::memory_order_relaxed)), page)) mute();
    }

    // The evictor's: brings what readers ask for, until they have not asked for a while, or it should look
    // after the rest of its work: the next who asks wakes it. False: nobody asked.
    bool help(Heap& heap) noexcept;

    // In a forked child: the evictor is not here.
    void forget() noexcept {
        window_.store(0, std::memory_order_relaxed);
        helping_.store(false, std::memory_order_relaxed);
    }

  private:
    static constexpr std::uint64_t mute_ns_min = 1'000'000, mute_ns_max = 1'024'000'000;
    static constexpr unsigned answers_good = 256;  // runs in time: the helper has a processor
    static constexpr std::uint64_t patience_ns_min = 100'000, patience_ns_max = 1'000'000;

    struct Window {
        std::uint64_t next;
        unsigned left;
        FaultKind kind;
    };
    static std::uint64_t pack(const Window& window) noexcept {
        return window.next << 16 | static_cast<std::uint64_t>(window.left) << 8 |
               static_cast<std::uint64_t>(window.kind);
    }
    static Window unpack(std::uint64_t word) noexcept {
        return {word >> 16, static_cast<unsigned>(word >> 8 & 0xff), static_cast<FaultKind>(word & 0xff)};
    }
    static bool is_behind(const Window& now, std::uint64_t page) noexcept {
        return now.next - page - 1 < window_pages + Streams::run_max;
    }

    template <class May>
    Run take_if(May&& may) noexcept {
        std::uint64_t word = window_.load(std::memory_order_relaxed);
        for (;;) {
            const Window now = unpack(word);
            if (now.left == 0 || !may(now)) return {};
            const unsigned pages = std::min(now.left, Streams::run_max);
            if (window_.compare_exchange_weak(word, pack({now.next + pages, now.left - pages, now.kind})))
                return {now.next, pages, now.kind};
        }
    }

    bool is_muted() const noexcept {
        const std::uint64_t until = muted_until_ns_.load(std::memory_order_relaxed);
        return until != 0 && until > os::now_ns();
    }
    // Of those who asked since the helper last rested.
    bool are_too_many(unsigned reader) noexcept {
        const std::uint64_t one = std::uint64_t{1} << reader % 64;
        const std::uint64_t before = readers_.load(std::memory_order_relaxed);
        if ((before & one) != 0) return false;
        const std::uint64_t now = readers_.fetch_or(one, std::memory_order_relaxed) | one;
        if (static_cast<unsigned>(std::popcount(now)) < processors_) return false;
        mute();
        return true;
    }
    void mute() noexcept {
        readers_.store(0, std::memory_order_relaxed);
        const std::uint64_t mute_ns = mute_ns_.load(std::memory_order_relaxed);
        mute_ns_.store(std::min(2 * mute_ns, mute_ns_max), std::memory_order_relaxed);
        muted_until_ns_.store(os::now_ns() + mute_ns, std::memory_order_relaxed);
        answers_.store(0, std::memory_order_relaxed);
        window_.store(0, std::memory_order_relaxed);
    }

    Run wait_for_run() noexcept;
    void bring(Heap& heap, const Run& run) noexcept;

    std::atomic<std::uint64_t> window_{0};
    std::atomic<bool> helping_{false};
    std::atomic<std::uint64_t> readers_{0};
    unsigned processors_ = 1;
    std::atomic<std::uint64_t> muted_until_ns_{0};
    std::atomic<std::uint64_t> mute_ns_{mute_ns_min};
    std::atomic<unsigned> answers_{0};  // since it was last late
    // How long the helper waits for more, as the evictor alone knows: what it did lately twice over. To wake
    // a processor that sleeps takes a reader's time for several runs; to keep it awake for who reads slowly
    // takes others'.
    std::uint64_t patience_ns_ = patience_ns_min;
};

}  // namespace pnode
