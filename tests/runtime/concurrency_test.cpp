// Several threads on the same pages. Iterations are bounded and few: sanitizers run these ten times slower.
#include <atomic>
#include <numeric>

#include "tests/runtime/heap_fixture.h"

namespace pnode::test {
namespace {

constexpr std::uint64_t pages = 64;
constexpr std::uint64_t threads_max = 4;

// Runs body(0) ... body(count - 1), each in a thread, released together.
template <class Body>
void in_threads(std::uint64_t count, Body&& body) {
    std::atomic<bool> go = false;
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < count; ++t) {
        threads.emplace_back([&, t] {
            go.wait(false);
            body(t);
        });
    }
    go = true;
    go.notify_all();
    for (std::thread& thread : threads) thread.join();
}

class Concurrent : public HeapTest {
  protected:
    // Demotes the range until `done`; for the life of a scope.
    class Demoter {
      public:
        Demoter(pn_heap* heap, void* first, std::uint64_t count)
            : thread_([this, heap, first, count] {
                  while (!done_) {
                      const int error = pn_demote(heap, first, count * page_bytes, nullptr);
                      if (error != 0) error_ = error;
                      ++rounds_;
                  }
              }) {}
        ~Demoter() {
            eventually([this] { return rounds_ > 0; });
            done_ = true;
            thread_.join();
            EXPECT_EQ(error_, 0);
        }

      private:
        std::atomic<bool> done_ = false;
        std::atomic<int> error_ = 0;
        std::atomic<std::uint64_t> rounds_ = 0;
        std::thread thread_;  // last: it uses the others
    };
};
class CalmConcurrent : public Concurrent {};

TEST_F(Concurrent, DistinctBytesOfOnePageAllLand) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    for (std::uint64_t round = 0; round < 8; ++round) {
        make_far(buffer, pages);
        in_threads(threads_max, [&](std::uint64_t t) {
            for (std::uint64_t i = 0; i < pages; ++i) {
                buffer[i * page_bytes + t * 1000] = static_cast<std::uint8_t>(round * 16 + t);
            }
        });
        for (std::uint64_t i = 0; i < pages; ++i) {
            PageImage expected = page_image(Kind::text, 1 + i);
            for (std::uint64_t t = 0; t < threads_max; ++t) {
                expected[t * 1000] = static_cast<std::uint8_t>(round * 16 + t);
            }
            ASSERT_EQ(std::memcmp(buffer + i * page_bytes, expected.data(), page_bytes), 0) << i;
        }
    }
}

TEST_F(CalmConcurrent, OnePromotionServesAllThreads) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    // A step that is coprime to their number visits all pages, and no two in a row: hardly anything is read
    // ahead, and a message too many costs one page, not a run of them.
    constexpr std::uint64_t step = 27;
    static_assert(std::gcd(step, pages) == 1);
    std::uint64_t expected = 0;
    std::uint64_t stale_max = 0;
    for (int round = 0; round < 8; ++round) {
        make_far(buffer, pages);
        expected += pages;
        in_threads(threads_max, [&](std::uint64_t t) {
            for (std::uint64_t i = 0; i < pages; ++i) {
                std::atomic_ref(buffer[i * step % pages * page_bytes + t * 1000]).fetch_add(1);
            }
        });
        EXPECT_TRUE(eventually([&] { return stats().promotions >= expected; }));
        // A handler may still hold a message of a thread that another handler has served: answered after the
        // page was demoted again, it brings the page near for nobody. No thread leaves more than one such
        // message a round.
        stale_max += threads_max;
        EXPECT_LE(stats().promotions - stats().promotions_ahead, expected + stale_max);
    }
}

TEST_F(Concurrent, WritersAgainstADemoter) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(threads_max * pages, Kind::text, 0);
    std::atomic<std::uint64_t> wrong = 0;
    {
        const Demoter demoter(heap_, buffer, threads_max * pages);
        in_threads(threads_max, [&](std::uint64_t t) {
            std::uint8_t* const own = buffer + t * pages * page_bytes;
            for (std::uint64_t round = 1; round <= 8; ++round) {
                for (std::uint64_t i = 0; i < pages; ++i) {
                    fill_page(own + i * page_bytes, Kind::text, round * 10000 + i);
                    wrong += page_is(own + i * page_bytes, Kind::text, round * 10000 + i) ? 0 : 1;
                }
                wrong += wrong_pages(own, pages, Kind::text, round * 10000);
            }
        });
    }
    EXPECT_EQ(wrong, 0u);
}

// A lost write shows as a counter that stands still: every word is only ever added to.
TEST_F(Concurrent, AtomicAddsAgainstADemoter) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::zeros, 0);
    constexpr std::uint64_t adds = 2000;
    const auto word = [&](std::uint64_t page) {
        return std::atomic_ref(*reinterpret_cast<std::uint64_t*>(buffer + page * page_bytes + 512));
    };
    {
        const Demoter demoter(heap_, buffer, pages);
        in_threads(threads_max, [&](std::uint64_t t) {
            Random random(t);
            for (std::uint64_t i = 0; i < adds; ++i) word(random.below(pages)).fetch_add(1);
        });
    }
    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < pages; ++i) sum += word(i).load();
    EXPECT_EQ(sum, threads_max * adds);
}

TEST_F(Concurrent, ReadersAgainstADemoterAndAPromoter) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    std::atomic<std::uint64_t> wrong = 0;
    {
        const Demoter demoter(heap_, buffer, pages);
        in_threads(threads_max, [&](std::uint64_t t) {
            for (int round = 0; round < 8; ++round) {
                if (t == 0) wrong += pn_promote(heap_, buffer, pages * page_bytes) == 0 ? 0 : 1;
                wrong += wrong_pages(buffer, pages, Kind::text, 1);
            }
        });
    }
    EXPECT_EQ(wrong, 0u);
}

// A reader of a page that is being released sees the old word or zero, and nothing else.
TEST_F(Concurrent, ReleaseAgainstReaders) {
    open_heap();
    std::uint8_t* const buffer = alloc(pages);
    const auto load = [&](std::uint64_t at) {
        return std::atomic_ref(*reinterpret_cast<std::uint64_t*>(buffer + at))
            .load(std::memory_order_relaxed);
    };
    std::atomic<std::uint64_t> wrong = 0;
    for (std::uint64_t round = 1; round <= 12; ++round) {
        const std::uint64_t word = 0x0101010101010101u * round;
        std::memset(buffer, static_cast<int>(round), pages * page_bytes);
        if (round % 2 == 0) make_far(buffer, pages);
        in_threads(threads_max, [&](std::uint64_t t) {
            if (t == 0) {
                for (std::uint64_t i = 0; i < pages; ++i) {
                    wrong += pn_release(heap_, buffer + i * page_bytes, page_bytes) == 0 ? 0 : 1;
                }
                return;
            }
            for (std::uint64_t i = 0; i < pages; ++i) {
                bool seen_zero = false;
                for (std::uint64_t at = 0; at < page_bytes; at += 256) {
                    const std::uint64_t seen = load(i * page_bytes + t * 8);
                    wrong += seen == 0 || (seen == word && !seen_zero) ? 0 : 1;
                    seen_zero = seen_zero || seen == 0;
                }
            }
        });
        ASSERT_EQ(wrong_pages(buffer, pages, Kind::zeros, 0), 0u) << round;
    }
    EXPECT_EQ(wrong, 0u);
}

TEST_F(Concurrent, ReleaseAgainstADemoter) {
    open_heap();
    std::uint8_t* const buffer = alloc(pages);
    std::uint64_t wrong = 0;
    {
        const Demoter demoter(heap_, buffer, pages);
        for (std::uint64_t round = 1; round <= 20; ++round) {
            fill_pages(buffer, pages, Kind::text, round * 1000);
            ASSERT_EQ(pn_release(heap_, buffer, pages / 2 * page_bytes), 0);
            wrong += wrong_pages(buffer, pages / 2, Kind::zeros, 0);
            wrong +=
                wrong_pages(buffer + pages / 2 * page_bytes, pages / 2, Kind::text, round * 1000 + pages / 2);
        }
    }
    EXPECT_EQ(wrong, 0u);
}

TEST_F(Concurrent, PinsAgainstADemoter) {
    open_heap();
    std::uint8_t* const buffer = alloc_filled(pages, Kind::text, 1);
    std::atomic<std::uint64_t> wrong = 0;
    {
        const Demoter demoter(heap_, buffer, pages);
        in_threads(threads_max, [&](std::uint64_t t) {
            Random random(t);
            for (int i = 0; i < 100; ++i) {
                const std::uint64_t page = random.below(pages);
                std::uint8_t* const at = buffer + page * page_bytes;
                if (pn_pin(heap_, at, page_bytes) != 0) {
                    ++wrong;
                    continue;
                }
                for (int look = 0; look < 4; ++look) {
                    std::uint8_t state = PN_PAGE_POISONED;
                    wrong += pn_query(heap_, at, page_bytes, &state) == 0 ? 0 : 1;
                    // Busy: another thread is pinning it too.
                    wrong += state == PN_PAGE_NEAR || state == PN_PAGE_BUSY ? 0 : 1;
                }
                wrong += page_is(at, Kind::text, 1 + page) ? 0 : 1;
                wrong += pn_unpin(heap_, at, page_bytes) == 0 ? 0 : 1;
            }
        });
    }
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(stats().pinned_bytes, 0u);
    make_far(buffer, pages);
}

TEST_F(Concurrent, BuffersComeAndGoUnderANearLimit) {
    options_.near_bytes_max = mib;
    options_.address_bytes_max = 32 * mib;
    open_heap();
    std::atomic<std::uint64_t> wrong = 0;
    in_threads(threads_max, [&](std::uint64_t t) {
        for (std::uint64_t round = 0; round < 6; ++round) {
            void* buffer = nullptr;
            if (pn_buffer_alloc(heap_, mib, 0, &buffer) != 0) {
                ++wrong;
                continue;
            }
            auto* const first = static_cast<std::uint8_t*>(buffer);
            wrong += wrong_pages(first, pages, Kind::zeros, 0);
            fill_pages(first, mib / page_bytes, Kind::text, t * 100000 + round * 1000);
            wrong += wrong_pages(first, mib / page_bytes, Kind::text, t * 100000 + round * 1000);
            wrong += pn_buffer_free(heap_, buffer, mib) == 0 ? 0 : 1;
        }
    });
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(stats().heap_bytes, 0u);
    EXPECT_LE(stats().near_bytes_peak, mib + overshoot_bytes_max);
}

TEST_F(Concurrent, LimitsMoveWhileThreadsWork) {
    options_.near_bytes_max = 4 * mib;
    open_heap();
    constexpr std::uint64_t many = 2 * mib / page_bytes;
    std::vector<std::uint8_t*> buffers;
    for (std::uint64_t t = 0; t < threads_max; ++t) buffers.push_back(alloc(many));
    std::atomic<std::uint64_t> wrong = 0;
    in_threads(threads_max, [&](std::uint64_t t) {
        for (std::uint64_t round = 0; round < 2; ++round) {
            fill_pages(buffers[t], many, Kind::text, t * 100000 + round);
            wrong += pn_heap_set_near_limit(heap_, (1 + (t + round) % 4) * mib) == 0 ? 0 : 1;
            wrong += wrong_pages(buffers[t], many, Kind::text, t * 100000 + round);
        }
    });
    EXPECT_EQ(wrong, 0u);
}

TEST_F(Concurrent, FiguresAndQueriesWhileThreadsWork) {
    options_.near_bytes_max = mib;
    open_heap();
    constexpr std::uint64_t many = 3 * mib / page_bytes;
    std::uint8_t* const buffer = alloc(many);
    std::atomic<std::uint64_t> wrong = 0;
    in_threads(2, [&](std::uint64_t t) {
        if (t == 0) {
            fill_pages(buffer, many, Kind::text, 1);
            wrong += wrong_pages(buffer, many, Kind::text, 1);
            return;
        }
        std::vector<std::uint8_t> states(many);
        std::vector<char> text(4096);
        std::uint64_t demotions = 0;
        for (int i = 0; i < 200; ++i) {
            const pn_stats_t now = stats();
            wrong += now.demotions >= demotions ? 0 : 1;  // monotonic
            demotions = now.demotions;
            wrong += pn_stats_json(heap_, text.data(), text.size()) == 0 ? 0 : 1;
            wrong += pn_query(heap_, buffer, many * page_bytes, states.data()) == 0 ? 0 : 1;
            for (const std::uint8_t state : states) {
                wrong += state == PN_PAGE_POISONED || state > PN_PAGE_BUSY ? 1 : 0;
            }
        }
    });
    EXPECT_EQ(wrong, 0u);
}

}  // namespace
}  // namespace pnode::test
