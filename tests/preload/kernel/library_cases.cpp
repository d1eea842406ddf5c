// Calls of libc that make system calls of their own, past every name that could be taken.
#include <dirent.h>
#include <dlfcn.h>
#include <glob.h>
#include <grp.h>
#include <netdb.h>
#include <pty.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>

#include <algorithm>
#include <fstream>

#include "tests/preload/kernel/tools.h"

namespace kernel_access {
namespace {

class Stream {
  public:
    explicit Stream(FILE* stream) : stream_(stream) {}
    ~Stream() {
        if (stream_ != nullptr) fclose(stream_);
    }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    operator FILE*() const { return stream_; }

  private:
    FILE* stream_;
};

Stream stream_over(const Fd& file, const char* mode) {
    return Stream(fdopen(dup(file), mode));
}

// Large reads go straight to the caller's memory, small ones through the stream's own, which is far too.
void stream_case(Memory& memory, Outcome& outcome) {
    const std::size_t bytes = memory.data_bytes();
    const Fd file = scratch_file();
    auto* const buffer = reinterpret_cast<char*>(memory.room(4096));
    const std::byte* const from = memory.data(3);
    std::byte* const to = memory.room(bytes);
    {
        const Stream stream = stream_over(file, "w");
        setvbuf(stream, buffer, _IOFBF, 4096);
        memory.away();
        outcome.note("fwrite", static_cast<long>(fwrite(from, 1, bytes, stream)));
        memory.away();
        outcome.note("fflush", fflush(stream));
    }
    lseek(file, 0, SEEK_SET);
    {
        const Stream stream = stream_over(file, "r");
        setvbuf(stream, buffer, _IOFBF, 4096);
        memory.away();
        outcome.note("fread", static_cast<long>(fread(to, 1, bytes, stream)));
        memory.away();
        outcome.note("fgetc", fgetc(stream));
        outcome.note("error", ferror(stream));
    }
    outcome.check("arrived", std::memcmp(from, to, bytes) == 0);
}

void lines_case(Memory& memory, Outcome& outcome) {
    const Fd file = scratch_file();
    std::string text(20000, 'l');
    for (const std::size_t at : {10U, 5000U, 19999U}) text[at] = '\n';
    outcome.ok("pwrite", pwrite(file, text.data(), text.size(), 0));
    auto* const buffer = reinterpret_cast<char*>(memory.room(8192));
    auto* const line = reinterpret_cast<char*>(memory.room(20000));
    const Stream stream = stream_over(file, "r");
    setvbuf(stream, buffer, _IOFBF, 8192);
    memory.away();
    outcome.check("fgets", fgets(line, 20000, stream) == line);
    char* grown = nullptr;
    std::size_t room = 0;
    for (int i = 0; i < 3; ++i) {
        memory.away();
        outcome.note("getline", getline(&grown, &room, stream));
    }
    std::free(grown);
}

void formatted_case(Memory& memory, Outcome& outcome) {
    const Fd file = scratch_file();
    const char* const path = memory.text("/proc/self/fd/" + std::to_string(file));
    const char* const mode = memory.text("w");
    const char* const format = memory.text("%s and %d\n");
    const char* const word = memory.text("word");
    memory.away();
    {
        const Stream stream(fopen(path, mode));
        outcome.check("fopen", stream != nullptr);
        memory.away();
        outcome.note("fprintf", fprintf(stream, format, word, 7));
    }
    memory.away();
    outcome.note("dprintf", dprintf(file, format, word, 8));
    memory.forget(path);
    int number = 0;
    const Stream stream = stream_over(file, "r");
    rewind(stream);
    auto* const read_word = reinterpret_cast<char*>(memory.room(100));
    memory.away();
    outcome.note("fscanf", fscanf(stream, "%99s and %d", read_word, &number));
    outcome.note("number", number);
}

void commands_case(Memory& memory, Outcome& outcome) {
    const char* const command = memory.text("exit 3");
    memory.away();
    outcome.note("system", system(command));
    const char* const printing = memory.text("printf abc");
    const char* const mode = memory.text("r");
    memory.away();
    FILE* const stream = popen(printing, mode);
    outcome.check("popen", stream != nullptr);
    auto* const text = reinterpret_cast<char*>(memory.room(100));
    memory.away();
    outcome.note("fread", static_cast<long>(fread(text, 1, 100, stream)));
    outcome.note("pclose", pclose(stream));
}

void names_case(Memory& memory, Outcome& outcome) {
    const char* const user = memory.text("root");
    auto* const entry = memory.put<passwd>();
    auto* const group = memory.put<struct group>();
    auto* const buffer = reinterpret_cast<char*>(memory.room(4096));
    auto** const found = memory.put<passwd*>(nullptr);
    memory.away();
    outcome.note("getpwnam_r", getpwnam_r(user, entry, buffer, 4096, found));
    outcome.check("found", *found == entry);
    outcome.note("user", entry->pw_uid);
    struct group* found_group = nullptr;
    memory.away();
    outcome.note("getgrnam_r", getgrnam_r(user, group, buffer, 4096, &found_group));
    for (const void* object :
         {static_cast<void*>(entry), static_cast<void*>(group), static_cast<void*>(found)})
        memory.forget(object);
}

void addresses_case(Memory& memory, Outcome& outcome) {
    const char* const host = memory.text("127.0.0.1");
    const char* const port = memory.text("6379");
    auto* const hints = memory.put<addrinfo>();
    hints->ai_family = AF_INET;
    hints->ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    memory.away();
    outcome.note("getaddrinfo", getaddrinfo(host, port, hints, &found));
    auto* const name = reinterpret_cast<char*>(memory.room(100));
    auto* const service = reinterpret_cast<char*>(memory.room(100));
    memory.away();
    outcome.note("getnameinfo", getnameinfo(found->ai_addr, found->ai_addrlen, name, 100, service, 100,
                                            NI_NUMERICHOST | NI_NUMERICSERV));
    freeaddrinfo(found);
    const char* const local = memory.text("localhost");
    memory.away();
    outcome.note("localhost", getaddrinfo(local, port, hints, &found) == 0 ? (freeaddrinfo(found), 0) : 1);
    auto* const own_name = reinterpret_cast<char*>(memory.room(300));
    memory.away();
    outcome.ok("gethostname", gethostname(own_name, 300));
}

void paths_case(Memory& memory, Outcome& outcome) {
    const char* const path = memory.text("/proc/./self/..");
    auto* const resolved = reinterpret_cast<char*>(memory.room(4096));
    memory.away();
    outcome.check("realpath", realpath(path, resolved) == resolved);
    const std::string folder = scratch_folder() + "/entries";
    outcome.ok("mkdir", mkdir(folder.c_str(), 0755));
    for (const char* const name : {"/one", "/two", "/three"}) std::ofstream(folder + name) << "text";
    const char* const far_folder = memory.text(folder);
    memory.away();
    DIR* const open_folder = opendir(far_folder);
    int entries = 0;
    while (readdir(open_folder) != nullptr) ++entries;
    closedir(open_folder);
    outcome.note("entries", entries);
    const char* const pattern = memory.text(folder + "/t*");
    auto* const matches = memory.put<glob_t>();
    memory.away();
    outcome.note("glob", glob(pattern, 0, nullptr, matches));
    outcome.note("matches", static_cast<long>(matches->gl_pathc));
    globfree(matches);
    memory.forget(matches);
    char* const name = memory.text(folder + "/XXXXXX");
    memory.away();
    outcome.check("mkstemp", Fd(mkstemp(name)) >= 0);
    memory.away();
    outcome.ok("remove", remove(name));
    memory.forget(name);
    for (const char* const entry : {"/one", "/two", "/three", ""}) remove((folder + entry).c_str());
}

void terminal_case(Memory& memory, Outcome& outcome) {
    auto* const ends = memory.put_all<int, 2>({-1, -1});
    auto* const size = memory.put<winsize>({11, 22, 0, 0});
    memory.away();
    if (outcome.note("openpty", openpty(ends, ends + 1, nullptr, nullptr, size)) == -1) return;
    const Fd master(ends[0]);
    const Fd slave(ends[1]);
    memory.forget(ends);
    auto* const settings = memory.put<termios>();
    memory.away();
    outcome.ok("tcgetattr", tcgetattr(slave, settings));
    cfmakeraw(settings);
    memory.away();
    outcome.ok("tcsetattr", tcsetattr(slave, TCSANOW, settings));
    memory.away();
    outcome.ok("TIOCGWINSZ", ioctl(slave, TIOCGWINSZ, size));
    const std::size_t bytes = std::min<std::size_t>(memory.data_bytes(), 1000);
    const std::byte* const from = memory.data(3, bytes);
    std::byte* const to = memory.room(bytes);
    memory.away();
    outcome.ok("write", write(slave, from, bytes));
    memory.away();
    outcome.ok("read", read(master, to, bytes));
}

void dlopen_case(Memory& memory, Outcome& outcome) {
    const char* const name = memory.text("libz-is-not-there.so");
    memory.away();
    outcome.check("dlopen", dlopen(name, RTLD_NOW) == nullptr);
    const char* const there = memory.text("libm.so.6");
    const char* const symbol = memory.text("cos");
    memory.away();
    void* const library = dlopen(there, RTLD_NOW);
    outcome.check("dlopen", library != nullptr);
    memory.away();
    outcome.check("dlsym", dlsym(library, symbol) != nullptr);
    dlclose(library);
}

constexpr Case cases[] = {
    {"LibcStreams", Access::synchronous, stream_case},
    {"LibcLines", Access::synchronous, lines_case, false},
    {"LibcFormatted", Access::synchronous, formatted_case, false},
    {"LibcCommands", Access::synchronous, commands_case, false},
    {"LibcUserNames", Access::synchronous, names_case, false},
    {"LibcHostNames", Access::synchronous, addresses_case, false},
    {"LibcPaths", Access::synchronous, paths_case, false},
    {"LibcTerminals", Access::synchronous, terminal_case, false},
    {"LibcLibraries", Access::synchronous, dlopen_case, false},
};

}  // namespace

std::span<const Case> library_cases() {
    return cases;
}

}  // namespace kernel_access
