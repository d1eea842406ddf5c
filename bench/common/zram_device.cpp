#include "bench/common/zram_device.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <stdexcept>

namespace pnode::bench {
namespace {

constexpr const char* hot_add = "/sys/class/zram-control/hot_add";
constexpr const char* hot_remove = "/sys/class/zram-control/hot_remove";
constexpr std::size_t page_bytes = 4096;

std::string error_text() {
    return strerror(errno);
}

bool write_text(const std::string& path, const std::string& text) {
    int file = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (file < 0) return false;
    bool written = write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    int error = errno;
    close(file);
    errno = error;
    return written;
}

void must_write(const std::string& path, const std::string& text) {
    if (!write_text(path, text))
        throw std::runtime_error("cannot write " + text + " to " + path + ": " + error_text());
}

void load_module() {
    const char* arguments[] = {"modprobe", "zram", "num_devices=0", nullptr};
    const char* environment[] = {"PATH=/usr/sbin:/sbin:/usr/bin:/bin", nullptr};
    pid_t child;
    if (posix_spawnp(&child, arguments[0], nullptr, nullptr, const_cast<char**>(arguments),
                     const_cast<char**>(environment)) != 0)
        return;  // no modprobe here: whoever looks next finds no zram and says so
    while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
}

constexpr int attempts = 100;
constexpr useconds_t attempt_us = 50'000;

// Bringing the pages back can take seconds. ENOMEM is no last word: a process that is just dying in a full
// control group cannot take its pages, and a moment later it has none. EINVAL: swapon was not reached.
bool stop_swapping(const std::string& device) {
    for (int attempt = 0; attempt < attempts; ++attempt) {
        if (swapoff(device.c_str()) == 0 || errno == EINVAL) return true;
        if (errno != ENOMEM && errno != EINTR) return false;
        usleep(attempt_us);
    }
    return false;
}

// Undoes a setup that may have stopped at any step; `number` is that of /dev/zram.
std::string remove_device(const std::string& number) {
    if (number.empty()) return "";
    const std::string device = "/dev/zram" + number;
    if (!stop_swapping(device))
        return "swapoff " + device + ": " + error_text() +
               "; run it by hand when there is memory for what it holds";
    // udev may look at a changed device for a moment: EBUSY then.
    for (int attempt = 0; attempt < attempts; ++attempt) {
        if (write_text("/sys/block/zram" + number + "/reset", "1") && write_text(hot_remove, number))
            return "";
        usleep(attempt_us);
    }
    return "cannot remove " + device + ": " + error_text() + "; cure: echo " + number + " > " + hot_remove;
}

std::string add_device() {
    std::ifstream add(hot_add);
    std::string number;
    if (!(add >> number)) throw std::runtime_error(std::string("cannot read ") + hot_add);
    return number;
}

// Where nothing fills /dev by itself (a container), the node is made here; it is named by sysfs'
// "major:minor".
void ensure_device_file(const std::string& device, const std::string& control) {
    struct stat unused;
    if (stat(device.c_str(), &unused) == 0) return;
    std::ifstream numbers(control + "/dev");
    unsigned major_number = 0, minor_number = 0;
    char colon = 0;
    if (!(numbers >> major_number >> colon >> minor_number) ||
        mknod(device.c_str(), S_IFBLK | 0600, makedev(major_number, minor_number)) != 0)
        throw std::runtime_error("no " + device + " and it cannot be made: " + error_text());
}

}  // namespace

std::string ZramDevice::why_unavailable() {
    if (geteuid() != 0) return "zram needs root";
    if (access(hot_add, R_OK) != 0) load_module();
    if (access(hot_add, R_OK) != 0) return "this kernel has no zram (modprobe zram)";
    return "";
}

ZramDevice::ZramDevice(std::uint64_t disk_bytes, const std::string& algorithm)
    : guardian_("zram", [] { return remove_device(Guardian::told()); }),
      disk_bytes_((disk_bytes + page_bytes - 1) / page_bytes * page_bytes) {
    if (std::string reason = why_unavailable(); !reason.empty()) throw std::runtime_error(reason);
    const std::string number = add_device();
    guardian_.tell(number);
    path_ = "/dev/zram" + number;
    control_ = "/sys/block/zram" + number;
    must_write(control_ + "/comp_algorithm", algorithm);
    must_write(control_ + "/disksize", std::to_string(disk_bytes_));
    ensure_device_file(path_, control_);
}

ZramDevice::Usage ZramDevice::usage() const {
    std::ifstream statistics(control_ + "/mm_stat");
    std::uint64_t original = 0, compressed = 0, memory = 0;
    statistics >> original >> compressed >> memory;
    return {original, memory};
}

}  // namespace pnode::bench
