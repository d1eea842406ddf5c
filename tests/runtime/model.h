// A model of what a heap's buffers hold: random operations on the heap, and the same on a shadow copy.
//
// One model belongs to one thread and to the buffers it allocated; several may share a heap. The sequence of
// operations depends on the choices alone: a seed's, or an input's (tests/fuzz/heap_fuzz.cpp).
#pragma once

#include <pnode/pnode.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "tests/runtime/child_process.h"
#include "tests/runtime/page_patterns.h"

namespace pnode::test {

struct ModelOptions {
    std::uint64_t seed = 1;
    std::uint64_t pages_max = 1024;
    bool forks = false;        // also fork children that check their snapshot
    bool moves_limit = false;  // also move the near limit
};

template <class Choices>
class ModelOf {
  public:
    ModelOf(pn_heap* heap, const ModelOptions& options, Choices choices)
        : heap_(heap), options_(options), random_(choices) {}
    const Choices& choices() const { return random_; }

    // Runs `operations` random ones; what went wrong, or nothing.
    std::string run(std::uint64_t operations) {
        for (std::uint64_t i = 0; i < operations; ++i) {
            if (const std::string wrong = step(); !wrong.empty()) {
                return "seed " + std::to_string(options_.seed) + ", operation " + std::to_string(i) + ": " +
                       wrong;
            }
        }
        return "";
    }

    // One operation; what went wrong, or nothing.
    std::string step() {
        if (extents_.empty()) return alloc();
        chosen_ = random_.below(extents_.size());
        const std::uint64_t first = random_.below(chosen().pages());
        const std::uint64_t count = 1 + random_.below(std::min<std::uint64_t>(chosen().pages() - first, 48));
        switch (random_.below(32)) {
            case 0:
                return alloc();
            case 1:
                return free_pages(0, chosen().pages());
            case 2:
                return free_pages(first, count);
            case 3:
            case 4:
                return release(first, count);
            case 5:
            case 6:
            case 7:
            case 8:
            case 9:
                return demote(first, count);
            case 10:
            case 11:
                return promote(first, count);
            case 12:
            case 13:
                return pin(first, std::min<std::uint64_t>(count, 4));
            case 14:
            case 15:
            case 16:
                return unpin(first, std::min<std::uint64_t>(count, 2));
            case 17:
                return query(first, count);
            case 18:
                return options_.forks && random_.below(6) == 0 ? fork_and_check(count) : read(first, count);
            case 19:
                return options_.moves_limit && random_.below(2) == 0 ? move_limit() : read(first, count);
            case 20:
            case 21:
            case 22:
            case 23:
            case 24:
                return write_bytes(first, count);
            case 25:
            case 26:
            case 27:
                return fill(first, count);
            default:
                return read(first, count);
        }
    }

    // Checks every byte, then unpins and frees everything.
    std::string finish() {
        if (bytes_wrong()) return "wrong bytes at the end";
        while (!extents_.empty()) {
            chosen_ = extents_.size() - 1;
            for (std::uint64_t page = 0; page < chosen().pages(); ++page) {
                while (chosen().pins[page] > 0) {
                    if (const std::string wrong = unpin(page, 1); !wrong.empty()) return wrong;
                }
            }
            if (const std::string wrong = free_pages(0, chosen().pages()); !wrong.empty()) return wrong;
        }
        return "";
    }

  private:
    // A buffer, or what partial frees left of one.
    struct Extent {
        std::uint8_t* first;
        std::vector<std::uint8_t> shadow;
        std::vector<std::uint8_t> pins;  // one count per page

        std::uint64_t pages() const { return pins.size(); }
        std::uint8_t* page(std::uint64_t index) const { return first + index * page_bytes; }
    };

    Extent& chosen() { return extents_[chosen_]; }

    std::string alloc() {
        std::uint64_t held = 0;
        for (const Extent& each : extents_) held += each.pages();
        const std::uint64_t pages = 1 + random_.below(options_.pages_max / 4);
        if (held + pages > options_.pages_max) return "";
        void* buffer = nullptr;
        if (pn_buffer_alloc(heap_, pages * page_bytes, 0, &buffer) != 0) return "alloc failed";
        Extent extent = {static_cast<std::uint8_t*>(buffer), {}, std::vector<std::uint8_t>(pages)};
        extent.shadow.resize(pages * page_bytes);
        extents_.push_back(std::move(extent));
        return "";
    }

    std::string free_pages(std::uint64_t first, std::uint64_t count) {
        Extent extent = chosen();
        bool pinned = false;
        for (std::uint64_t i = first; i < first + count; ++i) pinned = pinned || extent.pins[i] > 0;
        const int error = pn_buffer_free(heap_, extent.page(first), count * page_bytes);
        if (error != (pinned ? EBUSY : 0)) return "free gave " + std::to_string(error);
        if (pinned) return "";
        extents_.erase(extents_.begin() + static_cast<std::ptrdiff_t>(chosen_));
        keep_part(extent, 0, first);
        keep_part(extent, first + count, extent.pages());
        return "";
    }

    void keep_part(const Extent& whole, std::uint64_t from, std::uint64_t to) {
        if (from == to) return;
        const auto bytes = whole.shadow.begin();
        const auto pins = whole.pins.begin();
        const auto at = [](std::uint64_t n) { return static_cast<std::ptrdiff_t>(n); };
        extents_.push_back({whole.page(from),
                            {bytes + at(from * page_bytes), bytes + at(to * page_bytes)},
                            {pins + at(from), pins + at(to)}});
    }

    std::string release(std::uint64_t first, std::uint64_t count) {
        if (pn_release(heap_, chosen().page(first), count * page_bytes) != 0) return "release failed";
        std::memset(&chosen().shadow[first * page_bytes], 0, count * page_bytes);
        return "";
    }

    std::string demote(std::uint64_t first, std::uint64_t count) {
        std::uint64_t done = count + 1;
        if (pn_demote(heap_, chosen().page(first), count * page_bytes, &done) != 0) return "demote failed";
        return done <= count ? "" : "demote did more than it was asked";
    }

    std::string promote(std::uint64_t first, std::uint64_t count) {
        return pn_promote(heap_, chosen().page(first), count * page_bytes) == 0 ? "" : "promote failed";
    }

    std::string pin(std::uint64_t first, std::uint64_t count) {
        bool full = false;
        for (std::uint64_t i = first; i < first + count; ++i) full = full || chosen().pins[i] == 255;
        if (pins_ + count > pins_max && !full) return "";
        const int error = pn_pin(heap_, chosen().page(first), count * page_bytes);
        if (error != (full ? EAGAIN : 0)) return "pin gave " + std::to_string(error);
        if (full) return "";
        for (std::uint64_t i = first; i < first + count; ++i) ++chosen().pins[i];
        pins_ += count;
        return "";
    }

    std::string unpin(std::uint64_t first, std::uint64_t count) {
        bool missing = false;
        for (std::uint64_t i = first; i < first + count; ++i) missing = missing || chosen().pins[i] == 0;
        const int error = pn_unpin(heap_, chosen().page(first), count * page_bytes);
        if (error != (missing ? EINVAL : 0)) return "unpin gave " + std::to_string(error);
        if (missing) return "";
        for (std::uint64_t i = first; i < first + count; ++i) --chosen().pins[i];
        pins_ -= count;
        return "";
    }

    std::string query(std::uint64_t first, std::uint64_t count) {
        std::vector<std::uint8_t> states(count, 0xff);
        if (pn_query(heap_, chosen().page(first), count * page_bytes, states.data()) != 0)
            return "query failed";
        for (std::uint64_t i = 0; i < count; ++i) {
            if (states[i] == PN_PAGE_POISONED || states[i] > PN_PAGE_BUSY) return "a state that cannot be";
            // Fresh: its contents were released while it was pinned. Busy: somebody looks at it this moment.
            const bool stays =
                states[i] == PN_PAGE_NEAR || states[i] == PN_PAGE_FRESH || states[i] == PN_PAGE_BUSY;
            if (chosen().pins[first + i] > 0 && !stays) {
                return "a pinned page is in state " + std::to_string(states[i]);
            }
        }
        return "";
    }

    std::string fork_and_check(std::uint64_t demote_pages) {
        const Verdict verdict = verdict_of_child([&] {
            if (bytes_wrong()) return Verdict::wrong_bytes;
            Extent& extent = chosen();
            const std::uint64_t bytes = std::min(demote_pages, extent.pages()) * page_bytes;
            if (pn_demote(heap_, extent.first, bytes, nullptr) != 0) return Verdict::call_failed;
            return bytes_wrong() ? Verdict::wrong_fresh_bytes : Verdict::good;
        });
        return verdict == Verdict::good ? "" : name_of(verdict);
    }

    std::string move_limit() {
        const std::uint64_t limit = mib + random_.below(4) * mib / 2;
        return pn_heap_set_near_limit(heap_, limit) == 0 ? "" : "set_near_limit failed";
    }

    // A range that begins and ends inside of pages.
    std::string write_bytes(std::uint64_t first, std::uint64_t count) {
        const std::uint64_t pages = std::min<std::uint64_t>(count, 3);
        const std::uint64_t from = first * page_bytes + random_.below(page_bytes);
        const std::uint64_t bytes = 1 + random_.below((first + pages) * page_bytes - from);
        const auto value = static_cast<int>(random_.below(256));
        std::memset(chosen().first + from, value, bytes);
        std::memset(&chosen().shadow[from], value, bytes);
        return "";
    }

    std::string fill(std::uint64_t first, std::uint64_t count) {
        for (std::uint64_t i = first; i < first + count; ++i) {
            const PageImage image = page_image(every_kind[random_.below(every_kind.size())], random_.next());
            std::memcpy(chosen().page(i), image.data(), page_bytes);
            std::memcpy(&chosen().shadow[i * page_bytes], image.data(), page_bytes);
        }
        return "";
    }

    std::string read(std::uint64_t first, std::uint64_t count) {
        const std::uint64_t from = first * page_bytes;
        const bool same = std::memcmp(chosen().first + from, &chosen().shadow[from], count * page_bytes) == 0;
        return same ? "" : "wrong bytes";
    }

    // Allocates nothing: children use it.
    bool bytes_wrong() const {
        for (const Extent& each : extents_) {
            if (std::memcmp(each.first, each.shadow.data(), each.shadow.size()) != 0) return true;
        }
        return false;
    }

    static constexpr std::uint64_t pins_max = 64;  // of all models together far below any near limit

    pn_heap* heap_;
    ModelOptions options_;
    Choices random_;
    std::vector<Extent> extents_;
    std::size_t chosen_ = 0;
    std::uint64_t pins_ = 0;
};

class Model : public ModelOf<Random> {
  public:
    Model(pn_heap* heap, const ModelOptions& options) : ModelOf(heap, options, Random(options.seed)) {}
};

}  // namespace pnode::test
