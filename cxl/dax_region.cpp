// dax:/dev/daxX.Y[:OFFSET+SIZE]: a device's memory, mapped shared, or a range of it.
//
// Several processes may have ranges of one device: each holds an open-file-description lock on its range,
// which the kernel drops when the last descriptor is closed, so also when its owner is killed. A forked child
// keeps the descriptor, and with it the lock, for as long as it may read blobs.
//
// The driver never zeroes anything: whoever closes a region wipes it (outlives_owner).

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#ifdef __x86_64__
#include <emmintrin.h>
#endif

#include "cxl/memory_file.h"
#include "cxl/region.h"
#include "cxl/sizes.h"
#include "cxl/topology.h"

namespace pnode::cxl {

namespace {

struct Extent {
    std::uint64_t size_bytes = 0;  // of the whole device
    std::uint64_t align_bytes = 4096;
    bool is_file = false;
};

class DaxRegion final : public Region {
  public:
    DaxRegion(OwnedDescriptor&& descriptor, std::byte* bytes, const RegionSpec& range, bool is_file)
        : descriptor_(std::move(descriptor)), offset_(range.offset_bytes), is_file_(is_file) {
        bytes_ = bytes;
        size_bytes_ = range.size_bytes;
        may_go_bad();
        outlives_owner_ = true;
        is_memory_apart_ = true;
    }
    ~DaxRegion() override { munmap(bytes_, size_bytes_); }

    const char* kind() const noexcept override { return "dax"; }
    int descriptor() const noexcept override { return descriptor_.get(); }

    // A device has nowhere to give pages back to.
    int discard(std::size_t offset, std::size_t length) noexcept override {
        if (is_file_ && punch_hole(descriptor_.get(), offset_ + offset, length) == 0) return 0;
        return clear(offset, length) ? 0 : EIO;
    }

  private:
    const OwnedDescriptor descriptor_;
    const std::uint64_t offset_;
    const bool is_file_;
};

std::string named(const RegionSpec& spec) {
    return "dax:" + spec.device;
}

int fail_open(const RegionSpec& spec, int error, std::string* message) {
    std::string cure = "check the path (pnode probe lists what there is)";
    if (error == EACCES || error == EPERM)
        cure = "let the user read and write it (a udev rule, or sudo chgrp and chmod 660)";
    if (error == ENXIO)
        cure = "no driver has it (daxctl reconfigure-device --mode=devdax, or load device_dax)";
    return fail(error, message, named(spec) + ": " + std::strerror(error) + ": " + cure);
}

int describe_device(const RegionSpec& spec, const struct stat& status, Extent* extent, std::string* message) {
    DaxDevice device;
    if (!find_dax_device(status.st_rdev, &device)) {
        return fail(EINVAL, message, named(spec) + " is no devdax device: write dax:/dev/daxX.Y");
    }
    if (device.is_system_ram) {
        return fail(EBUSY, message,
                    named(spec) +
                        " is in use as ordinary memory: give it back with daxctl reconfigure-device "
                        "--mode=devdax " +
                        device.name);
    }
    *extent = {device.size_bytes, device.align_bytes, false};
    return 0;
}

bool is_memory_backed(int descriptor) {
    struct statfs system {};
    struct statx attributes {};
    if (fstatfs(descriptor, &system) == 0 && (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC))
        return true;
    return statx(descriptor, "", AT_EMPTY_PATH, STATX_TYPE, &attributes) == 0 &&
           (attributes.stx_attributes & STATX_ATTR_DAX) != 0;
}

// Never a file on a disk: it would be slow, and a wrong path would cost somebody's data.
int describe_file(const RegionSpec& spec, int descriptor, const struct stat& status, Extent* extent,
                  std::string* message) {
    if (!is_memory_backed(descriptor)) {
        return fail(EINVAL, message,
                    named(spec) +
                        " is neither a devdax device nor a file on a DAX or memory file system: write "
                        "dax:/dev/daxX.Y");
    }
    *extent = {static_cast<std::uint64_t>(status.st_size), 4096, true};
    return 0;
}

int describe(const RegionSpec& spec, int descriptor, Extent* extent, std::string* message) {
    struct stat status {};
    if (fstat(descriptor, &status) != 0) return fail_open(spec, errno, message);
    if (S_ISCHR(status.st_mode)) return describe_device(spec, status, extent, message);
    if (S_ISREG(status.st_mode)) return describe_file(spec, descriptor, status, extent, message);
    return fail(EINVAL, message, named(spec) + " is no device: write dax:/dev/daxX.Y");
}

// The range in whole alignment units; without one, all whole units of the device.
int settle_range(const Extent& extent, RegionSpec* spec, std::string* message) {
    if (spec->size_bytes == 0)
        spec->size_bytes = extent.size_bytes / extent.align_bytes * extent.align_bytes - spec->offset_bytes;
    if (spec->offset_bytes % extent.align_bytes != 0 || spec->size_bytes % extent.align_bytes != 0) {
        return fail(EINVAL, message,
                    named(*spec) + ": offset and size must be multiples of its alignment, " +
                        format_size(extent.align_bytes));
    }
    if (spec->size_bytes == 0 || spec->size_bytes > extent.size_bytes ||
        spec->offset_bytes > extent.size_bytes - spec->size_bytes) {
        return fail(EINVAL, message,
                    named(*spec) + " has " + format_size(extent.size_bytes) + ": name a range within it");
    }
    return 0;
}

int claim(const RegionSpec& spec, int descriptor, std::string* message) {
    struct flock range {};
    range.l_type = F_WRLCK;
    range.l_whence = SEEK_SET;
    range.l_start = static_cast<off_t>(spec.offset_bytes);
    range.l_len = static_cast<off_t>(spec.size_bytes);
    if (fcntl(descriptor, F_OFD_SETLK, &range) == 0) return 0;
    if (errno != EAGAIN && errno != EACCES) return fail_open(spec, errno, message);
    return fail(EBUSY, message,
                named(spec) +
                    ": somebody else has it, or a part of the range: end that process, or name "
                    "another range (OFFSET+SIZE)");
}

void flush_line(const std::byte* line) {
#ifdef __x86_64__
    _mm_clflush(line);
    _mm_mfence();
#else
    (void)line;
#endif
}

// A decoder that is set up wrongly drops writes without a word: nothing is stored before the first and the
// last line have proven otherwise.
bool keeps_what_is_written(const Region& region) {
    constexpr std::size_t line_bytes = 64;
    BadRange bad;
    bool kept = true;
    const bool readable = region.load(
        [&] {
            for (std::byte* line : {region.bytes(), region.bytes() + region.size_bytes() - line_bytes}) {
                for (const int pattern : {0x5a, 0xa5, 0}) {
                    std::memset(line, pattern, line_bytes);
                    flush_line(line);
                    kept = kept && *const_cast<volatile std::byte*>(line) == static_cast<std::byte>(pattern);
                }
            }
        },
        &bad);
    return readable && kept;
}

int map_range(const RegionSpec& spec, bool is_file, OwnedDescriptor&& descriptor,
              std::unique_ptr<Region>* out, std::string* message) {
    const auto offset = static_cast<off_t>(spec.offset_bytes);
    if (is_file) {
        // Room that the file system does not have would be a SIGBUS at some later store.
        const int error = posix_fallocate(descriptor.get(), offset, static_cast<off_t>(spec.size_bytes));
        if (error != 0)
            return fail(error, message, named(spec) + ": " + std::strerror(error) + ": free some");
    }
    void* const address =
        mmap(nullptr, spec.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor.get(), offset);
    if (address == MAP_FAILED) {
        return fail(errno, message,
                    named(spec) + ": mmap: " + std::strerror(errno) +
                        ": name a range at multiples of the device's alignment, or a smaller one");
    }
    (void)madvise(address, spec.size_bytes, MADV_DONTDUMP);
    std::unique_ptr<Region> region(
        new DaxRegion(std::move(descriptor), static_cast<std::byte*>(address), spec, is_file));
    if (!keeps_what_is_written(*region)) {
        return fail(
            EIO, message,
            named(spec) + " does not keep what is written: its decoders are set up wrongly (cxl list)");
    }
    *out = std::move(region);
    return 0;
}

}  // namespace

int open_dax_region(const RegionSpec& wanted, std::unique_ptr<Region>* out, std::string* message) {
    RegionSpec spec = wanted;
    if (const int error = install_guard()) return fail(error, message, "dax: no SIGBUS handler to be had");
    const int low = open(spec.device.c_str(), O_RDWR | O_CLOEXEC);
    if (low < 0) return fail_open(spec, errno, message);
    OwnedDescriptor descriptor(move_above_100(low));
    if (descriptor.get() < 0) {
        return fail(EMFILE, message,
                    named(spec) + ": no descriptor above 100 is free: raise the limit (ulimit -n 1024)");
    }
    Extent extent;
    if (const int error = describe(spec, descriptor.get(), &extent, message)) return error;
    if (const int error = settle_range(extent, &spec, message)) return error;
    if (const int error = claim(spec, descriptor.get(), message)) return error;
    return map_range(spec, extent.is_file, std::move(descriptor), out, message);
}

}  // namespace pnode::cxl
