// A library that a test opens and closes: memory that changes hands across its border, a thread-local of its
// own, and a constructor and a destructor that allocate.
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

thread_local std::string said;

// Made when the library is opened; looked at, and more allocated, when it is closed.
struct Kept {
    Kept() : lines(2000) {
        for (std::size_t i = 0; i < lines.size(); ++i) lines[i] = std::string(i % 300, 'k');
    }
    ~Kept() {
        lines.push_back(std::string(5000, 'k'));
        if (!is_right()) std::abort();
    }
    bool is_right() const {
        for (std::size_t i = 0; i < 2000; ++i) {
            if (lines[i] != std::string(i % 300, 'k')) return false;
        }
        return true;
    }
    std::vector<std::string> lines;
};
Kept kept;

}  // namespace

extern "C" {

[[gnu::visibility("default")]] char* plugin_copy(const char* text) {
    said = text;
    char* copy = static_cast<char*>(std::malloc(said.size() + 1));
    if (copy != nullptr) std::memcpy(copy, said.c_str(), said.size() + 1);
    return copy;
}

[[gnu::visibility("default")]] bool plugin_kept_its_bytes() {
    return kept.is_right();
}

[[gnu::visibility("default")]] void plugin_take(char* text) {
    std::free(text);
}
}
