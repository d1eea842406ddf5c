#include "tests/preload/kernel/tools.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace kernel_access {
namespace {

struct Folder {
    std::string path = testing::TempDir() + "pnode_kernel_access_XXXXXX";
    pid_t owner = getpid();
    Folder() {
        if (mkdtemp(path.data()) == nullptr) std::abort();
    }
    ~Folder() {
        std::error_code ignored;
        if (getpid() == owner) std::filesystem::remove_all(path, ignored);
    }
};

std::string told_of_thread(int thread_id, const char* what) {
    std::ifstream file("/proc/self/task/" + std::to_string(thread_id) + "/" + what);
    std::string line;
    std::getline(file, line);
    return line;
}

// 'S' when it sleeps; '?' when it is gone.
char state_of_thread(int thread_id) {
    const std::string line = told_of_thread(thread_id, "stat");
    const std::size_t at = line.rfind(") ");
    return at == std::string::npos ? '?' : line[at + 2];
}

// Or for a far page: in a fault of its own there is no system call, and in one of the kernel's it waits
// there.
bool waits_for_a_page(int thread_id) {
    return told_of_thread(thread_id, "syscall").starts_with("-1 ") ||
           told_of_thread(thread_id, "wchan").find("userfault") != std::string::npos;
}

}  // namespace

const std::string& scratch_folder() {
    static const Folder folder;
    return folder.path;
}

Fd text_file(std::size_t bytes, unsigned seed) {
    Fd file = scratch_file();
    std::string text(bytes, '\0');
    fill_with_text(text.data(), bytes, seed);
    if (pwrite(file, text.data(), bytes, 0) != static_cast<ssize_t>(bytes)) std::abort();
    return file;
}

// Seen asleep several times in a row: a short wait, for a lock or a page, passes.
void wait_until_asleep(const std::atomic<int>& thread_id) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    for (int seen = 0; seen < 5; std::this_thread::sleep_for(std::chrono::microseconds(200))) {
        const char state = thread_id == 0 ? 'R' : state_of_thread(thread_id);
        seen = state == 'S' && !waits_for_a_page(thread_id) ? seen + 1 : 0;
        if (state == '?' || std::chrono::steady_clock::now() > deadline) return;
    }
}

}  // namespace kernel_access
