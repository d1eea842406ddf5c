// Walks a few actors through every order in which they may take their steps.
//
// An actor is a fiber that runs the runtime's own code; each operation on what is shared is a step
// (stepped_atomic.h, model_kernel.cpp), before which the explorer decides who goes on. A run is started
// again from the beginning for each decision that was not tried; a run that comes into a state that was seen
// before is given up. The state is what the world says of shared memory, and of each actor what it learnt: it
// is deterministic, so where it stands is a function of that.
#pragma once

#include <cstdint>
#include <string>

namespace pnode::interleaving {

// What is explored. Calls come from the explorer's thread.
class World {
  public:
    virtual ~World() = default;
    virtual unsigned actors() const = 0;
    // Puts everything as it is at the start of a run.
    virtual void begin() = 0;
    virtual void act(unsigned actor) = 0;
    // Of everything actors share.
    virtual std::uint64_t state() = 0;
    // After every actor has ended: what is wrong, or nothing.
    virtual std::string wrong_at_end() = 0;
    // See stepped_atomic.h.
    virtual std::uint64_t meaning(const void* at, std::uint64_t value) = 0;
    virtual void changed(const void* at, std::uint64_t before, std::uint64_t after, bool conditional) = 0;
    virtual bool overlooks(const void* at) = 0;
    // Within a lock's section nobody else goes on: whoever wants the lock would only wait.
    virtual bool is_indivisible() = 0;
    // Storage that is a thread's, an actor's here: the running one's is put aside, another's comes back.
    virtual void switch_thread(unsigned from, unsigned to) = 0;
};

struct Explored {
    std::string failure;  // empty: none, and everything was explored
    std::uint64_t runs = 0;
    std::uint64_t ends = 0;    // runs in which everybody came to an end
    std::uint64_t states = 0;  // different ones
};
Explored explore(World& world);

// ---- for the world, while it is explored ----

inline constexpr unsigned nobody = ~0U;
unsigned running_actor() noexcept;
bool is_done(unsigned actor) noexcept;
// One of `count` things that may happen: each of them does, in some run.
unsigned choose(unsigned count) noexcept;
// The running actor stands still until `*go`.
void wait_for(const bool* go) noexcept;
// The run is given up; this is what explore() says.
void fail(const std::string& why) noexcept;
// The running actor is where it was when it had learnt `history` (stepped_atomic.h, waiting_began): what it
// learnt since does not matter to what it does from here on.
void forget_since(std::uint64_t history) noexcept;
// Anything but an atomic changed, so whoever waits may look again.
void touched() noexcept;
// One line in the account of a failure.
void note(const std::string& what) noexcept;
bool is_noting() noexcept;

}  // namespace pnode::interleaving
