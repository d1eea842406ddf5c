// What std::atomic and os::Backoff are to the runtime when it is built for the interleaving test: every
// operation is a step, before which the scheduler may let another actor go on (scheduler.h).
//
// Actors are fibers of one thread, so an operation is indivisible by itself, and the order in which steps are
// taken is the order everybody sees: what is explored is sequential consistency. That the orders the code
// asks for (acquire, release) suffice is ThreadSanitizer's to say.
#pragma once

#include <atomic>
#include <cstdint>

namespace pnode::interleaving {

// Before an operation on what actors share. Outside of an exploration nothing happens.
void step() noexcept;
// The running actor learnt this: what it does from here on is a function of all it learnt.
void saw(std::uint64_t value) noexcept;
// What is at `at` changed from `before` to `after`; whoever waits may look again.
void changed(const void* at, std::uint64_t before, std::uint64_t after, bool conditional) noexcept;
// A negative control: does a compare-and-swap here forget to compare?
bool is_overlooked(const void* at) noexcept;
// What an actor is told of a value: two that mean the same look the same.
std::uint64_t meaning(const void* at, std::uint64_t value) noexcept;

// A wait begins: what the actor learns in its loop is forgotten each time around.
std::uint64_t waiting_began() noexcept;
// Until anything changed, or, once, until everybody stands still: then whoever gives up after a while does.
void wait_until_changed(std::uint64_t history, bool* gave_up) noexcept;

inline void fence() noexcept {}

template <class T>
class SteppedAtomic {
  public:
    constexpr SteppedAtomic() = default;
    constexpr explicit(false) SteppedAtomic(T value) : value_(value) {}

    T load(std::memory_order = std::memory_order_seq_cst) const noexcept {
        step();
        saw(meaning(this, as_number(value_)));
        return value_;
    }
    void store(T value, std::memory_order = std::memory_order_seq_cst) noexcept {
        step();
        change_to(value, false);
    }
    T exchange(T value, std::memory_order = std::memory_order_seq_cst) noexcept {
        step();
        saw(meaning(this, as_number(value_)));
        const T before = value_;
        change_to(value, false);
        return before;
    }
    bool compare_exchange_strong(T& expected, T desired, std::memory_order = std::memory_order_seq_cst,
                                 std::memory_order = std::memory_order_seq_cst) noexcept {
        step();
        const bool same = value_ == expected || is_overlooked(this);
        saw(same ? 1 : meaning(this, as_number(value_)));
        if (same) change_to(desired, true);
        expected = same ? expected : value_;
        return same;
    }
    T fetch_or(T bits, std::memory_order = std::memory_order_seq_cst) noexcept {
        step();
        const T before = value_;
        saw(meaning(this, as_number(before)));
        change_to(before | bits, false);
        return before;
    }
    T fetch_and(T bits, std::memory_order = std::memory_order_seq_cst) noexcept {
        step();
        const T before = value_;
        saw(meaning(this, as_number(before)));
        change_to(before & bits, false);
        return before;
    }

  private:
    static std::uint64_t as_number(T value) noexcept { return static_cast<std::uint64_t>(value); }
    void change_to(T value, bool conditional) noexcept {
        const T before = value_;
        value_ = value;
        if (before != value) changed(this, as_number(before), as_number(value), conditional);
    }
    T value_{};
};

// Waiting is not spinning: the actor stands still until something changed. Asked how long it has waited, it
// says "long enough to give up" only when everybody stands still.
class SteppedBackoff {
  public:
    void wait() noexcept { wait_until_changed(history_, &gave_up_); }
    std::uint64_t rounds() const noexcept { return gave_up_ ? 1'000'000 : 0; }

  private:
    std::uint64_t history_ = waiting_began();
    bool gave_up_ = false;
};

}  // namespace pnode::interleaving
