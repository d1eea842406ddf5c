// A heap of a few pages in a machine of a few threads, whose kernel is a model: what userfaultfd, madvise and
// mincore do to a page is one step each, as the page's lock makes it in the kernel. The heap, its page words
// and verbs, holds and the blob store are the runtime's own.
//
// A page's contents are one number, repeated (0: zeros), which is all there is to lose. What a page may read
// as is kept beside it: what was written last, and while a release is under way zeros too.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "runtime/heap.h"
#include "runtime/holds.h"
#include "tests/interleaving/scheduler.h"

namespace pnode::interleaving {

inline constexpr std::uint64_t pages_max = 4;

// A rule that is broken on purpose: the exploration must find it.
enum class Broken : std::uint8_t {
    nothing,
    exclusion,      // two may have made one page busy
    wakes,          // what is copied in wakes nobody
    holds,          // who takes pages out does not look at what is held
    cancelled_move  // a move that the kernel refused lost the page
};

enum class FaultsBy : std::uint8_t { the_thread_itself, a_handler };

class Machine : public World {
  public:
    struct Setup {
        std::function<void(Machine&)> before;  // before the actors begin
        std::vector<std::function<void(Machine&)>> actors;
        FaultsBy faults_by = FaultsBy::the_thread_itself;
        bool tells_access = true;  // to a thread that serves its fault: does it read or write?
        std::uint64_t pages = pages_max;
        std::uint64_t chunk_pages = pages_max;
        bool tracked = true;
        bool has_move = true;
        bool pins_io = false;  // written pages leave by spans
        const char* codec = "lz4";
        unsigned fault_pages = 1;  // that a fault brings near if it can
        unsigned refusals = 0;     // so many times a run, the kernel or the node refuses what it may refuse
        Broken broken = Broken::nothing;
    };
    explicit Machine(Setup setup);
    ~Machine() override;

    // ---- what an actor, or the setup, does ----
    void write(std::uint64_t page, std::uint64_t number);
    void read(std::uint64_t page);
    void demote(std::uint64_t first, std::uint64_t pages);
    void evict();
    // Those of the two that are near, and nothing between them, in one batch.
    void evict_apart(std::uint64_t one, std::uint64_t other);
    void release(std::uint64_t first, std::uint64_t pages);
    void promote(std::uint64_t first, std::uint64_t pages);
    void bring_ahead(std::uint64_t first, unsigned pages);
    void pin(std::uint64_t page);
    void unpin(std::uint64_t page);
    void relocate(std::uint64_t from, std::uint64_t to, std::uint64_t pages);
    // With its contents, to who watches nothing. Whoever comes too late is told so.
    void hand_out(std::uint64_t page);
    // A system call that writes to the page: EFAULT if it is not there.
    void system_call_on(std::uint64_t page, std::uint64_t number);
    void track(std::uint64_t page);
    void drop_kept();
    // The recompressor's part: all pages become one block, if they are far; a page's blob moves in the store.
    void make_block();
    void move_blob(std::uint64_t page);

    // ---- World ----
    unsigned actors() const override;
    void begin() override;
    void act(unsigned actor) override;
    std::uint64_t state() override;
    std::string wrong_at_end() override;
    std::uint64_t meaning(const void* at, std::uint64_t value) override;
    void changed(const void* at, std::uint64_t before, std::uint64_t after, bool conditional) override;
    bool overlooks(const void* at) override;
    bool is_indivisible() override;
    void switch_thread(unsigned from, unsigned to) override;

    // ---- the kernel's side (model_kernel.cpp) ----
    struct Page {
        bool present = false;
        bool write_protected = false;
        bool watched = false;
    };
    // Null: none of ours.
    Page* page_at(const void* address) noexcept;
    void wake(const void* address) noexcept;
    bool is_refused() noexcept;
    bool breaks(Broken rule) const noexcept { return setup_.broken == rule; }
    bool has_move() const noexcept { return setup_.has_move; }
    static Machine* running;

  private:
    void check_pins();
    struct Waiter {  // an actor whose access faulted
        bool woken = true;
        bool told = false;  // the handler has the message
        std::uint64_t page = 0;
        FaultKind kind = FaultKind::unknown;
    };
    static constexpr std::uint64_t nowhere = ~std::uint64_t{0};
    // What a page may read as.
    struct Truth {
        std::set<std::uint64_t> may_be{0};
        std::set<std::uint64_t> written_meanwhile;
        unsigned giving_up = 0;            // releases under way
        std::uint64_t moves_to = nowhere;  // while it is relocated
        std::uint64_t moved_to = nowhere;  // once it was
    };

    void access(std::uint64_t page, bool write, std::uint64_t number);
    void touch(std::uint64_t page, bool write, std::uint64_t number);
    void fault(std::uint64_t page, FaultKind kind);
    void handle_faults();
    bool take_message(Waiter** message);
    bool others_are_done() const;
    void begin_giving_up(std::uint64_t first, std::uint64_t pages);
    void end_giving_up(std::uint64_t first, std::uint64_t pages);
    std::uint64_t number_at(std::uint64_t page) const;
    std::uint64_t blobs() const;
    std::set<std::uint64_t> places_in_words() const;
    bool read_far(std::uint64_t page, PageWord* word, std::span<std::byte> contents);
    bool is_block_miscounted(std::uint64_t page) const;
    std::string wrong_page(std::uint64_t page);
    bool is_handed_out(std::uint64_t page) const noexcept;
    bool is_word(const void* at) const noexcept;
    std::uint64_t meaning_of(PageWord word) const noexcept;

    Setup setup_;
    std::unique_ptr<Heap> heap_;
    os::Mapping recompressor_memory_;     // contents, blob and scratch, as recompressor.h has them
    std::vector<std::byte> heap_before_;  // as it was opened
    std::uint64_t pages_;
    std::array<Page, pages_max> kernel_{};
    std::vector<Page> staging_;
    std::vector<Waiter> waiters_;
    std::vector<ThreadHolds*> holds_;
    std::array<Truth, pages_max> truth_;
    std::array<unsigned, pages_max> owner_{};
    std::uint64_t blobs_before_ = 0;
    std::uint64_t unpublished_block_ = cxl::no_blob;
    unsigned refusals_left_ = 0;
};

}  // namespace pnode::interleaving
