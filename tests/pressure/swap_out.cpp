#include "tests/pressure/swap_out.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace pnode::test {
namespace {

std::vector<iovec> writable_ranges(pid_t process, std::mt19937& random) {
    constexpr std::size_t least_bytes = 64 << 10;
    std::ifstream maps("/proc/" + std::to_string(process) + "/maps");
    std::vector<iovec> ranges;
    for (std::string line; std::getline(maps, line);) {
        std::uintptr_t first = 0, end = 0;
        char dash = 0;
        std::string protection;
        std::istringstream(line) >> std::hex >> first >> dash >> end >> protection;
        if (protection == "rw-p" && end - first >= least_bytes)
            ranges.push_back({reinterpret_cast<void*>(first), end - first});
    }
    std::shuffle(ranges.begin(), ranges.end(), random);
    return ranges;
}

}  // namespace

void swap_out(pid_t process, std::mt19937& random) {
    const auto descriptor = static_cast<int>(syscall(SYS_pidfd_open, process, 0));
    if (descriptor < 0) return;
    for (const iovec& range : writable_ranges(process, random))
        syscall(SYS_process_madvise, descriptor, &range, 1UL, MADV_PAGEOUT, 0);
    close(descriptor);
}

std::uint64_t swapped_kib(pid_t process) {
    std::ifstream status("/proc/" + std::to_string(process) + "/status");
    std::uint64_t kib = 0;
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("VmSwap:")) std::istringstream(line.substr(7)) >> kib;
    }
    return kib;
}

}  // namespace pnode::test
