#include "bench/codec/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <stdexcept>
#include <string>

#include "bench/common/anonymous_memory.h"
#include "bench/common/interrupt.h"
#include "bench/common/zram_device.h"

namespace pnode::bench {

std::uint64_t zram_bytes(compress::Bytes pages) {
    const ZramDevice device(pages.size() + (1 << 20));
    // Past the page cache, which may write later.
    const int file = open(device.path().c_str(), O_WRONLY | O_DIRECT | O_CLOEXEC);
    if (file < 0) throw std::runtime_error("cannot open " + device.path() + ": " + strerror(errno));
    constexpr std::size_t step = 65536;
    const AnonymousMemory aligned(step);
    std::string problem;
    for (std::size_t at = 0; at < pages.size() && problem.empty() && interrupted() == 0; at += step) {
        const compress::Bytes part = pages.subspan(at, std::min(step, pages.size() - at));
        memcpy(aligned.data(), part.data(), part.size());
        if (pwrite(file, aligned.data(), part.size(), static_cast<off_t>(at)) !=
            static_cast<ssize_t>(part.size()))
            problem = strerror(errno);
    }
    close(file);  // before the device goes
    throw_if_interrupted();
    if (!problem.empty()) throw std::runtime_error("cannot write to " + device.path() + ": " + problem);
    return device.usage().memory_bytes;
}

}  // namespace pnode::bench
