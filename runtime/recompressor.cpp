// When the recompressor works, and when it rests.

#include "runtime/recompressor.h"

#include <sys/mman.h>

#include <algorithm>

#include "runtime/heap.h"
#include "runtime/os/runtime_scope.h"

namespace pnode {
namespace {

std::size_t in_pages(std::size_t bytes) noexcept {
    return (bytes + page_bytes - 1) / page_bytes * page_bytes;
}

}  // namespace

// A forked child's far pages are its parent's, and it is short of life as a rule.
bool Recompressor::is_wanted(const Heap& heap) noexcept {
    return heap.far.codec().recompress_level != 0 && heap.far.own_store() == 0;
}

int Recompressor::start(Heap& heap) noexcept {
    if (!is_wanted(heap)) return 0;
    const compress::CodecChoice& codec = heap.far.codec();
    compress::CodecChoice stronger = compress::recompression_of(codec);
    stronger.recompress_level = stronger.level;  // there will be a dictionary
    const std::size_t encode_bytes = in_pages(compress::encode_scratch_bytes(stronger));
    const std::size_t decode_bytes = in_pages(compress::decode_scratch_bytes_max());
    const std::size_t contents_bytes = codec.block_pages > 1 ? compress::block_bytes_max : page_bytes;
    const std::size_t blob_bytes = contents_bytes + page_bytes;
    if (const int error = memory_.map(2 * (blob_bytes + contents_bytes) + encode_bytes + decode_bytes))
        return error;
    ::madvise(memory_.address(), memory_.bytes(), MADV_DONTFORK);
    std::byte* at = memory_.address();
    for (auto [part, bytes] :
         {std::pair(&copy_, blob_bytes), std::pair(&blob_, blob_bytes), std::pair(&pages_, contents_bytes),
          std::pair(&room_.bytes, contents_bytes), std::pair(&encode_scratch_, encode_bytes),
          std::pair(&room_.scratch, decode_bytes)}) {
        *part = {at, bytes};
        at += bytes;
    }
    return thread_.start(&main, &heap);
}

void Recompressor::stop() noexcept {
    wake();
    thread_.join();
}

void Recompressor::forget() noexcept {
    thread_.forget();
    memory_.forget();
    rest_.store(not_at_all, std::memory_order_relaxed);
    phase_ = Phase::between;
    untrainable_pages_ = 0;
    room_.block = cxl::no_blob;
}

void Recompressor::wake() noexcept {
    if (rest_.exchange(not_at_all) != not_at_all) os::futex_wake_all(rest_);
}

void* Recompressor::main(void* argument) noexcept {
    Heap& heap = *static_cast<Heap*>(argument);
    Recompressor& self = heap.recompressor;
    const os::RuntimeScope scope;  // training allocates
    while (!heap.stop.load()) {
        const std::uint64_t before_ns = os::thread_cpu_ns();
        // Before the look, so that what goes far after it wakes us.
        self.rest_.store(until_something_is_far);
        const Next next = self.step(heap);
        const std::uint64_t cpu_ns = os::thread_cpu_ns() - before_ns;
        heap.statistics.recompression_cpu_ns.add(cpu_ns);
        self.rest(heap, next, cpu_ns);
    }
    return nullptr;
}

// What was taken is paid back in rest: a hundredth of the time is worked at 1 %.
void Recompressor::rest(Heap& heap, Next next, std::uint64_t cpu_ns) noexcept {
    const std::uint64_t soon_ns = heap.config.stress ? 5'000'000 : 250'000'000;
    const unsigned pct = heap.far.codec().recompress_cpu_pct;
    const std::uint64_t owed_ns = cpu_ns * (100 - pct) / pct;
    if (next == Next::when_something_is_far) wait(heap, until_something_is_far, 0);
    const std::uint64_t wait_ns = next == Next::soon ? std::max(owed_ns, soon_ns) : owed_ns;
    const std::uint64_t end_ns = os::now_ns() + wait_ns;
    for (std::uint64_t now = os::now_ns(); now < end_ns && !heap.stop.load(); now = os::now_ns())
        wait(heap, for_a_while, end_ns - now);
}

// `wait_ns` 0: for ever. Whoever stops us sets heap.stop before it changes the word we sleep on: we see the
// one or the other.
void Recompressor::wait(Heap& heap, std::uint32_t why, std::uint64_t wait_ns) noexcept {
    if (why == for_a_while) rest_.store(why);
    if (heap.stop.load()) return;
    os::futex_wait(rest_, why, wait_ns);
}

}  // namespace pnode
