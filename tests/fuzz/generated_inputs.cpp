// Drives a fuzz target without libFuzzer: a bounded number of generated inputs, from a seed that is printed
// (PNODE_SEED=N replays). The seed is fixed, so that the test does the same each time; give another, or use
// clang, to search.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

// Random bytes never look like a payload for long, so most inputs repeat short pieces of themselves, as
// compressed and compressible bytes do.
std::vector<std::uint8_t> generate(std::mt19937_64& random) {
    const std::size_t wanted = random() % (random() % 8 == 0 ? 66000 : 2000);
    std::vector<std::uint8_t> bytes;
    while (bytes.size() < wanted) {
        const std::size_t piece = 1 + random() % 40;
        const bool repeat = !bytes.empty() && random() % 2 == 0;
        const std::size_t from = repeat ? random() % bytes.size() : 0;
        for (std::size_t i = 0; i < piece; ++i)
            bytes.push_back(repeat ? bytes[from + i]
                                   : static_cast<std::uint8_t>(random() % 3 == 0 ? random() : 0));
    }
    return bytes;
}

}  // namespace

int main(int argc, char** argv) {
    const char* const seed_text = std::getenv("PNODE_SEED");
    const std::uint64_t seed = seed_text != nullptr ? std::strtoull(seed_text, nullptr, 0) : 1;
    const long inputs = argc > 1 ? std::strtol(argv[1], nullptr, 0) : 20000;
    std::printf("%ld inputs, PNODE_SEED=%llu replays this run\n", inputs,
                static_cast<unsigned long long>(seed));
    std::fflush(stdout);  // before anything aborts
    std::mt19937_64 random(seed);
    for (long i = 0; i < inputs; ++i) {
        const std::vector<std::uint8_t> input = generate(random);
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
}
