#include "cxl/region.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <string_view>

#include "cxl/sizes.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace pnode::cxl {

namespace {

constexpr std::uint64_t page_bytes = 4096;
constexpr int descriptor_min = 101;  // programs own the low numbers

int fail(int error, std::string* message, const std::string& text) {
    if (message != nullptr) *message = text;
    return error;
}

int fail_call(std::string* message, const char* call, const char* cure) {
    const int error = errno;
    return fail(error, message,
                std::string("memory region: ") + call + ": " + std::strerror(error) + ": " + cure);
}

class MemoryRegion final : public Region {
  public:
    MemoryRegion(int descriptor, std::byte* bytes, std::size_t size_bytes) : descriptor_(descriptor) {
        bytes_ = bytes;
        size_bytes_ = size_bytes;
    }
    ~MemoryRegion() override {
        munmap(bytes_, size_bytes_);
        close(descriptor_);
    }

    const char* kind() const noexcept override { return "memory"; }
    int descriptor() const noexcept override { return descriptor_; }

    int discard(std::size_t offset, std::size_t length) noexcept override {
        const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        int result = 0;
        do {
            result = fallocate(descriptor_, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
        } while (result != 0 && errno == EINTR);
        return result == 0 ? 0 : errno;
    }

  private:
    const int descriptor_;
};

// Sealed against execution where the kernel knows that (6.3), and in any case sealable.
int create_memfd() {
    const int descriptor = memfd_create("pnode", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (descriptor >= 0 || errno != EINVAL) return descriptor;
    return memfd_create("pnode", MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

int move_above_100(int descriptor) {
    const int moved = fcntl(descriptor, F_DUPFD_CLOEXEC, descriptor_min);
    const int error = errno;
    close(descriptor);
    errno = error;
    return moved;
}

// Nobody who gets hold of the descriptor can truncate the region under us, which would be a SIGBUS at the
// next access.
bool fix_size(int descriptor, std::uint64_t bytes) {
    return ftruncate(descriptor, static_cast<off_t>(bytes)) == 0 &&
           fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0;
}

void* map_shared(int descriptor, std::uint64_t bytes) {
    void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor, 0);
    if (address == MAP_FAILED) return address;
    // Advice, not needed for correctness: a core dump would hold all blobs, gigabytes that nothing can read
    // without the codec; a huge page would hold more than the slabs that are accounted.
    (void)madvise(address, bytes, MADV_DONTDUMP);
    (void)madvise(address, bytes, MADV_NOHUGEPAGE);
    return address;
}

int open_memory_spec(std::string_view size, std::unique_ptr<Region>* out, std::string* message) {
    std::uint64_t bytes = 0;
    std::string why;
    if (!parse_size(size, &bytes, &why)) return fail(EINVAL, message, "memory:SIZE: " + why);
    const std::uint64_t all = physical_memory_bytes();
    if (bytes > all) {
        return fail(ENOMEM, message,
                    "memory:" + std::string(size) + " is larger than this machine's memory (" +
                        format_size(all) + "): name less, or a share such as memory:50%");
    }
    return open_memory_region((bytes + page_bytes - 1) / page_bytes * page_bytes, out, message);
}

}  // namespace

int open_memory_region(std::uint64_t bytes, std::unique_ptr<Region>* out, std::string* message) {
    int descriptor = create_memfd();
    if (descriptor < 0) return fail_call(message, "memfd_create", "close descriptors, or free memory");
    descriptor = move_above_100(descriptor);
    if (descriptor < 0) {
        return fail(EMFILE, message,
                    "memory region: no descriptor above 100 is free: raise the limit (ulimit -n 1024)");
    }
    if (!fix_size(descriptor, bytes)) {
        const int error =
            fail_call(message, "ftruncate", "name a smaller size, or raise the file size limit (ulimit -f)");
        close(descriptor);
        return error;
    }
    void* address = map_shared(descriptor, bytes);
    if (address == MAP_FAILED) {
        const int error =
            fail_call(message, "mmap", "name a smaller size, or raise the address space limit (ulimit -v)");
        close(descriptor);
        return error;
    }
    try {
        out->reset(new MemoryRegion(descriptor, static_cast<std::byte*>(address), bytes));
        return 0;
    } catch (const std::bad_alloc&) {
        munmap(address, bytes);
        close(descriptor);
        return fail(ENOMEM, message, "memory region: no memory for its description: free some");
    }
}

int open_region(const std::string& spec, std::unique_ptr<Region>* out, std::string* message) {
    const std::size_t colon = spec.find(':');
    const std::string kind = spec.substr(0, colon);
    if (kind == "dax" || kind == "numa") {
        return fail(EINVAL, message,
                    "\"" + spec + "\": " + kind + ": regions are not supported yet: use memory:SIZE");
    }
    if (colon == std::string::npos || kind != "memory") {
        return fail(EINVAL, message,
                    "\"" + spec + "\" names no region: write memory:SIZE, such as memory:1G or memory:50%");
    }
    return open_memory_spec(std::string_view(spec).substr(colon + 1), out, message);
}

}  // namespace pnode::cxl
