#include "preload/statistics.h"

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

constexpr std::size_t json_bytes_max = 4096;      // pn_stats_json() says so
constexpr std::size_t path_bytes_max = 1024 + 1;  // one more than is taken: what was cut is refused

constinit char file[path_bytes_max] = {};
constinit pn_heap* told_heap = nullptr;
constinit pid_t owner = 0;
constinit int standard_error = -1;  // for "-": a copy, because many programs close theirs on their way out

const char* number_in_name() noexcept {
    return std::strstr(settings().stats_file, "%p");
}

void name_file() noexcept {
    const char* const pattern = settings().stats_file;
    if (const char* const number = number_in_name()) {
        std::snprintf(file, sizeof(file), "%.*s%d%s", static_cast<int>(number - pattern), pattern, owner,
                      number + 2);
    } else {
        std::snprintf(file, sizeof(file), "%s", pattern);
    }
}

void write_now_and_then() noexcept {
    if (settings().stats_every_ms != 0)
        pn_stats_file(told_heap, file, settings().stats_every_ms);  // what fails is told at exit
}

bool goes_to_standard_error() noexcept {
    return std::strcmp(settings().stats_file, "-") == 0;
}

void write_all(int fd, const char* text, std::size_t bytes) noexcept {
    while (bytes != 0) {
        const ssize_t written = write(fd, text, bytes);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return;  // nobody is left to be told
        text += written;
        bytes -= static_cast<std::size_t>(written);
    }
}

void write_to_standard_error() noexcept {
    char text[json_bytes_max];
    if (pn_stats_json(told_heap, text, sizeof(text)) == 0) write_all(standard_error, text, std::strlen(text));
}

// After the program's own destructors: what they freed is told too. A forked child has no file, unless each
// process has one of its own: it would write over its parent's.
[[gnu::destructor]] void at_exit() noexcept {
    if (told_heap == nullptr || *settings().stats_file == '\0' || getpid() != owner) return;
    const InsideRuntime inside;
    if (goes_to_standard_error()) {
        write_to_standard_error();
    } else if (pn_stats_file(told_heap, file, 0) != 0) {
        say("the statistics file cannot be written (PNODE_STATS)");
    }
}

}  // namespace

void statistics_write_at_exit(pn_heap* heap) noexcept {
    told_heap = heap;
    owner = getpid();
    if (goes_to_standard_error()) {
        standard_error = os::raise_descriptor(dup(STDERR_FILENO));
    } else if (*settings().stats_file != '\0') {
        name_file();
        write_now_and_then();
    }
}

void statistics_after_fork_in_child() noexcept {
    if (told_heap == nullptr || number_in_name() == nullptr) return;
    owner = getpid();
    name_file();
    write_now_and_then();
}

}  // namespace pnode::preload
