// Any bytes as a sequence of calls on a heap (allocate, free, write, read, demote, promote, pin, unpin,
// query, a new near limit, a fork whose child checks its snapshot), against the shadow copy of
// tests/runtime/model.h: page table, blob store, eviction and faults together.
//
// The heap is one, for it takes longer to open than a sequence does; each sequence gives everything back, and
// leaves a sound heap. PNODE_TEST_ENGINE=inline has the inline engine serve.
#include "tests/fuzz/fuzz_input.h"
#include "tests/runtime/model.h"

namespace pnode::fuzz {
namespace {

pn_heap* open_heap() {
    const char* const engine = std::getenv("PNODE_TEST_ENGINE");
    pn_heap_options options;
    pn_heap_options_init(&options);
    options.address_bytes_max = test::gib;
    options.activation_bytes = 0;
    options.near_bytes_max = 2 * test::mib;
    options.node_spec = "memory:64M";
    options.engine =
        engine != nullptr && std::string_view(engine) == "inline" ? PN_ENGINE_INLINE : PN_ENGINE_THREAD;
    pn_heap* heap = nullptr;
    if (pn_heap_open(&options, &heap) != 0) require(false, pn_last_message());
    return heap;
}

void check(const std::string& wrong) {
    require(wrong.empty(), wrong.c_str());
}

}  // namespace
}  // namespace pnode::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace pnode;
    static pn_heap* const heap = fuzz::open_heap();
    constexpr std::uint64_t operations_max = 200;
    test::ModelOf<fuzz::Input> model(heap, {.pages_max = 1024, .forks = true, .moves_limit = true},
                                     fuzz::Input(data, size));
    for (std::uint64_t done = 0; !model.choices().is_empty() && done < operations_max; ++done)
        fuzz::check(model.step());
    fuzz::check(model.finish());
    const char* const unsound = pn_heap_validate(heap);
    fuzz::require(unsound == nullptr, unsound);
    return 0;
}
