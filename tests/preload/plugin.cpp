// A library that a test opens and closes: memory that changes hands across its border, and a thread-local of
// its own.
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

thread_local std::string said;

}  // namespace

extern "C" {

[[gnu::visibility("default")]] char* plugin_copy(const char* text) {
    said = text;
    char* copy = static_cast<char*>(std::malloc(said.size() + 1));
    if (copy != nullptr) std::memcpy(copy, said.c_str(), said.size() + 1);
    return copy;
}

[[gnu::visibility("default")]] void plugin_take(char* text) {
    std::free(text);
}
}
