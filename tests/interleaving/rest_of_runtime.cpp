// What the explored verbs need of the runtime besides, where the machine has none of it: no handler threads,
// no recompressor, no evictor but the actors, one heap, no fork.
#include "tests/interleaving/machine.h"

namespace pnode {

void* evictor_main(void*) noexcept {
    return nullptr;
}

int FaultThreads::start(Heap&, int, unsigned) noexcept {
    return 0;
}
void FaultThreads::stop() noexcept {}

int Recompressor::start(Heap&) noexcept {
    return 0;
}
void Recompressor::stop() noexcept {}
void Recompressor::wake() noexcept {}

int EngineChange::descriptor_of(const Heap& heap, std::uint64_t) const noexcept {
    return heap.uffd.fd;
}

int install_inline_engine() noexcept {
    return 0;
}

namespace {
Heap* only_heap = nullptr;
}

void register_heap(Heap& heap) noexcept {
    only_heap = &heap;
    Hold::widen(reinterpret_cast<std::uint64_t>(heap.base), heap.page_count * page_bytes);
}
void forget_heap(Heap&) noexcept {
    only_heap = nullptr;
}
Heap* heap_at(std::uint64_t address) noexcept {
    return only_heap != nullptr && only_heap->contains(address) ? only_heap : nullptr;
}

bool is_forking_here() noexcept {
    return false;
}
bool is_child_to_be() noexcept {
    return false;
}

void report(const char*, ...) noexcept {}

}  // namespace pnode
