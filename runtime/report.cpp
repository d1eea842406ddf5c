#include <unistd.h>

#include <cstdarg>
#include <cstdio>

#include "runtime/heap.h"

namespace pnode {

void report(const char* format, ...) noexcept {
    char line[512] = "pnode: ";
    constexpr std::size_t prefix = 7;
    va_list arguments;
    va_start(arguments, format);
    int length = std::vsnprintf(line + prefix, sizeof line - prefix - 1, format, arguments);
    va_end(arguments);
    if (length < 0) return;
    std::size_t total = prefix + static_cast<std::size_t>(length);
    if (total > sizeof line - 2) total = sizeof line - 2;
    line[total++] = '\n';
    // One write: lines of several threads do not mix. Nobody can be told if standard error is closed.
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line, total);
}

}  // namespace pnode
