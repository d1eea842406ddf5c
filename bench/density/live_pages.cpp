#include "bench/density/live_pages.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "bench/common/interrupt.h"

namespace pnode::bench {
namespace {

constexpr std::size_t page_bytes = 4096;

void add_pages(int memory, std::uint64_t begin, std::uint64_t end, std::string* pages) {
    char page[page_bytes];
    for (std::uint64_t at = begin; at < end; at += page_bytes) {
        throw_if_interrupted();
        if (pread(memory, page, page_bytes, static_cast<off_t>(at)) != static_cast<ssize_t>(page_bytes))
            continue;
        if (std::any_of(page, page + page_bytes, [](char byte) { return byte != 0; }))
            pages->append(page, page_bytes);
    }
}

}  // namespace

std::string live_pages(pid_t process) {
    const std::string folder = "/proc/" + std::to_string(process);
    std::ifstream maps(folder + "/maps");
    const int memory = open((folder + "/mem").c_str(), O_RDONLY | O_CLOEXEC);
    if (!maps || memory < 0)
        throw std::runtime_error("cannot read the memory of process " + std::to_string(process));
    std::string pages;
    for (std::string line; std::getline(maps, line);) {
        std::istringstream fields(line);
        std::uint64_t begin = 0, end = 0;
        char dash = 0;
        std::string permissions, offset, device, inode, path;
        fields >> std::hex >> begin >> dash >> end >> permissions >> offset >> device >> inode >> path;
        if (permissions == "rw-p" && inode == "0" && (path.empty() || path == "[heap]"))
            add_pages(memory, begin, end, &pages);
    }
    close(memory);
    if (pages.empty()) throw std::runtime_error("process " + std::to_string(process) + " has no such memory");
    return pages;
}

}  // namespace pnode::bench
