// Drives a fuzz target without libFuzzer: a bounded number of generated inputs, from a seed that is printed
// (PNODE_SEED=N replays). The seed is fixed, so that the test does the same each time; give another, or use
// clang, to search. An input that ends the process is left in a file, which is named and can be given instead
// of a number; so can a directory, whose inputs come first, and are varied.
//
//     NAME_fuzz [DIRECTORY] [COUNT] | FILE...
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <set>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;

// ---- the input at hand, for whoever wants to see the end again ----

const Bytes* at_hand = nullptr;
char crash_path[64];

void leave_input(int signal) {
    const int fd = ::open(crash_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (at_hand != nullptr && fd >= 0) {
        [[maybe_unused]] const ssize_t written = ::write(fd, at_hand->data(), at_hand->size());
        ::dprintf(STDERR_FILENO, "the input that ended this run is in %s, and can be given by that name\n",
                  crash_path);
    }
    ::signal(signal, SIG_DFL);
    ::raise(signal);
}

void leave_input_at_end() {
    std::snprintf(crash_path, sizeof crash_path, "fuzz-input-%d", static_cast<int>(::getpid()));
    for (const int signal : {SIGABRT, SIGSEGV, SIGFPE, SIGILL}) ::signal(signal, leave_input);
}

void run(const Bytes& input) {
    at_hand = &input;
    LLVMFuzzerTestOneInput(input.data(), input.size());
    at_hand = nullptr;
}

Bytes read_file(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// In one order everywhere.
std::vector<Bytes> read_directory(const std::filesystem::path& path) {
    std::set<std::filesystem::path> paths;
    for (const auto& entry : std::filesystem::directory_iterator(path)) paths.insert(entry.path());
    std::vector<Bytes> inputs;
    for (const std::filesystem::path& each : paths) inputs.push_back(read_file(each));
    return inputs;
}

// ---- inputs ----

// Random bytes never look like a payload for long, so most inputs repeat short pieces of themselves, as
// compressed and compressible bytes do.
Bytes generate(std::mt19937_64& random) {
    const std::size_t wanted = random() % (random() % 8 == 0 ? 66000 : 2000);
    Bytes bytes;
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

// A few bytes of a seed changed, left out or put in; or the middle of another put after its beginning.
Bytes vary(const std::vector<Bytes>& seeds, std::mt19937_64& random) {
    Bytes bytes = seeds[random() % seeds.size()];
    const Bytes& other = seeds[random() % seeds.size()];
    for (std::uint64_t changes = 1 + random() % 4; changes != 0; --changes) {
        const std::size_t at = bytes.empty() ? 0 : random() % bytes.size();
        switch (random() % 4) {
            case 0:
                if (!bytes.empty()) bytes[at] = static_cast<std::uint8_t>(random());
                break;
            case 1:
                bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                             static_cast<std::uint8_t>(random()));
                break;
            case 2:
                if (!bytes.empty()) bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at));
                break;
            default:
                bytes.resize(at);
                if (!other.empty())
                    bytes.insert(bytes.end(),
                                 other.begin() + static_cast<std::ptrdiff_t>(random() % other.size()),
                                 other.end());
        }
    }
    return bytes;
}

void run_generated(const std::vector<Bytes>& seeds, long inputs) {
    const char* const seed_text = std::getenv("PNODE_SEED");
    const std::uint64_t seed = seed_text != nullptr ? std::strtoull(seed_text, nullptr, 0) : 1;
    std::printf("%ld inputs, PNODE_SEED=%llu replays this run\n", inputs,
                static_cast<unsigned long long>(seed));
    std::fflush(stdout);  // before anything aborts
    std::mt19937_64 random(seed);
    for (const Bytes& input : seeds) run(input);
    for (long i = 0; i < inputs; ++i)
        run(!seeds.empty() && random() % 2 == 0 ? vary(seeds, random) : generate(random));
}

}  // namespace

int main(int argc, char** argv) {
    leave_input_at_end();
    long inputs = 20000;
    bool replays = false;
    std::vector<Bytes> seeds;
    for (int at = 1; at < argc; ++at) {
        if (std::filesystem::is_directory(argv[at])) {
            seeds = read_directory(argv[at]);
        } else if (std::filesystem::exists(argv[at])) {
            replays = true;
            run(read_file(argv[at]));
        } else {
            inputs = std::strtol(argv[at], nullptr, 0);
        }
    }
    if (!replays) run_generated(seeds, inputs);
}
