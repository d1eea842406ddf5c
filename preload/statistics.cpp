#include "preload/statistics.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "preload/say.h"
#include "preload/settings.h"
#include "preload/thread_state.h"
#include "runtime/os/descriptors.h"

namespace pnode::preload {
namespace {

constexpr std::size_t json_bytes_max = 4096;  // pn_stats_json() says so
constexpr std::size_t path_bytes_max = 4096;

constinit pn_heap* told_heap = nullptr;
constinit pid_t owner = 0;
constinit int standard_error = -1;  // for "-": a copy, because many programs close theirs on their way out

bool write_all(int fd, const char* text, std::size_t bytes) noexcept {
    while (bytes != 0) {
        const ssize_t written = write(fd, text, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return false;
        text += written;
        bytes -= static_cast<std::size_t>(written);
    }
    return true;
}

// Whoever reads the file meanwhile sees the old text or the new one, never half of one.
bool replace_file(const char* path, const char* text, std::size_t bytes) noexcept {
    char temporary[path_bytes_max];
    const int length = std::snprintf(temporary, sizeof(temporary), "%s.%d", path, static_cast<int>(owner));
    if (length < 0 || static_cast<std::size_t>(length) >= sizeof(temporary)) return false;
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return false;
    const bool written = write_all(fd, text, bytes);
    close(fd);
    if (written && std::rename(temporary, path) == 0) return true;
    unlink(temporary);
    return false;
}

void write_statistics() noexcept {
    char text[json_bytes_max + 1];
    if (pn_stats_json(told_heap, text, json_bytes_max) != 0) return;
    std::size_t bytes = std::strlen(text);
    if (bytes == 0 || text[bytes - 1] != '\n') text[bytes++] = '\n';
    const char* path = settings().stats_file;
    if (std::strcmp(path, "-") == 0) {
        write_all(standard_error, text, bytes);
    } else if (!replace_file(path, text, bytes)) {
        say("the statistics file cannot be written (PNODE_STATS)");
    }
}

// After the program's own destructors: what they freed is told too. A forked child has the parent's heap as it was, and
// would tell the parent's past as its own, over the parent's file.
[[gnu::destructor]] void at_exit() noexcept {
    if (told_heap == nullptr || *settings().stats_file == '\0' || getpid() != owner) return;
    const InsideRuntime inside;
    write_statistics();
}

}  // namespace

void statistics_write_at_exit(pn_heap* heap) noexcept {
    told_heap = heap;
    owner = getpid();
    if (std::strcmp(settings().stats_file, "-") == 0) standard_error = os::raise_descriptor(dup(STDERR_FILENO));
}

}  // namespace pnode::preload
