#include "bench/policy/policies.h"

#include <algorithm>
#include <deque>
#include <list>
#include <set>
#include <unordered_map>

namespace pnode::bench {
namespace {

// Misses as few as can be (Belady): the page whose next access is farthest away leaves.
class Optimum final : public Policy {
  public:
    explicit Optimum(const Trace& trace) : next_(trace.accesses.size()), due_(trace.pages, 0) {
        std::vector<std::uint64_t> later(trace.pages, never);
        for (std::size_t at = trace.accesses.size(); at-- > 0;) {
            next_[at] = later[trace.accesses[at].page];
            later[trace.accesses[at].page] = at;
        }
    }
    void hit(std::uint32_t page) override {
        queue_.erase({due_[page], page});
        insert(page);
    }
    void came(std::uint32_t page, bool) override { insert(page); }
    std::uint32_t choose() override {
        const auto last = std::prev(queue_.end());
        const std::uint32_t page = last->second;
        queue_.erase(last);
        ++looked_at_;
        return page;
    }

  private:
    static constexpr std::uint64_t never = UINT64_MAX;
    // Called once an access, in order: that is how it knows where in the trace it is.
    void insert(std::uint32_t page) {
        due_[page] = next_[at_++];
        queue_.insert({due_[page], page});
    }
    std::vector<std::uint64_t> next_;  // of each access: when its page is accessed again
    std::vector<std::uint64_t> due_;
    std::set<std::pair<std::uint64_t, std::uint32_t>> queue_;
    std::size_t at_ = 0;
};

class Lru final : public Policy {
  public:
    explicit Lru(std::uint32_t pages) : places_(pages) {}
    void hit(std::uint32_t page) override { order_.splice(order_.end(), order_, places_[page]); }
    void came(std::uint32_t page, bool) override { places_[page] = order_.insert(order_.end(), page); }
    std::uint32_t choose() override {
        const std::uint32_t page = order_.front();
        order_.pop_front();
        ++looked_at_;
        return page;
    }

  private:
    std::list<std::uint32_t> order_;
    std::vector<std::list<std::uint32_t>::iterator> places_;
};

// A queue that gives a page whose accessed bit is set another round; without bits it is first in, first out.
class Clock final : public Policy {
  public:
    Clock(std::uint32_t pages, bool bits) : accessed_(pages), bits_(bits) {}
    void hit(std::uint32_t page) override { accessed_[page] = bits_; }
    void came(std::uint32_t page, bool) override {
        accessed_[page] = false;
        queue_.push_back(page);
    }
    std::uint32_t choose() override {
        for (;;) {
            const std::uint32_t page = queue_.front();
            queue_.pop_front();
            ++looked_at_;
            if (!accessed_[page]) return page;
            accessed_[page] = false;
            queue_.push_back(page);
        }
    }

  private:
    std::vector<bool> accessed_;
    std::deque<std::uint32_t> queue_;
    bool bits_;
};

// S3-FIFO: newcomers stand in a small queue; who was accessed there, or comes back while remembered, joins
// the main one. Without bits only coming back counts.
class S3Fifo final : public Policy {
  public:
    S3Fifo(std::uint32_t pages, std::uint32_t near_pages, bool bits)
        : hits_(pages),
          left_at_(pages),
          small_max_(std::max<std::uint32_t>(near_pages / 10, 1)),
          remembered_(near_pages),
          bits_(bits) {}
    void hit(std::uint32_t page) override {
        if (bits_ && hits_[page] < hits_max) ++hits_[page];
    }
    void came(std::uint32_t page, bool) override {
        const bool again = left_at_[page] != 0 && chosen_ - left_at_[page] < remembered_;
        hits_[page] = 0;
        (again ? main_ : small_).push_back(page);
    }
    std::uint32_t choose() override {
        for (;;) {
            const bool from_small = small_.size() >= small_max_ || main_.empty();
            std::deque<std::uint32_t>& queue = from_small ? small_ : main_;
            const std::uint32_t page = queue.front();
            queue.pop_front();
            ++looked_at_;
            if (hits_[page] == 0) {
                left_at_[page] = from_small ? ++chosen_ : 0;
                return page;
            }
            if (from_small)
                hits_[page] = 0;
            else
                --hits_[page];
            main_.push_back(page);
        }
    }

  private:
    static constexpr std::uint8_t hits_max = 3;
    std::vector<std::uint8_t> hits_;
    std::vector<std::uint64_t> left_at_;  // 0: not remembered
    std::deque<std::uint32_t> small_, main_;
    std::uint32_t small_max_;
    std::uint64_t remembered_;
    std::uint64_t chosen_ = 0;
    bool bits_;
};

// As the runtime has it: the hand goes over all pages in address order.
class Levels final : public Policy {
  public:
    Levels(std::uint32_t pages, std::uint32_t near_pages, const LevelRule& rule)
        : words_(pages), epoch_pages_(std::max<std::uint32_t>(near_pages / 8, 1)), rule_(rule) {}
    void came(std::uint32_t page, bool kept) override {
        Word& word = words_[page];
        word.level = level_if_back(page);
        word.skip = rule_.sweeps(word.level, kept);
        word.near = true;
    }
    unsigned level_if_back(std::uint32_t page) const override {
        const Word& word = words_[page];
        return word.has_left ? rule_.next(word.level, epoch() - word.stamp) : word.level;
    }
    std::uint32_t choose() override {
        for (;; hand_ = (hand_ + 1) % static_cast<std::uint32_t>(words_.size())) {
            Word& word = words_[hand_];
            ++looked_at_;
            if (!word.near) continue;
            if (word.skip != 0) {
                --word.skip;
                continue;
            }
            word.near = false;
            word.has_left = true;
            word.stamp = epoch();
            ++chosen_;
            return hand_;
        }
    }

  private:
    struct Word {
        std::uint64_t stamp = 0;
        unsigned level = 0, skip = 0;
        bool near = false, has_left = false;
    };
    std::uint64_t epoch() const { return chosen_ / epoch_pages_; }
    std::vector<Word> words_;
    std::uint64_t epoch_pages_;
    LevelRule rule_;
    std::uint64_t chosen_ = 0;
    std::uint32_t hand_ = 0;
};

}  // namespace

std::unique_ptr<Policy> make_levels(std::uint32_t pages, std::uint32_t near_pages, const LevelRule& rule) {
    return std::make_unique<Levels>(pages, near_pages, rule);
}

const std::vector<PolicyChoice>& policies() {
    using Made = std::unique_ptr<Policy>;
    static const std::vector<PolicyChoice> all = {
        {"optimum", true,
         [](const Trace& trace, std::uint32_t) -> Made { return std::make_unique<Optimum>(trace); }},
        {"lru", true,
         [](const Trace& trace, std::uint32_t) -> Made { return std::make_unique<Lru>(trace.pages); }},
        {"clock", true,
         [](const Trace& trace, std::uint32_t) -> Made {
             return std::make_unique<Clock>(trace.pages, true);
         }},
        {"s3-fifo", true,
         [](const Trace& trace, std::uint32_t near_pages) -> Made {
             return std::make_unique<S3Fifo>(trace.pages, near_pages, true);
         }},
        {"fifo", false,
         [](const Trace& trace, std::uint32_t) -> Made {
             return std::make_unique<Clock>(trace.pages, false);
         }},
        {"s3-fifo-refaults", false,
         [](const Trace& trace, std::uint32_t near_pages) -> Made {
             return std::make_unique<S3Fifo>(trace.pages, near_pages, false);
         }},
        {"levels", false, [](const Trace& trace, std::uint32_t near_pages) -> Made {
             return make_levels(trace.pages, near_pages, level_rule);
         }}};
    return all;
}

}  // namespace pnode::bench
