// What stays far is made smaller in the background, with dictionaries trained on the heap's own pages; and
// not one byte of it is ever another.
#include <gtest/gtest.h>

#include <cstring>

#include "runtime/handles.h"
#include "tests/runtime/child_process.h"
#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

class Recompression : public HeapTest {
  protected:
    static constexpr std::uint64_t pages = 2048;

    void SetUp() override {
        HeapTest::SetUp();
        options_.codec = "auto:100:6";  // a quick level
    }
    // A heap whose pages are far, and were all looked at.
    std::uint8_t* open_and_recompress(Kind kind = Kind::text) {
        open_heap();
        std::uint8_t* const buffer = alloc_filled(pages, kind, 1);
        make_far(buffer, pages);
        return buffer;
    }
    // A child reads what it inherited, after all of it is gone from the parent, which then does `more`; and
    // what it makes far itself.
    template <class More>
    void expect_a_child_reads(std::uint8_t* buffer, const More& more) {
        if (thread_sanitized)
            GTEST_SKIP() << "ThreadSanitizer cannot follow threads that are started after a fork";
        int ready[2];
        ASSERT_EQ(pipe(ready), 0);
        const pid_t child = fork();
        if (child == 0) {
            char go = 0;
            if (read(ready[0], &go, 1) != 1) _exit(10);
            _exit(wrong_in_child(buffer));
        }
        ASSERT_GT(child, 0);
        fill_pages(buffer, pages, Kind::text, 5);
        make_far(buffer, pages);
        more();
        ASSERT_EQ(write(ready[1], "!", 1), 1);
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_TRUE(WIFEXITED(status));
        EXPECT_EQ(WEXITSTATUS(status), 0);
        close(ready[0]);
        close(ready[1]);
        EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 5), 0u);
        EXPECT_EQ(pn_heap_validate(heap_), nullptr);
    }
    int wrong_in_child(std::uint8_t* buffer) {
        if (wrong_pages(buffer, pages, Kind::text, 1) != 0) return 11;
        if (pn_heap_validate(heap_) != nullptr) return 12;
        if (pn_demote(heap_, buffer, pages * page_bytes, nullptr) != 0) return 13;
        fill_pages(buffer, pages / 2, Kind::text, 9);
        if (pn_demote(heap_, buffer, pages * page_bytes, nullptr) != 0) return 14;
        if (wrong_pages(buffer, pages / 2, Kind::text, 9) != 0) return 15;
        if (wrong_pages(buffer + pages / 2 * page_bytes, pages / 2, Kind::text, 1 + pages / 2) != 0)
            return 16;
        return pn_heap_validate(heap_) == nullptr ? 0 : 17;
    }
    bool most_are_recompressed(std::uint64_t least = pages * 9 / 10) {
        return eventually([&] { return stats().recompressed >= least; });
    }
};

TEST_F(Recompression, FarPagesBecomeSmallerReadTheSameAndStaySmall) {
    std::uint8_t* const buffer = open_and_recompress();
    const std::uint64_t at_first = stats().far_bytes;
    ASSERT_TRUE(most_are_recompressed());
    EXPECT_TRUE(eventually([&] { return stats().far_bytes < at_first; }))
        << stats().far_bytes << ' ' << at_first;
    const pn_stats_t after = stats();
    EXPECT_GE(after.dictionaries_trained, 1u);
    EXPECT_GE(after.dictionaries, 1u);
    EXPECT_GT(after.dictionary_bytes, 0u);
    EXPECT_LT(after.dictionary_bytes, after.far_bytes);
    EXPECT_GT(after.recompression_cpu_ns, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    // What came near and did not change goes out again without being compressed.
    make_far(buffer, pages);
    EXPECT_GT(stats().demotions_unchanged, after.demotions_unchanged);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
}

TEST_F(Recompression, OtherCodecsLeaveBlobsAsTheyAre) {
    for (const char* codec : {"lz4", "zstd"}) {
        options_.codec = codec;
        std::uint8_t* const buffer = open_and_recompress();
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        EXPECT_EQ(stats().recompressed, 0u);
        EXPECT_EQ(stats().dictionaries, 0u);
        EXPECT_EQ(stats().recompression_cpu_ns, 0u);
        EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
        EXPECT_EQ(pn_heap_close(heap_), 0);
        heap_ = nullptr;
    }
}

// Half a page is pieces that other pages have too, which nothing but a dictionary can know.
void fill_with_pieces(std::uint8_t* page, std::uint64_t seed) {
    Random random(seed);
    std::memset(page, 0, page_bytes);
    for (std::uint64_t at = 0; at < page_bytes; at += 512) {
        Random piece(random.below(64));
        for (std::uint64_t byte = 0; byte < 256; ++byte)
            page[at + byte] = static_cast<std::uint8_t>(piece.next());
    }
}

bool has_pieces(const std::uint8_t* page, std::uint64_t seed) {
    PageImage wanted;
    fill_with_pieces(wanted.data(), seed);
    return std::memcmp(page, wanted.data(), page_bytes) == 0;
}

TEST_F(Recompression, ZstdAndLz4WithADictionaryToo) {
    for (const char* codec : {"zstd:1,dict:100", "lz4,dict:100"}) {
        SCOPED_TRACE(codec);
        options_.codec = codec;
        open_heap();
        std::uint8_t* const buffer = alloc(pages);
        for (std::uint64_t page = 0; page < pages; ++page) fill_with_pieces(buffer + page * page_bytes, page);
        make_far(buffer, pages);
        ASSERT_TRUE(most_are_recompressed());
        // Half of each page is noise, which only a dictionary knows.
        EXPECT_TRUE(eventually([&] { return stats().far_bytes < pages * page_bytes / 4; }))
            << stats().far_bytes;
        std::uint64_t wrong = 0;
        for (std::uint64_t page = 0; page < pages; ++page)
            wrong += has_pieces(buffer + page * page_bytes, page) ? 0 : 1;
        EXPECT_EQ(wrong, 0u);
        EXPECT_EQ(pn_heap_validate(heap_), nullptr);
        EXPECT_EQ(pn_heap_close(heap_), 0);
        heap_ = nullptr;
    }
}

TEST_F(Recompression, WhatGoesFarLaterIsMadeWithTheDictionaryAtOnce) {
    std::uint8_t* const buffer = open_and_recompress();
    ASSERT_TRUE(most_are_recompressed());
    const Heap& heap = heap_->heap;
    const std::uint64_t first = heap.page_at(reinterpret_cast<std::uint64_t>(buffer));
    std::uint64_t seed = 100;
    EXPECT_TRUE(eventually([&] {
        fill_pages(buffer, pages, Kind::text, ++seed);
        demote(buffer, pages);
        std::uint64_t made_at_once = 0;
        for (std::uint64_t page = first; page < first + pages; ++page) {
            const PageWord word = heap.word(page).load();
            made_at_once += word.dictionary() != 0 && !word.dense() ? 1 : 0;
        }
        return made_at_once != 0;
    }));
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, seed), 0u);
}

TEST_F(Recompression, DictionariesGoWithTheirLastBlob) {
    std::uint8_t* const buffer = open_and_recompress();
    ASSERT_TRUE(most_are_recompressed());
    EXPECT_EQ(pn_buffer_free(heap_, buffer, pages * page_bytes), 0);
    const Dictionaries& dictionaries = heap_->heap.far.dictionaries();
    EXPECT_TRUE(eventually([&] {  // being current is what is left
        std::uint64_t references = 0;
        for (unsigned slot = 0; slot < Dictionaries::slots; ++slot)
            references += dictionaries.references(slot);
        return references <= 1;
    }));
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
}

// Contents of another kind: the dictionary is of little use, and another is trained; the first goes with what
// was made with it.
TEST_F(Recompression, AnotherIsTrainedWhenTheDataChanges) {
    options_.flags |= PN_HEAP_STRESS;  // each some hundred pages, whatever they gain
    open_heap();
    std::uint8_t* const buffer = alloc(pages);
    for (std::uint64_t round = 1; stats().dictionaries_trained < 4; ++round) {
        fill_pages(buffer, pages, round % 2 != 0 ? Kind::text : Kind::half, round * pages);
        demote(buffer, pages);
        const std::uint64_t before = stats().recompressed;
        ASSERT_TRUE(eventually([&] {
            demote(buffer, pages);
            return stats().recompressed > before + pages / 4 || stats().dictionaries_trained >= 4;
        }));
        ASSERT_EQ(wrong_pages(buffer, pages, round % 2 != 0 ? Kind::text : Kind::half, round * pages), 0u);
    }
    EXPECT_LE(stats().dictionaries, 3u);
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
}

TEST_F(Recompression, ANodeThatDoesNotPermitItIsLeftAlone) {
    pn_node_options node_options;
    pn_node_options_init(&node_options);
    node_options.services &= ~static_cast<std::uint32_t>(PN_NODE_RECOMPRESS);
    pn_node* node = nullptr;
    ASSERT_EQ(pn_node_open("memory:64M", &node_options, &node), 0);
    options_.node_spec = nullptr;
    options_.node = node;
    std::uint8_t* const buffer = open_and_recompress();
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_EQ(stats().recompressed, 0u);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_EQ(pn_heap_close(heap_), 0);
    heap_ = nullptr;
    EXPECT_EQ(pn_node_close(node), 0);
}

// The child has copies of words, counts and dictionaries of its own: whatever becomes of the parent's.
TEST_F(Recompression, AForkedChildDecodesWhatItInherited) {
    std::uint8_t* const buffer = open_and_recompress();
    ASSERT_TRUE(most_are_recompressed());
    expect_a_child_reads(buffer, [&] {
        heap_->heap.operations.shut_and_wait();
        heap_->heap.far.dictionaries().withdraw();  // no blob of ours names it any more: it is unmapped
        heap_->heap.operations.open();
    });
}

// Seven pages of eight go, and with them most of what each slab holds.
TEST_F(Recompression, SlabsThatHoldLittleAreEmptiedAndGivenBack) {
    std::uint8_t* const buffer = open_and_recompress();
    ASSERT_TRUE(most_are_recompressed());
    cxl::BlobStore& store = *heap_->heap.far.store();
    const std::uint64_t before = store.physical_bytes();
    for (std::uint64_t page = 0; page < pages; ++page)
        if (page % 8 != 0) {
            ASSERT_EQ(pn_release(heap_, buffer + page * page_bytes, page_bytes), 0);
        }
    EXPECT_TRUE(eventually([&] {
        demote(buffer, pages);
        EXPECT_TRUE(page_is(buffer, Kind::text, 1));  // what goes far wakes who packs
        return store.physical_bytes() < before / 3;
    })) << before
        << ' ' << store.physical_bytes();
    for (std::uint64_t page = 0; page < pages; page += 8)
        EXPECT_TRUE(page_is(buffer + page * page_bytes, Kind::text, 1 + page)) << page;
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
}

class Blocks : public Recompression, public ::testing::WithParamInterface<const char*> {
  protected:
    void SetUp() override {
        Recompression::SetUp();
        options_.codec = GetParam();
    }
    std::uint64_t blocks() {
        const pn_stats_t now = stats();
        return now.blocks_16k + now.blocks_64k;
    }
    // A heap most of whose pages are in blocks.
    std::uint8_t* open_and_make_blocks() {
        std::uint8_t* const buffer = open_and_recompress();
        EXPECT_TRUE(eventually([&] { return blocks() >= pages / 32; })) << blocks();
        return buffer;
    }
    AtomicPageWord& word_of(const std::uint8_t* page) {
        return heap_->heap.word(heap_->heap.page_at(reinterpret_cast<std::uint64_t>(page)));
    }
    // Of the first page from `page` on that is in a block.
    PageWord find_block(const std::uint8_t** page) {
        for (;; *page += page_bytes) {
            const PageWord word = word_of(*page).load();
            if (word.state() == PageState::far && word.is_block()) return word;
        }
    }
};

TEST_P(Blocks, AreReadTheSameAndGoWithTheirLastPage) {
    std::uint8_t* const buffer = open_and_make_blocks();
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
    make_far(buffer, pages);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
    make_far(buffer, pages);
    EXPECT_TRUE(eventually([&] { return blocks() != 0; }));
    EXPECT_EQ(pn_buffer_free(heap_, buffer, pages * page_bytes), 0);
    EXPECT_TRUE(eventually([&] { return blocks() == 0; })) << blocks();
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
}

TEST_P(Blocks, AWriteToOnePageKeepsTheOthers) {
    std::uint8_t* const buffer = open_and_make_blocks();
    for (std::uint64_t page = 1; page < pages; page += 4)
        fill_page(buffer + page * page_bytes, Kind::half, page);
    make_far(buffer, pages);
    for (std::uint64_t page = 0; page < pages; ++page)
        EXPECT_TRUE(page % 4 == 1 ? page_is(buffer + page * page_bytes, Kind::half, page)
                                  : page_is(buffer + page * page_bytes, Kind::text, 1 + page))
            << page;
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
}

TEST_P(Blocks, OneOfWhichLittleIsLeftIsMadeAnew) {
    std::uint8_t* const buffer = open_and_make_blocks();
    for (std::uint64_t page = 0; page < pages; ++page)
        if (page % 16 != 5) {
            ASSERT_EQ(pn_release(heap_, buffer + page * page_bytes, page_bytes), 0);
        }
    make_far(buffer, pages);
    EXPECT_TRUE(eventually([&] { return blocks() == 0; })) << blocks();
    for (std::uint64_t page = 5; page < pages; page += 16)
        EXPECT_TRUE(page_is(buffer + page * page_bytes, Kind::text, 1 + page)) << page;
    EXPECT_EQ(pn_heap_validate(heap_), nullptr);
}

// Two pages further on a page would be another one of its block; sixteen further on it is the same.
TEST_P(Blocks, AreRelocatedByAnyDistance) {
    std::uint8_t* const buffer = open_and_make_blocks();
    for (const std::uint64_t distance : {16u, 1u, 6u}) {
        std::uint8_t* const room = alloc(pages + 16);
        const std::uint64_t aligned =
            (reinterpret_cast<std::uint64_t>(buffer) - reinterpret_cast<std::uint64_t>(room)) / page_bytes %
            16;
        std::uint8_t* const to = room + (aligned + distance) % 16 * page_bytes;
        SCOPED_TRACE(distance);
        ASSERT_EQ(pn_relocate(heap_, buffer, to, pages * page_bytes), 0);
        EXPECT_EQ(pn_heap_validate(heap_), nullptr);
        EXPECT_EQ(wrong_pages(to, pages, Kind::text, 1), 0u);
        ASSERT_EQ(pn_relocate(heap_, to, buffer, pages * page_bytes), 0);
        make_far(buffer, pages);
        EXPECT_TRUE(eventually([&] { return blocks() >= pages / 32; })) << blocks();
    }
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::text, 1), 0u);
}

TEST_P(Blocks, AForkedChildReadsWhatItInherited) {
    expect_a_child_reads(open_and_make_blocks(), [] {});
}

class LostPages : public Blocks {
  protected:
    void TearDown() override { pn_heap_close(heap_); }  // its sums do not hold: pages were lost

    // How many pages come back; the others are poisoned, and none is wrong.
    std::uint64_t right_pages(const std::uint8_t* buffer) {
        ::testing::internal::CaptureStderr();
        pn_promote(heap_, const_cast<std::uint8_t*>(buffer), pages * page_bytes);
        ::testing::internal::GetCapturedStderr();
        const std::vector<std::uint8_t> all = states(buffer, pages);
        std::uint64_t right = 0;
        for (std::uint64_t page = 0; page < pages; ++page) {
            if (all[page] == PN_PAGE_POISONED) continue;
            EXPECT_TRUE(page_is(buffer + page * page_bytes, Kind::text, 1 + page)) << page;
            ++right;
        }
        return right;
    }
};

TEST_P(LostPages, AWrongHashLosesOnePageAndAWrongByteNoMoreThanItsBlock) {
    std::uint8_t* const buffer = open_and_make_blocks();
    Heap& heap = heap_->heap;
    heap.operations.shut_and_wait();  // nobody makes anything anew meanwhile
    const std::uint8_t* page = buffer;
    const PageWord first = find_block(&page);
    const std::uint64_t first_index =
        FarTier::index_in_block(first, heap.page_at(reinterpret_cast<std::uint64_t>(page)));
    std::span<std::byte> bytes = heap.far.store()->bytes(first.place());
    bytes[first_index == 0 ? 0 : compress::blob_header_bytes + 16 * (first_index - 1)] ^= std::byte{1};
    page += (first.pages() - first_index) * page_bytes;
    const PageWord second = find_block(&page);
    bytes = heap.far.store()->bytes(second.place());
    for (std::size_t at = 0; at < 64; ++at)
        bytes[compress::block_header_bytes(second.pages()) + 256 + at] ^= std::byte{0x55};
    heap.operations.open();
    const std::uint64_t right = right_pages(buffer);
    EXPECT_LT(right, pages);
    EXPECT_GE(right, pages - 1 - second.pages());
    EXPECT_EQ(stats().poisoned, pages - right);
    EXPECT_EQ(pn_release(heap_, buffer, pages * page_bytes), 0);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::zeros, 0), 0u);
}

constexpr auto codec_name = [](const auto& suite) {
    std::string name = suite.param;
    std::replace_if(
        name.begin(), name.end(), [](char c) { return c == ':' || c == ','; }, '_');
    return name;
};
INSTANTIATE_TEST_SUITE_P(Codec, Blocks,
                         ::testing::Values("auto:100:6,16K", "lz4,dict:100,16K", "auto:100:6,64K"),
                         codec_name);
INSTANTIATE_TEST_SUITE_P(Codec, LostPages, ::testing::Values("auto:100:6,16K", "auto:100:6,64K"), codec_name);

class LostDictionary : public Recompression {
  protected:
    void TearDown() override { pn_heap_close(heap_); }  // its sums do not hold: pages were lost

    // Every dictionary's contents, in the runtime's memory: one may have become current just now that no blob
    // was made with yet. Nobody trains or compresses meanwhile.
    void damage_dictionaries() {
        Heap& heap = heap_->heap;
        heap.operations.shut_and_wait();
        for (unsigned name = 1; name <= Dictionaries::slots; ++name) {
            const auto* const dictionary = heap.far.dictionaries().of(PageWord().with_blob(0, 1, name));
            if (dictionary != nullptr) damage(dictionary->content());
        }
        heap.operations.open();
    }

  private:
    static void damage(std::span<const std::byte> content) {
        auto* const bytes = const_cast<std::byte*>(content.data());
        for (std::size_t at = content.size() / 2; at < content.size(); ++at) bytes[at] ^= std::byte{0x20};
    }
};

TEST_F(LostDictionary, EachPageThatNeedsItIsLostAloneAndNoWrongByteIsShown) {
    std::uint8_t* const buffer = open_and_recompress();
    ASSERT_TRUE(most_are_recompressed());
    std::uint8_t* const other = alloc_filled(64, Kind::same, 8);  // needs none
    make_far(other, 64);
    damage_dictionaries();
    EXPECT_EQ(wrong_pages(other, 64, Kind::same, 8), 0u);
    EXPECT_EQ(stats().poisoned, 0u) << "only what is asked for";
    ::testing::internal::CaptureStderr();
    std::uint64_t first = 0;  // some do without it
    while (first < pages && pn_promote(heap_, buffer + first * page_bytes, page_bytes) == 0) ++first;
    ASSERT_LT(first, pages);
    EXPECT_EQ(stats().poisoned, 1u);
    EXPECT_EQ(pn_promote(heap_, buffer, pages * page_bytes), EIO);
    EXPECT_NE(::testing::internal::GetCapturedStderr().find("the dictionary that the blob names has changed"),
              std::string::npos);
    std::uint64_t lost = 0;
    const std::vector<std::uint8_t> all = states(buffer, pages);
    for (std::uint64_t page = 0; page < pages; ++page) {
        if (all[page] == PN_PAGE_POISONED) {
            ++lost;
        } else {
            EXPECT_TRUE(page_is(buffer + page * page_bytes, Kind::text, 1 + page)) << page;
        }
    }
    EXPECT_GT(lost, pages / 8);
    EXPECT_EQ(stats().poisoned, lost);
    EXPECT_EQ(pn_release(heap_, buffer, pages * page_bytes), 0);
    EXPECT_EQ(wrong_pages(buffer, pages, Kind::zeros, 0), 0u);
}

}  // namespace
}  // namespace pnode::test
