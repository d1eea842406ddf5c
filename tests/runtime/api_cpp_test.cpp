// pnode.hpp: what owns what, and what is thrown.
#include <cstdlib>
#include <type_traits>
#include <vector>

#include "pnode/pnode.hpp"
#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

struct Record {
    std::uint64_t key;
    std::uint32_t values[30];
};

static_assert(!std::is_copy_constructible_v<pn::Heap> && std::is_nothrow_move_constructible_v<pn::Heap>);
static_assert(!std::is_copy_constructible_v<pn::Node> && std::is_nothrow_move_constructible_v<pn::Node>);
static_assert(!std::is_copy_constructible_v<pn::Buffer<Record>> && !std::is_copy_constructible_v<pn::Pin>);

template <class Call>
int error_of(const Call& call) {
    try {
        call();
    } catch (const pn::Error& error) {
        EXPECT_NE(std::string(error.what()), "");
        return error.code().value();
    }
    return 0;
}

class Cpp : public HeapTest {
  protected:
    static pn::HeapOptions options() {
        return {.address_bytes_max = gib,
                .near_bytes_max = 2 * mib,
                .node_spec = "memory:64M",
                .engine = tests_inline_engine() ? std::uint32_t{PN_ENGINE_INLINE}
                                                : std::uint32_t{PN_ENGINE_THREAD}};
    }
    static std::size_t wrong(const pn::Buffer<Record>& records) {
        std::size_t count = 0;
        for (std::size_t i = 0; i < records.size(); ++i)
            count += records[i].key == i && records[i].values[i % 30] == i ? 0 : 1;
        return count;
    }
    static void fill(const pn::Buffer<Record>& records) {
        for (std::size_t i = 0; i < records.size(); ++i) {
            records[i].key = i;
            records[i].values[i % 30] = static_cast<std::uint32_t>(i);
        }
    }
};

TEST_F(Cpp, ABufferHoldsWhatItWasGiven) {
    pn::Heap opened(options());
    pn::Heap heap = std::move(opened);
    pn::Buffer<Record> records(heap, 100'000);
    fill(records);
    EXPECT_GT(heap.stats().demotions, 0u);
    EXPECT_EQ(wrong(records), 0u);
    EXPECT_GT(records.demote(), 0u);
    pn::Buffer<Record> moved = std::move(records);
    EXPECT_EQ(records.data(), nullptr);  // NOLINT(bugprone-use-after-move): that it is empty is what is asked
    EXPECT_EQ(wrong(moved), 0u);
    EXPECT_EQ(moved.span().size(), 100'000u);
    EXPECT_EQ(moved.end() - moved.begin(), 100'000);
    moved.set_codec("zstd");
    moved.prefetch(99'999);
    heap.set_near_limit(4 * mib);
    heap.set_total_limit(8 * mib);
    EXPECT_EQ(wrong(moved), 0u);
    moved.release();
    EXPECT_EQ(moved[99'999].key, 0u);
}

TEST_F(Cpp, FreesWhatItOwns) {
    pn::Heap heap(options());
    {
        const pn::Buffer<Record> records(heap, 1000);
        pn::Buffer<Record> another(heap, 10);
        another = pn::Buffer<Record>(heap, 2000);
        EXPECT_GE(heap.stats().heap_bytes, 3000 * sizeof(Record));
        pn::Pin pin = records.pin(10, 20);
        EXPECT_GT(heap.stats().pinned_bytes, 0u);
        const pn::Pin moved = std::move(pin);
        EXPECT_GT(heap.stats().pinned_bytes, 0u);
    }
    EXPECT_EQ(heap.stats().pinned_bytes, 0u);
    EXPECT_EQ(heap.stats().heap_bytes, 0u);
}

TEST_F(Cpp, ThrowsWhatTheCallSays) {
    EXPECT_EQ(error_of([] { const pn::Heap heap({.near_bytes_max = 1}); }), EINVAL);
    EXPECT_EQ(error_of([] { const pn::Heap heap({.codec = "lz5"}); }), EINVAL);
    EXPECT_EQ(error_of([] { const pn::Node node("nothing:1M"); }), EINVAL);
    try {
        const pn::Heap heap({.codec = "lz5"});
    } catch (const pn::Error& error) {
        EXPECT_NE(std::string(error.what()).find("unknown codec 'lz5'"), std::string::npos) << error.what();
    }
    pn::Heap heap(options());
    EXPECT_EQ(error_of([&] { const pn::Buffer<Record> none(heap, 0); }), EINVAL);
    EXPECT_EQ(error_of([&] { const pn::Buffer<Record> all(heap, SIZE_MAX / 2); }), ENOMEM);
    const pn::Buffer<Record> records(heap, 1000);
    EXPECT_EQ(error_of([&] { records.set_codec("auto"); }), EINVAL);
    EXPECT_EQ(error_of([&] { const pn::Pin pin = records.pin(999, 2); }), EINVAL);
    EXPECT_EQ(error_of([&] { const pn::Pin pin = records.pin(SIZE_MAX, 2); }), EINVAL);
    EXPECT_EQ(error_of([&] { heap.set_near_limit(1); }), EINVAL);
}

TEST_F(Cpp, ContainersLiveInAHeap) {
    pn::Heap heap(options());
    std::vector<std::uint64_t, pn::Allocator<std::uint64_t>> numbers{pn::Allocator<std::uint64_t>(heap)};
    for (std::uint64_t i = 0; i < 2'000'000; ++i) numbers.push_back(i * i);
    EXPECT_GT(heap.stats().demotions, 0u);
    std::uint64_t wrong = 0;
    for (std::uint64_t i = 0; i < numbers.size(); ++i) wrong += numbers[i] == i * i ? 0 : 1;
    EXPECT_EQ(wrong, 0u);
    EXPECT_THROW(numbers.reserve(std::size_t{1} << 50), std::bad_alloc);
    numbers = std::vector<std::uint64_t, pn::Allocator<std::uint64_t>>{pn::Allocator<std::uint64_t>(heap)};
    EXPECT_EQ(heap.stats().heap_bytes, 0u);
}

TEST_F(Cpp, ANodeServesSeveralHeaps) {
    pn::Node node("memory:64M");
    {
        pn::HeapOptions wanted = options();
        wanted.node_spec.clear();
        wanted.node = &node;
        pn::Heap first(wanted), second(wanted);
        const pn::Buffer<Record> a(first, 50'000), b(second, 50'000);
        fill(a);
        fill(b);
        EXPECT_EQ(node.stats().heaps, 2u);
        EXPECT_GT(node.stats().blobs, 0u);
        EXPECT_EQ(wrong(a) + wrong(b), 0u);
        node.set_pressure(PN_PRESSURE_MAX);
        EXPECT_EQ(wrong(a) + wrong(b), 0u);
    }
    node.close();
    EXPECT_EQ(node.get(), nullptr);
}

}  // namespace
}  // namespace pnode::test
