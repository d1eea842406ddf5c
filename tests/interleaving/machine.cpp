#include "tests/interleaving/machine.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "runtime/eviction.h"
#include "runtime/promote.h"
#include "runtime/replace_blob.h"
#include "tests/interleaving/stepped_atomic.h"

namespace pnode::interleaving {
namespace {

constexpr std::uint64_t words_a_page = page_bytes / sizeof(std::uint64_t);
constexpr std::size_t block_bytes = pages_max * page_bytes;
// Contents of a block, its blob, and 1 MiB of scratch for each direction.
constexpr std::size_t recompressor_bytes = 2 * block_bytes + (2 << 20);
constexpr std::uint64_t incompressible_from = 1000;  // numbers of pages that do not compress

class Hash {
  public:
    void add(std::uint64_t value) noexcept {
        value_ ^= value + 0x9e3779b97f4a7c15 + (value_ << 12) + (value_ >> 4);
        value_ *= 0xff51afd7ed558ccd;
        value_ ^= value_ >> 32;
    }
    std::uint64_t value() const noexcept { return value_; }

  private:
    std::uint64_t value_ = 1;
};

void fill(std::byte* page, std::uint64_t number) {
    std::uint64_t words[words_a_page];
    std::fill(std::begin(words), std::end(words), number);
    if (number >= incompressible_from)
        std::generate(std::begin(words) + 1, std::end(words), std::mt19937_64(number));
    std::memcpy(page, words, sizeof words);
}

constexpr const char* state_names[] = {"fresh", "near", "busy", "limbo", "far", "?", "poisoned"};

}  // namespace

Machine* Machine::running = nullptr;

Machine::Machine(Setup setup) : setup_(std::move(setup)), heap_(std::make_unique<Heap>()) {
    running = this;
    pages_ = setup_.pages;
    staging_.resize(EvictLanes::count * batch_pages + 1);
    waiters_.resize(actors());
    holds_.resize(actors());
    Heap::Config config;
    config.address_bytes = 2 << 20;
    config.engine = PN_ENGINE_INLINE;
    config.pins_io = setup_.pins_io;
    config.far.spec = "memory:4G";  // for what runs leave there (begin)
    compress::parse_codec_choice(setup_.codec, &config.far.codec);
    std::string message;
    void* buffer = nullptr;
    if (heap_->open(config, &message) != 0) {
        std::fprintf(stderr, "the machine has no heap: %s\n", message.c_str());
        std::abort();
    }
    heap_->page_count = pages_;
    heap_->chunk_pages = setup_.chunk_pages;
    if (heap_->allocate(pages_ * page_bytes, {}, &buffer) != 0 ||
        heap_->page_at(reinterpret_cast<std::uint64_t>(buffer)) != 0)
        std::abort();
    heap_->evictor.join();
    if (recompressor_memory_.map(recompressor_bytes) != 0) std::abort();
    const auto* const bytes = reinterpret_cast<const std::byte*>(heap_.get());
    heap_before_.assign(bytes, bytes + sizeof(Heap));
}

Machine::~Machine() {
    begin();
    heap_->page_count = 2 << 20 >> 12;  // as it was opened
    heap_.reset();
    running = nullptr;
}

unsigned Machine::actors() const {
    return static_cast<unsigned>(setup_.actors.size()) + (setup_.faults_by == FaultsBy::a_handler ? 1 : 0);
}

// The heap as it was when it was opened, byte by byte: nothing in it owns what a run may change. Blobs that
// the last run left in the store are freed where a page has them, and so is a block that was not in place
// yet; other blobs that an actor was about to free, or to publish, stay there and are not counted. But a
// store that is nearly full is another one than it was, and no run can be repeated in it.
void Machine::begin() {
    if (heap_->far.is_nearly_full()) {
        std::fputs("the machine's store is full of what former runs left there\n", stderr);
        std::abort();
    }
    std::set<std::uint64_t> places = places_in_words();
    if (unpublished_block_ != cxl::no_blob) places.insert(unpublished_block_);
    for (const std::uint64_t place : places) heap_->far.store()->free(place);
    unpublished_block_ = cxl::no_blob;
    for (std::uint64_t page = 0; page < pages_; ++page) {
        if (is_handed_out(page)) heap_->chunks.add_allocated(heap_->chunk_of(page), 1);
    }
    heap_->traits.set(0, pages_, 0xff, PageTraits::ordinary);
    for (std::uint64_t chunk = 0; chunk <= heap_->chunk_of(pages_ - 1); ++chunk)
        heap_->chunks.set_state(chunk, ChunkState::untracked);
    std::memcpy(static_cast<void*>(heap_.get()), heap_before_.data(), sizeof(Heap));
    std::memset(static_cast<void*>(heap_->words), 0, pages_ * sizeof(AtomicPageWord));
    std::memset(static_cast<void*>(heap_->pins), 0, pages_);
    heap_->near_map.clear_if_idle(0, [] { return NearMap::Group::away; });
    kernel_.fill({});
    for (Page& page : staging_) page = {.watched = true};
    for (Waiter& waiter : waiters_) waiter = {};
    for (Truth& truth : truth_) truth = {};
    owner_.fill(nobody);
    for (std::size_t index = 0; index < holds_.size(); ++index) {
        holds_[index] = nullptr;
        hold_threads[index].owner.store(0);
        hold_threads[index].depth.store(0);
        hold_threads[index].frames[0].count.store(0);
    }
    hold_threads_end.store(0);
    my_holds = nullptr;
    refusals_left_ = 0;
    blobs_before_ = blobs();
    if (setup_.tracked) {
        for (std::uint64_t chunk = 0; chunk <= heap_->chunk_of(pages_ - 1); ++chunk)
            track_chunk(*heap_, chunk);
    }
    setup_.before(*this);
    refusals_left_ = setup_.refusals;
}

void Machine::act(unsigned actor) {
    if (actor < setup_.actors.size()) return setup_.actors[actor](*this);
    handle_faults();
}

// ---- the threads' side ----

void Machine::write(std::uint64_t page, std::uint64_t number) {
    note("write " + std::to_string(number) + " to page " + std::to_string(page));
    touch(page, true, number);
}

void Machine::read(std::uint64_t page) {
    note("read page " + std::to_string(page));
    touch(page, false, 0);
}

void Machine::demote(std::uint64_t first, std::uint64_t pages) {
    note("demote");
    std::uint64_t done = 0;
    pnode::demote(*heap_, first, pages, &done);
}

void Machine::evict() {
    note("evict");
    LentEvictLane lane(heap_->evict_lanes);
    evict_batch(*heap_, *lane, Evicting::other);
}

void Machine::evict_apart(std::uint64_t one, std::uint64_t other) {
    note("evict apart");
    LentEvictLane lane(heap_->evict_lanes);
    for (const std::uint64_t page : {one, other}) {
        const PageWord word = heap_->word(page).load();
        if (word.state() == PageState::near && !word.pinned()) take(*heap_, *lane, page, word);
    }
    take_out(*heap_, *lane);
    clear(*heap_, *lane, Evicting::other, 1);
}

void Machine::drop_kept() {
    drop_kept_blobs(*heap_);
}

// As Recompressor::read_far(): the page is owned while its blob is read. False: it is not far.
bool Machine::read_far(std::uint64_t page, PageWord* word, std::span<std::byte> contents) {
    AtomicPageWord& at = heap_->word(page);
    *word = at.load();
    if (word->state() != PageState::far || !at.make_busy(*word)) return false;
    FarTier::Room room;
    if (heap_->far.decode(*word, page, contents, room, nullptr) != compress::DecodeResult::ok)
        fail("a far page does not decode");
    at.publish(*word);
    return true;
}

void Machine::make_block() {
    note("make a block");
    const std::span memory(recompressor_memory_.address(), recompressor_memory_.bytes());
    const std::span contents = memory.first(block_bytes), blob = memory.subspan(block_bytes, block_bytes);
    PageWord words[pages_max];
    compress::ContentHash hashes[pages_max];
    for (std::uint64_t page = 0; page < pages_max; ++page) {
        const std::span here = contents.subspan(page * page_bytes, page_bytes);
        if (!read_far(page, &words[page], here)) return;
        hashes[page] = heap_->far.key().hash(here);
    }
    const std::size_t bytes = compress::encode_pages(contents, hashes, {compress::codec_by_name("lz4"), 0},
                                                     blob, memory.subspan(2 * block_bytes));
    if (bytes == 0) return fail("a block does not compress");
    const std::size_t stored_bytes = std::max(bytes, BlockCounts::blob_bytes_min);
    // Where it will be placed: nobody else has blobs of its size.
    unpublished_block_ = heap_->far.store()->allocate(stored_bytes);
    heap_->far.store()->free(unpublished_block_);
    const Replaced replaced = replace_by_block(*heap_, 0, words, hashes, blob.first(stored_bytes));
    unpublished_block_ = cxl::no_blob;
    note(replaced == Replaced::done ? "a block it is" : "no block");
}

void Machine::move_blob(std::uint64_t page) {
    note("move a blob");
    const PageWord word = heap_->word(page).load();
    const bool has_blob = word.state() == PageState::far || word.state() == PageState::near;
    if (!has_blob || word.place() == cxl::no_blob) return;
    const std::span copy(recompressor_memory_.address(), block_bytes);
    note(pnode::move_blob(*heap_, page, word, copy) ? "moved" : "not moved");
}

void Machine::release(std::uint64_t first, std::uint64_t pages) {
    note("release");
    begin_giving_up(first, pages);
    pnode::release(*heap_, first, pages);
    end_giving_up(first, pages);
    note("released");
}

void Machine::promote(std::uint64_t first, std::uint64_t pages) {
    note("promote");
    if (pnode::promote(*heap_, first, pages) != 0) fail("promote() failed");
}

void Machine::bring_ahead(std::uint64_t first, unsigned pages) {
    note("bring ahead");
    const LentResolveLane lane(heap_->resolve_lanes);
    pnode::bring_ahead(*heap_, {first, pages, FaultKind::missing_to_read}, *lane);
}

void Machine::pin(std::uint64_t page) {
    note("pin");
    const std::uint64_t history = waiting_began();
    if (pnode::pin(*heap_, page, 1) != 0) return fail("pin() failed");
    forget_since(history + 1);
    check_pins();
}

void Machine::unpin(std::uint64_t page) {
    note("unpin");
    check_pins();
    if (pnode::unpin(*heap_, page, 1) == 0) return;
    // It was moved meanwhile, and its pin with it.
    const Truth& truth = truth_[page];
    const std::uint64_t there = truth.moved_to != nowhere ? truth.moved_to : truth.moves_to;
    if (there == nowhere || pnode::unpin(*heap_, there, 1) != 0) fail("unpin() failed");
}

bool Machine::is_handed_out(std::uint64_t page) const noexcept {
    return (heap_->traits[page] & PageTraits::handed_out) != 0;
}

void Machine::hand_out(std::uint64_t page) {
    note("hand out");
    const int error = heap_->hand_out(page, 1, Heap::Contents::left);
    if (error != 0 && error != EINVAL) fail("hand_out() failed");
    if (!is_handed_out(page)) fail("nothing was handed out");
}

// A pinned page is there and is counted, or in transit.
void Machine::check_pins() {
    for (std::uint64_t page = 0; page < pages_; ++page) {
        PageWord word;
        std::memcpy(static_cast<void*>(&word), static_cast<const void*>(heap_->words + page), sizeof word);
        if (word.state() == PageState::busy) continue;
        if (word.pinned() != (heap_->pins[page].load() != 0))
            return fail("a page's pins are not what its word says");
        if (const Page& there = kernel_[page]; word.pinned() && !there.present && there.watched)
            return fail("a pinned page is not there");
    }
}

void Machine::relocate(std::uint64_t from, std::uint64_t to, std::uint64_t pages) {
    note("relocate");
    const std::array<Truth, pages_max> before = truth_;
    begin_giving_up(from, pages);
    begin_giving_up(to, pages);
    for (std::uint64_t index = 0; index < pages; ++index) {
        Truth& here = truth_[from + index];
        here.moves_to = to + index;
        truth_[to + index].may_be.insert(here.may_be.begin(), here.may_be.end());
    }
    if (pnode::relocate(*heap_, from, to, pages) != 0) return fail("relocate() failed");
    end_giving_up(from, pages);
    end_giving_up(to, pages);
    for (std::uint64_t index = 0; index < pages; ++index) {
        Truth& there = truth_[to + index];
        Truth& here = truth_[from + index];
        here.moves_to = nowhere;
        here.moved_to = to + index;
        there.may_be = before[from + index].may_be;
        there.may_be.insert(here.written_meanwhile.begin(), here.written_meanwhile.end());
        there.may_be.insert(there.written_meanwhile.begin(), there.written_meanwhile.end());
    }
    note("relocated");
}

void Machine::system_call_on(std::uint64_t page, std::uint64_t number) {
    note("hold page " + std::to_string(page));
    Hold hold;
    hold.add(reinterpret_cast<std::uint64_t>(heap_->address_of(page)), page_bytes);
    step();
    const Page& there = kernel_[page];
    if (there.watched && (!there.present || there.write_protected)) return fail("EFAULT on a held page");
    access(page, true, number);
    touched();
}

void Machine::track(std::uint64_t page) {
    note("track");
    track_chunk(*heap_, heap_->chunk_of(page));
}

// The memory management unit's part: one step for each attempt.
void Machine::touch(std::uint64_t page, bool write, std::uint64_t number) {
    const std::uint64_t history = waiting_began();
    for (;; forget_since(history)) {
        step();
        Page& there = kernel_[page];
        const bool missing = !there.present && there.watched;
        const bool refused = write && there.write_protected;
        if (!missing && !refused) {
            access(page, write, number);
            touched();
            return forget_since(history + 1);
        }
        fault(page, !missing ? FaultKind::write_protected
                    : write  ? FaultKind::missing_to_write
                             : FaultKind::missing_to_read);
    }
}

void Machine::access(std::uint64_t page, bool write, std::uint64_t number) {
    Truth& truth = truth_[page];
    Page& there = kernel_[page];
    if (!there.present) {
        fill(heap_->address_of(page), 0);
        there.present = true;
    }
    if (write) {
        fill(heap_->address_of(page), number);
        if (truth.giving_up == 0) truth.may_be.clear();
        truth.may_be.insert(number);
        truth.written_meanwhile.insert(number);
        if (truth.moves_to != nowhere) truth_[truth.moves_to].may_be.insert(number);
        return;
    }
    const std::uint64_t found = number_at(page);
    saw(found);
    note("page " + std::to_string(page) + " reads as " + std::to_string(found));
    if (truth.may_be.count(found) == 0)
        return fail("page " + std::to_string(page) + " reads as " + std::to_string(found));
    if (truth.giving_up == 0) truth.may_be = {found};
}

void Machine::fault(std::uint64_t page, FaultKind kind) {
    note(kind == FaultKind::write_protected ? "fault: write-protected" : "fault: missing");
    const unsigned me = running_actor();
    if (me == nobody || setup_.faults_by == FaultsBy::the_thread_itself) {
        LentResolveLane lane(heap_->resolve_lanes);
        resolve(*heap_, page, setup_.tells_access ? kind : FaultKind::unknown, *lane, setup_.fault_pages);
        return;
    }
    if (kind != FaultKind::write_protected) kind = FaultKind::missing;
    waiters_[me] = {.woken = false, .told = false, .page = page, .kind = kind};
    touched();
    wait_for(&waiters_[me].woken);
}

bool Machine::take_message(Waiter** message) {
    for (Waiter& waiter : waiters_) {
        if (waiter.woken || waiter.told) continue;
        waiter.told = true;
        *message = &waiter;
        return true;
    }
    return false;
}

bool Machine::others_are_done() const {
    for (unsigned actor = 0; actor < setup_.actors.size(); ++actor) {
        if (!is_done(actor)) return false;
    }
    return true;
}

// As FaultThreads::serve() does.
void Machine::handle_faults() {
    const std::uint64_t history = waiting_began();
    bool gave_up = true;  // it never does: who waits for it waits for ever then
    for (;; forget_since(history)) {
        step();
        Waiter* message = nullptr;
        if (take_message(&message)) {
            const std::uint64_t page = message->page;
            saw(page * 4 + static_cast<std::uint64_t>(message->kind));
            if (resolve(*heap_, page, message->kind, heap_->resolve_lanes[0], setup_.fault_pages) ==
                Resolved::gone)
                os::uffd_wake(heap_->uffd.fd, heap_->address_of(page), page_bytes);
        } else if (others_are_done()) {
            return;
        } else {
            wait_until_changed(history, &gave_up);
        }
    }
}

// ---- what a page may read as ----

void Machine::begin_giving_up(std::uint64_t first, std::uint64_t pages) {
    for (std::uint64_t page = first; page < first + pages; ++page) {
        Truth& truth = truth_[page];
        if (truth.giving_up++ == 0) truth.written_meanwhile.clear();
        truth.may_be.insert(0);
    }
}

void Machine::end_giving_up(std::uint64_t first, std::uint64_t pages) {
    for (std::uint64_t page = first; page < first + pages; ++page) {
        Truth& truth = truth_[page];
        if (--truth.giving_up != 0) continue;
        truth.may_be = truth.written_meanwhile;
        truth.may_be.insert(0);
    }
}

// A number that nobody writes where the page is not whole.
std::uint64_t Machine::number_at(std::uint64_t page) const {
    std::uint64_t number = 0;
    std::byte whole[page_bytes];
    std::memcpy(&number, heap_->address_of(page), sizeof number);
    fill(whole, number);
    return std::memcmp(whole, heap_->address_of(page), page_bytes) == 0 ? number : ~std::uint64_t{0};
}

// ---- the kernel's side ----

Machine::Page* Machine::page_at(const void* address) noexcept {
    const auto at = reinterpret_cast<std::uint64_t>(address);
    const auto heap = reinterpret_cast<std::uint64_t>(heap_->base);
    const auto staging = reinterpret_cast<std::uint64_t>(heap_->evict_lanes[0].staging);
    if (at - heap < pages_ * page_bytes) return &kernel_[(at - heap) / page_bytes];
    if (at - staging < staging_.size() * page_bytes) return &staging_[(at - staging) / page_bytes];
    return nullptr;
}

void Machine::wake(const void* address) noexcept {
    const auto at = reinterpret_cast<std::uint64_t>(address);
    if (!heap_->contains(at)) return;
    for (Waiter& waiter : waiters_) {
        if (waiter.page == heap_->page_at(at)) waiter.woken = true;
    }
}

bool Machine::is_refused() noexcept {
    if (refusals_left_ == 0 || choose(2) == 0) return false;
    --refusals_left_;
    return true;
}

// ---- World ----

bool Machine::is_word(const void* at) const noexcept {
    const auto* const word = static_cast<const AtomicPageWord*>(at);
    return word >= heap_->words && word < heap_->words + pages_;
}

// Two words mean the same that differ in where in the node equal bytes are, or in what only a page's owner
// knows.
std::uint64_t Machine::meaning_of(PageWord word) const noexcept {
    if (word.state() == PageState::busy) return word.without_blob().bits() | 1ULL << 63;
    if (word.state() == PageState::limbo || word.place() == cxl::no_blob) return word.bits();
    std::uint64_t parts[5] = {};
    const std::span<const std::byte> blob = heap_->far.bytes(word);
    std::memcpy(parts, blob.data(), std::min(sizeof parts, blob.size()));
    Hash hash;
    hash.add(word.without_blob().bits());
    for (const std::uint64_t part : parts) hash.add(part);
    if (word.is_block()) hash.add(heap_->far.pages_alive(word));
    return hash.value();
}

std::uint64_t Machine::meaning(const void* at, std::uint64_t value) {
    return is_word(at) ? meaning_of(PageWord(value)) : value;
}

// The rule of the page word: who makes it busy owns it, and the owner alone changes it.
void Machine::changed(const void* at, std::uint64_t before, std::uint64_t after, bool conditional) {
    if (!is_word(at)) return;
    const auto page = static_cast<std::uint64_t>(static_cast<const AtomicPageWord*>(at) - heap_->words);
    const bool was_busy = PageWord(before).state() == PageState::busy;
    const bool is_busy = PageWord(after).state() == PageState::busy;
    if (is_noting())
        note("page " + std::to_string(page) + " " +
             state_names[static_cast<unsigned>(PageWord(before).state())] + " to " +
             state_names[static_cast<unsigned>(PageWord(after).state())]);
    if (conditional && was_busy) return fail("a page has two owners");
    if (!conditional && (!was_busy || owner_[page] != running_actor()))
        return fail("a page is changed by somebody who does not own it");
    owner_[page] = is_busy ? running_actor() : nobody;
}

bool Machine::overlooks(const void* at) {
    return breaks(Broken::exclusion) && is_word(at);
}

bool Machine::is_indivisible() {
    const cxl::SpinLock unlocked;
    return std::memcmp(static_cast<const void*>(&heap_->span_lock), static_cast<const void*>(&unlocked),
                       sizeof unlocked) != 0;
}

void Machine::switch_thread(unsigned from, unsigned to) {
    if (from != nobody) holds_[from] = my_holds;
    my_holds = holds_[to];
    if (breaks(Broken::holds)) hold_threads_end.store(0);
}

std::uint64_t Machine::state() {
    Hash hash;
    hash.add(heap_->near_map.may_be_near(0) ? 1 : 0);
    hash.add(heap_->near_map.may_be_takeable(0) ? 1 : 0);
    const auto add_page = [&](const Page& page, const std::byte* at) {
        std::uint64_t number = 0;
        if (page.present) std::memcpy(&number, at, sizeof number);
        hash.add(number * 8 + (page.present ? 4 : 0) + (page.write_protected ? 2 : 0) +
                 (page.watched ? 1 : 0));
    };
    for (std::uint64_t page = 0; page < pages_; ++page) {
        PageWord word;
        std::memcpy(static_cast<void*>(&word), static_cast<const void*>(heap_->words + page), sizeof word);
        hash.add(meaning_of(word));
        hash.add(owner_[page] * 1000 + heap_->pins[page].load());
        hash.add(heap_->traits[page]);
        add_page(kernel_[page], heap_->address_of(page));
        const Truth& truth = truth_[page];
        hash.add(truth.giving_up);
        for (const std::uint64_t number : truth.may_be) hash.add(number);
        hash.add(~0ULL);
        for (const std::uint64_t number : truth.written_meanwhile) hash.add(number);
    }
    for (std::size_t slot = 0; slot < staging_.size() && slot < std::size_t{4} * batch_pages; ++slot) {
        const OutgoingPage& out = heap_->slot(slot);
        add_page(staging_[slot], heap_->evict_lanes[0].staging + slot * page_bytes);
        if (slot % batch_pages == 0)
            hash.add(heap_->evict_lanes[static_cast<unsigned>(slot / batch_pages)].out_count);
        if (slot % batch_pages >= heap_->evict_lanes[static_cast<unsigned>(slot / batch_pages)].out_count)
            continue;
        hash.add(out.page * 4 + (out.in_place ? 2 : 0) + (out.contents != nullptr ? 1 : 0));
        hash.add(out.word.without_blob().bits());
        std::uint64_t copied = 0;
        if (out.in_place && out.contents != nullptr) std::memcpy(&copied, out.contents, sizeof copied);
        hash.add(copied);
    }
    for (std::size_t actor = 0; actor < holds_.size(); ++actor) {
        const ThreadHolds* const holds = running_actor() == actor ? my_holds : holds_[actor];
        hash.add(holds != nullptr ? static_cast<std::uint64_t>(holds - hold_threads) + 1 : 0);
        const Waiter& waiter = waiters_[actor];
        hash.add(waiter.woken
                     ? 0
                     : waiter.page * 8 + (waiter.told ? 4 : 0) + static_cast<std::uint64_t>(waiter.kind));
    }
    hash.add(heap_->hand.state());
    hash.add(heap_->keep_hand);
    hash.add(heap_->near.pages() * 64 + heap_->statistics.far_pages.value());
    hash.add(heap_->statistics.kept_blob_bytes.value() * 64 + heap_->statistics.limbo_pages.value());
    hash.add(refusals_left_);
    return hash.value();
}

// ---- at the end ----

std::uint64_t Machine::blobs() const {
    return heap_->far.store()->counters().blobs;
}

std::set<std::uint64_t> Machine::places_in_words() const {
    std::set<std::uint64_t> places;
    for (std::uint64_t page = 0; page < pages_; ++page) {
        PageWord word;
        std::memcpy(static_cast<void*>(&word), static_cast<const void*>(heap_->words + page), sizeof word);
        if (word.state() == PageState::far || word.state() == PageState::near) places.insert(word.place());
    }
    places.erase(cxl::no_blob);
    return places;
}

bool Machine::is_block_miscounted(std::uint64_t page) const {
    const PageWord word = heap_->word(page).load();
    if (!word.is_block()) return false;
    unsigned named = 0;
    for (std::uint64_t other = 0; other < pages_; ++other)
        named += heap_->word(other).load().place() == word.place() ? 1 : 0;
    return heap_->far.pages_alive(word) != named;
}

std::string Machine::wrong_page(std::uint64_t page) {
    const PageState state = heap_->word(page).load().state();
    const bool tracked = heap_->chunks.state(heap_->chunk_of(page)) == ChunkState::tracked;
    const std::string name = "page " + std::to_string(page);
    if (is_handed_out(page)) {
        if (state != PageState::fresh || kernel_[page].watched || kernel_[page].write_protected)
            return name + " is handed out, and still ours";
    } else if (tracked && state != PageState::near && kernel_[page].present)
        return name + " is in place and its word says " + state_names[static_cast<unsigned>(state)];
    touch(page, false, 0);
    return "";
}

std::string Machine::wrong_at_end() {
    if (const char* const wrong = validate(*heap_)) return wrong;
    for (const Page& page : staging_) {
        if (page.present) return "a staging page was left behind";
    }
    if (heap_->statistics.limbo_pages.value() != 0) return "pages in limbo are miscounted";
    if (blobs() - blobs_before_ != places_in_words().size()) return "a blob belongs to nobody";
    for (std::uint64_t page = 0; page < pages_; ++page) {
        if (is_block_miscounted(page)) return "a block's pages are miscounted";
    }
    for (std::uint64_t page = 0; page < pages_; ++page) {
        if (const std::string wrong = wrong_page(page); !wrong.empty()) return wrong;
    }
    return "";
}

}  // namespace pnode::interleaving
