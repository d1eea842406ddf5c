#include "bench/common/zram_swap.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/swap.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <stdexcept>

namespace pnode::bench {
namespace {

constexpr std::size_t page_bytes = 4096;

std::string error_text() {
    return strerror(errno);
}

bool machine_swaps() {
    std::ifstream swaps("/proc/swaps");
    std::string line;
    int lines = 0;
    while (std::getline(swaps, line)) ++lines;
    return lines > 1;  // the first is the heading
}

// What mkswap writes: version 1, the last page's number, and the magic at the end of the first page.
void write_swap_header(const std::string& device, std::uint64_t disk_bytes) {
    constexpr std::size_t version_at = 1024, magic_at = page_bytes - 10;
    std::array<char, page_bytes> header = {};
    const std::uint32_t words[2] = {1, static_cast<std::uint32_t>(disk_bytes / page_bytes - 1)};
    memcpy(&header[version_at], words, sizeof words);
    memcpy(&header[magic_at], "SWAPSPACE2", 10);
    int file = open(device.c_str(), O_WRONLY | O_CLOEXEC);
    bool written = file >= 0 &&
                   write(file, header.data(), header.size()) == static_cast<ssize_t>(header.size()) &&
                   fsync(file) == 0;
    std::string problem = error_text();
    if (file >= 0) close(file);
    if (!written) throw std::runtime_error("cannot write a swap header to " + device + ": " + problem);
}

}  // namespace

std::string ZramSwap::why_unavailable() {
    if (machine_swaps()) return "this machine already swaps and is left alone";
    return ZramDevice::why_unavailable();
}

ZramSwap::ZramSwap(std::uint64_t disk_bytes, const std::string& algorithm) : device_(disk_bytes, algorithm) {
    if (std::string reason = why_unavailable(); !reason.empty()) throw std::runtime_error(reason);
    write_swap_header(device(), device_.disk_bytes());
    if (swapon(device().c_str(), 0) != 0)
        throw std::runtime_error("swapon " + device() + ": " + error_text());
}

}  // namespace pnode::bench
