#include "compress/iaa/arena.h"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <new>

#include "compress/iaa/queue.h"

namespace pnode::compress::iaa {

int Arena::open() noexcept {
    void* const memory = ::mmap(nullptr, arena_bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) return errno;
    memory_ = static_cast<std::byte*>(memory);
    ::madvise(memory_, arena_bytes, MADV_NOHUGEPAGE);
    if (::madvise(memory_, arena_bytes, MADV_DONTFORK) != 0) {
        const int error = errno;
        close();
        return error;
    }
    // Above RLIMIT_MEMLOCK it stays unlocked: then a page may be missing now and then, which costs a touch.
    locked_ = ::mlock(memory_, arena_bytes) == 0;
    new (memory_ + aecs_offset) CompressAecs(fixed_codes());
    for (std::atomic<State>& state : states_) state.store(State::free, std::memory_order_relaxed);
    return 0;
}

void Arena::close() noexcept {
    if (memory_ != nullptr) ::munmap(memory_, arena_bytes);
    memory_ = nullptr;
}

bool Arena::try_take(unsigned slot, std::uint64_t* late) noexcept {
    State seen = states_[slot].load(std::memory_order_relaxed);
    if (seen == State::taken || (seen == State::abandoned && record(slot).load_status() == 0)) return false;
    if (!states_[slot].compare_exchange_strong(seen, State::taken, std::memory_order_acquire)) return false;
    if (seen == State::free) return true;
    // Ours now, so look again: it may have been taken and abandoned once more since.
    if (record(slot).load_status() == 0) {
        states_[slot].store(State::abandoned, std::memory_order_release);
        return false;
    }
    owners_[slot]->give_credit();
    ++*late;
    return true;
}

unsigned Arena::take(std::uint64_t* late) noexcept {
    const unsigned first = next_.fetch_add(1, std::memory_order_relaxed);
    for (unsigned i = 0; i < slots; ++i) {
        const unsigned slot = (first + i) % slots;
        if (try_take(slot, late)) return slot;
    }
    return none;
}

void Arena::abandon(unsigned slot, WorkQueue* queue) noexcept {
    owners_[slot] = queue;
    states_[slot].store(State::abandoned, std::memory_order_release);
}

bool Arena::touch(std::uint64_t address) noexcept {
    const std::uint64_t offset = address - reinterpret_cast<std::uint64_t>(memory_);
    if (offset >= arena_bytes) return false;
    // A write that changes nothing, whatever the fault was: atomic, because the page may hold others'
    // records.
    std::atomic_ref(reinterpret_cast<std::uint8_t&>(memory_[offset])).fetch_or(0, std::memory_order_relaxed);
    return true;
}

}  // namespace pnode::compress::iaa
