#include "cxl/bad_news.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace pnode::cxl {

// Static, and never unmapped: a handler may still look at it when its region is gone. What it then writes is
// taken for news of the next region that has the mailbox, which lies elsewhere.
struct Mailbox {
    static constexpr std::uintptr_t nobodys = 0;
    static constexpr std::uintptr_t being_set_up = 1;

    std::atomic<std::uintptr_t> begin{nobodys};  // set last, with release: pairs with the handler's acquire
    std::atomic<std::uintptr_t> end{0};
    std::atomic<unsigned> letters_count{0};                // added to after a letter is there
    std::array<std::atomic<std::uintptr_t>, 8> letters{};  // address | log2 of the size; 0 is free

    bool holds(std::uintptr_t address) const noexcept {
        const std::uintptr_t first = begin.load(std::memory_order_acquire);
        return first > being_set_up && address >= first && address < end.load(std::memory_order_relaxed);
    }
    // With all of them full it is found when it is read.
    void put(const BadRange& bad) noexcept {
        const std::uintptr_t letter = bad.address | static_cast<unsigned>(std::countr_zero(bad.bytes));
        for (std::atomic<std::uintptr_t>& slot : letters) {
            std::uintptr_t free = 0;
            if (!slot.compare_exchange_strong(free, letter, std::memory_order_relaxed)) continue;
            letters_count.fetch_add(1, std::memory_order_release);
            return;
        }
    }
    bool take(BadRange* bad) noexcept {
        if (letters_count.load(std::memory_order_acquire) == 0) return false;
        for (std::atomic<std::uintptr_t>& slot : letters) {
            const std::uintptr_t letter = slot.exchange(0, std::memory_order_relaxed);
            if (letter == 0) continue;
            letters_count.fetch_sub(1, std::memory_order_relaxed);
            constexpr std::uintptr_t log2_mask = 63;
            *bad = {letter & ~log2_mask, std::size_t{1} << (letter & log2_mask)};
            return true;
        }
        return false;
    }
};

namespace {

constinit std::array<Mailbox, 64> mailboxes;

}  // namespace

BadNews::~BadNews() {
    if (mailbox_ == nullptr) return;
    BadRange left;
    while (mailbox_->take(&left)) continue;
    mailbox_->begin.store(Mailbox::nobodys, std::memory_order_release);
}

void BadNews::watch(const void* begin, std::size_t bytes) noexcept {
    for (Mailbox& mailbox : mailboxes) {
        std::uintptr_t nobodys = Mailbox::nobodys;
        if (!mailbox.begin.compare_exchange_strong(nobodys, Mailbox::being_set_up, std::memory_order_acquire))
            continue;
        const auto first = reinterpret_cast<std::uintptr_t>(begin);
        mailbox.end.store(first + bytes, std::memory_order_relaxed);
        mailbox.begin.store(first, std::memory_order_release);
        mailbox_ = &mailbox;
        return;
    }
}

bool BadNews::next(BadRange* bad) noexcept {
    return mailbox_ != nullptr && mailbox_->take(bad);
}

bool post_bad_news(const BadRange& bad) noexcept {
    const auto found = std::find_if(mailboxes.begin(), mailboxes.end(),
                                    [&](const Mailbox& mailbox) { return mailbox.holds(bad.address); });
    if (found == mailboxes.end()) return false;
    found->put(bad);
    return true;
}

}  // namespace pnode::cxl
