#include "tests/interleaving/scheduler.h"

#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <unordered_set>
#include <utility>
#include <vector>

#include "tests/interleaving/stepped_atomic.h"

namespace pnode::interleaving {
namespace {

constexpr unsigned steps_max = 4000;  // of one run: more is going round in circles
constexpr std::size_t stack_bytes = 128 * 1024;

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) noexcept {
    hash ^= value + 0x9e3779b97f4a7c15 + (hash << 12) + (hash >> 4);
    hash *= 0xff51afd7ed558ccd;
    return hash ^ (hash >> 33);
}

// A fiber's stack; an access below it ends the test, where it would write over another fiber's.
class Stack {
  public:
    Stack() noexcept
        : guarded_(mmap(nullptr, guard_bytes + stack_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
        if (guarded_ == MAP_FAILED || mprotect(guarded_, guard_bytes, PROT_NONE) != 0) std::abort();
    }
    Stack(Stack&& other) noexcept : guarded_(std::exchange(other.guarded_, nullptr)) {}
    Stack& operator=(Stack&&) = delete;
    ~Stack() {
        if (guarded_ != nullptr) munmap(guarded_, guard_bytes + stack_bytes);
    }
    void* bottom() const noexcept { return static_cast<char*>(guarded_) + guard_bytes; }

  private:
    static constexpr std::size_t guard_bytes = 64 * 1024;
    void* guarded_;
};

enum class Status : std::uint8_t { ready, waits_for_change, waits_for_flag, done };

// Where a fiber stands. It is begun by makecontext(3), and from then on entered and left by _longjmp(3),
// which makes no system call.
struct Actor {
    ucontext_t start;
    jmp_buf here;
    bool begun;
    Stack stack;
    Status status;
    std::uint64_t history;
    std::uint64_t changes_seen;
    bool gave_up;
    const bool* flag;
};

struct Decision {
    unsigned taken;
    unsigned count;
};

class Explorer {
  public:
    explicit Explorer(World& world) : world_(world), actors_(world.actors()) {}

    Explored all() {
        do {
            run();
            ++explored_.runs;
            if (!failure_.empty()) {
                account();
                break;
            }
        } while (next_path());
        explored_.states = seen_.size();
        return explored_;
    }

    // ---- from within an actor ----

    void step() noexcept {
        if (running_ == nobody) return;
        saw(0);  // where it stands
        if (!world_.is_indivisible()) back_to_explorer();
    }
    void saw(std::uint64_t value) noexcept {
        if (running_ != nobody) me().history = mix(me().history, value);
    }
    void touched() noexcept { ++changes_; }
    std::uint64_t history() noexcept { return running_ != nobody ? me().history : 0; }
    void wait_until_changed(std::uint64_t history, bool* gave_up) noexcept {
        if (running_ == nobody) {
            std::fputs("a wait outside of an exploration\n", stderr);
            std::abort();
        }
        me().history = history;
        me().status = Status::waits_for_change;
        me().changes_seen = changes_;
        me().gave_up = *gave_up;
        back_to_explorer();
        *gave_up = me().gave_up;
        saw(*gave_up ? 1 : 0);
    }
    void forget_since(std::uint64_t history) noexcept {
        if (running_ != nobody) me().history = history;
    }
    void wait_for(const bool* go) noexcept {
        me().status = Status::waits_for_flag;
        me().flag = go;
        back_to_explorer();
    }
    unsigned choose(unsigned count) noexcept {
        if (running_ == nobody) return 0;
        const unsigned taken = decide(count);
        if (!failure_.empty()) back_to_explorer();
        saw(taken);
        return taken;
    }
    void fail(const std::string& why) noexcept {
        if (failure_.empty()) failure_ = why;
        if (running_ != nobody) back_to_explorer();
    }
    void note(const std::string& what) noexcept {
        if (noting_)
            account_ += (running_ == nobody ? std::string("   ") : "  " + std::to_string(running_)) + ": " +
                        what + "\n";
    }
    bool noting() const noexcept { return noting_; }
    unsigned running() const noexcept { return running_; }
    bool is_done(unsigned actor) const noexcept { return actors_[actor].status == Status::done; }
    World& world() noexcept { return world_; }
    void account_on_abort() noexcept {
        std::fputs("aborted in this run:", stderr);
        for (const Decision& decision : path_) std::fprintf(stderr, " %u", decision.taken);
        std::fputs("\n", stderr);
    }

  private:
    Actor& me() noexcept { return actors_[running_]; }

    static void begin_actor();

    void back_to_explorer() noexcept {
        if (_setjmp(me().here) == 0) _longjmp(explorer_, 1);
    }

    void start_actors() {
        for (Actor& actor : actors_) {
            actor.status = Status::ready;
            actor.history = 0;
            actor.begun = false;
        }
    }

    bool can_go_on(const Actor& actor) const noexcept {
        switch (actor.status) {
            case Status::ready:
                return true;
            case Status::waits_for_change:
                return actor.changes_seen != changes_;
            case Status::waits_for_flag:
                return *actor.flag;
            case Status::done:
                break;
        }
        return false;
    }

    std::uint64_t state() noexcept {
        std::uint64_t hash = world_.state();
        for (const Actor& actor : actors_) {
            hash = mix(hash, actor.history);
            hash = mix(hash, static_cast<std::uint64_t>(actor.status) * 4 + (can_go_on(actor) ? 2 : 0) +
                                 (actor.status == Status::waits_for_change && actor.gave_up ? 1 : 0));
        }
        return hash;
    }

    unsigned decide(unsigned count) noexcept {
        if (depth_ == path_.size()) path_.push_back({0, count});
        if (path_[depth_].count != count) {
            failure_ = "a run could not be repeated: not all that is shared takes steps";
            path_[depth_] = {0, count};
        }
        return path_[depth_++].taken;
    }

    // Everybody stands still: who gives up after a while does. False: nobody does.
    bool let_give_up() noexcept {
        bool any = false;
        for (Actor& actor : actors_) {
            if (actor.status != Status::waits_for_change || actor.gave_up) continue;
            actor.gave_up = any = true;
            actor.status = Status::ready;
        }
        return any;
    }

    bool all_done() const noexcept {
        for (const Actor& actor : actors_) {
            if (actor.status != Status::done) return false;
        }
        return true;
    }

    void run() {
        depth_ = 0;
        failure_.clear();
        last_ = nobody;
        world_.begin();
        start_actors();
        for (unsigned steps = 0; failure_.empty(); ++steps) {
            unsigned able[16];
            unsigned count = 0;
            for (unsigned index = 0; index < actors_.size(); ++index) {
                if (can_go_on(actors_[index])) able[count++] = index;
            }
            if (count == 0 && all_done()) {
                ++explored_.ends;
                const std::string wrong = world_.wrong_at_end();
                if (failure_.empty()) failure_ = wrong;
                return;
            }
            if (count == 0 && let_give_up()) continue;
            if (count == 0) failure_ = "somebody waits for ever";
            if (steps == steps_max) failure_ = "a run does not end";
            if (!failure_.empty()) return;
            if (depth_ == path_.size() && !seen_.insert(state()).second) return;
            const unsigned next = able[decide(count)];
            if (!failure_.empty()) return;
            resume(next);
        }
    }

    void resume(unsigned actor) {
        if (last_ != actor) world_.switch_thread(last_, actor);
        last_ = actor;
        running_ = actor;
        actors_[actor].status = Status::ready;
        if (_setjmp(explorer_) == 0) enter(actors_[actor]);
        running_ = nobody;
    }

    [[noreturn, gnu::noinline]] static void enter(Actor& actor) {
        if (actor.begun) _longjmp(actor.here, 1);
        actor.begun = true;
        getcontext(&actor.start);
        actor.start.uc_stack.ss_sp = actor.stack.bottom();
        actor.start.uc_stack.ss_size = stack_bytes;
        actor.start.uc_link = nullptr;
        makecontext(&actor.start, &Explorer::begin_actor, 0);
        setcontext(&actor.start);
        std::abort();
    }

    // The deepest decision that has something left to try.
    bool next_path() {
        while (!path_.empty() && path_.back().taken + 1 == path_.back().count) path_.pop_back();
        if (path_.empty()) return false;
        ++path_.back().taken;
        return true;
    }

    // The same run once more, told step by step.
    void account() {
        const std::string why = failure_;
        noting_ = true;
        path_.resize(depth_);
        run();
        noting_ = false;
        constexpr std::size_t enough = 6000;
        if (account_.size() > enough) account_ = "...\n" + account_.substr(account_.size() - enough);
        explored_.failure = why + ", in this run (actor: step):\n" + account_;
        if (failure_ != why) explored_.failure += "told again it was: " + failure_ + "\n";
    }

    World& world_;
    std::vector<Actor> actors_;
    jmp_buf explorer_;
    std::vector<Decision> path_;
    std::size_t depth_ = 0;
    std::unordered_set<std::uint64_t> seen_;
    std::uint64_t changes_ = 0;
    unsigned running_ = nobody;
    unsigned last_ = nobody;
    std::string failure_;
    std::string account_;
    bool noting_ = false;
    Explored explored_;
};

Explorer* explorer = nullptr;

void Explorer::begin_actor() {
    Explorer& self = *explorer;
    self.world_.act(self.running_);
    self.me().status = Status::done;
    self.me().history = 0;
    self.touched();
    _longjmp(self.explorer_, 1);
}

void on_abort(int) {
    if (explorer != nullptr) explorer->account_on_abort();
}

}  // namespace

Explored explore(World& world) {
    std::signal(SIGABRT, on_abort);
    Explorer all(world);
    explorer = &all;
    Explored explored = all.all();
    explorer = nullptr;
    return explored;
}

void step() noexcept {
    if (explorer != nullptr) explorer->step();
}
void saw(std::uint64_t value) noexcept {
    if (explorer != nullptr) explorer->saw(value);
}
void changed(const void* at, std::uint64_t before, std::uint64_t after, bool conditional) noexcept {
    if (explorer == nullptr) return;
    explorer->touched();
    explorer->world().changed(at, before, after, conditional);
}
std::uint64_t meaning(const void* at, std::uint64_t value) noexcept {
    return explorer != nullptr ? explorer->world().meaning(at, value) : value;
}
bool is_overlooked(const void* at) noexcept {
    return explorer != nullptr && explorer->running() != nobody && explorer->world().overlooks(at);
}
std::uint64_t waiting_began() noexcept {
    return explorer != nullptr ? explorer->history() : 0;
}
void wait_until_changed(std::uint64_t history, bool* gave_up) noexcept {
    if (explorer == nullptr) std::abort();
    explorer->wait_until_changed(history, gave_up);
}

unsigned running_actor() noexcept {
    return explorer != nullptr ? explorer->running() : nobody;
}
bool is_done(unsigned actor) noexcept {
    return explorer->is_done(actor);
}
unsigned choose(unsigned count) noexcept {
    return explorer != nullptr ? explorer->choose(count) : 0;
}
void wait_for(const bool* go) noexcept {
    explorer->wait_for(go);
}
void fail(const std::string& why) noexcept {
    if (explorer != nullptr) explorer->fail(why);
}
void forget_since(std::uint64_t history) noexcept {
    if (explorer != nullptr) explorer->forget_since(history);
}
void touched() noexcept {
    if (explorer != nullptr) explorer->touched();
}
void note(const std::string& what) noexcept {
    if (explorer != nullptr) explorer->note(what);
}
bool is_noting() noexcept {
    return explorer != nullptr && explorer->noting();
}

}  // namespace pnode::interleaving
