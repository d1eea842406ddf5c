#include "bench/codec/process_memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>

#include "bench/common/interrupt.h"

namespace pnode::bench {
namespace {

constexpr std::size_t page_bytes = 4096;
constexpr std::size_t stretch_pages = 16;  // together, so that blocks of 64 KiB are blocks of the process

struct Range {
    std::uint64_t begin, end;
};

[[noreturn]] void fail(pid_t process, const std::string& what, int error) {
    std::string cure;
    if (error == ENOENT || error == ESRCH) cure = ": there is no such process";
    if (error == EACCES || error == EPERM)
        cure = ": run as its user or root; with kernel.yama.ptrace_scope above 0, as root";
    throw std::runtime_error("process " + std::to_string(process) + ": " + what + ": " + strerror(error) +
                             cure);
}

class File {
  public:
    File(pid_t process, const char* name)
        : file_(open(("/proc/" + std::to_string(process) + "/" + name).c_str(), O_RDONLY | O_CLOEXEC)) {
        if (file_ < 0) fail(process, name, errno);
    }
    ~File() { close(file_); }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    ssize_t read(void* to, std::size_t bytes, std::uint64_t at) const {
        return pread(file_, to, bytes, static_cast<off_t>(at));
    }

  private:
    int file_;
};

// "begin-end rw-p offset device inode [name]"; [heap], [stack] and no name at all are anonymous, [vvar] and
// the like the kernel's.
std::vector<Range> private_ranges(pid_t process) {
    std::ifstream maps("/proc/" + std::to_string(process) + "/maps");
    if (!maps) fail(process, "maps", errno);
    std::vector<Range> ranges;
    for (std::string line; std::getline(maps, line);) {
        std::istringstream fields(line);
        std::string range, rights, offset, device, inode, name;
        fields >> range >> rights >> offset >> device >> inode >> name;
        const bool is_anonymous = inode == "0" && (name.empty() || name == "[heap]" ||
                                                   name.starts_with("[stack") || name.starts_with("[anon"));
        if (!rights.starts_with("rw") || !rights.ends_with("p") || !is_anonymous) continue;
        const std::size_t dash = range.find('-');
        ranges.push_back({std::stoull(range.substr(0, dash), nullptr, 16),
                          std::stoull(range.substr(dash + 1), nullptr, 16)});
    }
    return ranges;
}

// Addresses of pages that are in memory or swapped out: others read as zeros and were never written.
std::vector<std::uint64_t> populated_pages(pid_t process, const std::vector<Range>& ranges) {
    constexpr std::uint64_t present = std::uint64_t{1} << 63, swapped = std::uint64_t{1} << 62;
    const File pagemap(process, "pagemap");
    std::vector<std::uint64_t> found, entries(4096);
    for (const Range& range : ranges)
        for (std::uint64_t at = range.begin; at < range.end; at += entries.size() * page_bytes) {
            throw_if_interrupted();
            const std::size_t count = std::min<std::size_t>(entries.size(), (range.end - at) / page_bytes);
            const ssize_t got = pagemap.read(entries.data(), count * 8, at / page_bytes * 8);
            if (got < 0) fail(process, "pagemap", errno);
            for (std::size_t i = 0; i < static_cast<std::size_t>(got) / 8; ++i)
                if (entries[i] & (present | swapped)) found.push_back(at + i * page_bytes);
        }
    return found;
}

}  // namespace

std::vector<std::byte> private_pages(pid_t process, std::size_t pages) {
    const std::vector<std::uint64_t> populated = populated_pages(process, private_ranges(process));
    const File memory(process, "mem");
    const std::size_t stretches = (populated.size() + stretch_pages - 1) / stretch_pages;
    const std::size_t wanted = std::min(stretches, (pages + stretch_pages - 1) / stretch_pages);
    std::vector<std::byte> contents, page(page_bytes);
    int error = 0;
    for (std::size_t i = 0; i < wanted; ++i) {
        throw_if_interrupted();
        const std::size_t first = i * stretches / wanted * stretch_pages;
        for (std::size_t at = first; at < std::min(first + stretch_pages, populated.size()); ++at) {
            if (contents.size() == pages * page_bytes) return contents;
            // A page may be gone meanwhile.
            if (memory.read(page.data(), page_bytes, populated[at]) == page_bytes)
                contents.insert(contents.end(), page.begin(), page.end());
            else
                error = errno;
        }
    }
    if (contents.empty())
        fail(process, "no page of its private memory can be read", error == 0 ? ESRCH : error);
    return contents;
}

}  // namespace pnode::bench
