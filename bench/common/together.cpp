#include "bench/common/together.h"

#include <algorithm>
#include <barrier>
#include <exception>
#include <thread>

namespace pnode::bench {
namespace {

Share share_of(std::size_t count, int thread, int threads) {
    const auto index = static_cast<std::size_t>(thread), parts = static_cast<std::size_t>(threads);
    return {count * index / parts, count * (index + 1) / parts};
}

}  // namespace

Round run_together(std::size_t count, int threads, std::uint64_t operations,
                   const std::function<void(Share, std::vector<std::uint32_t>&)>& work) {
    struct Result {
        std::vector<std::uint32_t> latencies;
        std::uint64_t begin = 0, end = 0;
        std::exception_ptr failure;
    };
    std::vector<Result> results(static_cast<std::size_t>(threads));
    std::barrier start(threads);
    auto body = [&](int thread) {
        Result& result = results[static_cast<std::size_t>(thread)];
        const Share share = share_of(count, thread, threads);
        // Touched here: growing it between two readings of the clock would be measured.
        result.latencies.assign(share.end - share.begin, 0);
        result.latencies.clear();
        start.arrive_and_wait();
        result.begin = now_ns();
        try {
            work(share, result.latencies);
        } catch (...) {
            result.failure = std::current_exception();
        }
        result.end = now_ns();
    };
    std::vector<std::jthread> others;
    for (int thread = 1; thread < threads; ++thread) others.emplace_back(body, thread);
    body(0);
    others.clear();  // joins
    std::vector<std::uint32_t> all;
    std::uint64_t begin = UINT64_MAX, end = 0;
    for (Result& result : results) {
        if (result.failure) std::rethrow_exception(result.failure);
        all.insert(all.end(), result.latencies.begin(), result.latencies.end());
        begin = std::min(begin, result.begin);
        end = std::max(end, result.end);
    }
    return summarize(all, operations, end - begin);
}

std::uint32_t clamp_ns(std::uint64_t ns) {
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(ns, UINT32_MAX));
}

}  // namespace pnode::bench
