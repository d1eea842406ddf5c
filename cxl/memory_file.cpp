#include "cxl/memory_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace pnode::cxl {

namespace {

int fail_call(std::string* message, const char* call, const char* cure) {
    const int error = errno;
    return fail(error, message,
                std::string("memory region: ") + call + ": " + std::strerror(error) + ": " + cure);
}

// Sealed against execution where the kernel knows that (6.3), and in any case sealable.
int create_memfd() {
    const int descriptor = memfd_create("pnode", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    if (descriptor >= 0 || errno != EINVAL) return descriptor;
    return memfd_create("pnode", MFD_CLOEXEC | MFD_ALLOW_SEALING);
}

// Nobody who gets hold of the descriptor can truncate the region under us, which would be a SIGBUS at the
// next access.
bool fix_size(int descriptor, std::uint64_t bytes) {
    return ftruncate(descriptor, static_cast<off_t>(bytes)) == 0 &&
           fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0;
}

}  // namespace

int fail(int error, std::string* message, const std::string& text) {
    if (message != nullptr) *message = text;
    return error;
}

int move_above_100(int descriptor) {
    const int moved = fcntl(descriptor, F_DUPFD_CLOEXEC, region_descriptor_min);
    const int error = errno;
    close(descriptor);
    errno = error;
    return moved;
}

int punch_hole(int descriptor, std::size_t offset, std::size_t length) noexcept {
    const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    int result = 0;
    do {
        result = fallocate(descriptor, mode, static_cast<off_t>(offset), static_cast<off_t>(length));
    } while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : errno;
}

MemoryFile::MemoryFile(MemoryFile&& other) noexcept
    : descriptor_(std::move(other.descriptor_)),
      bytes_(std::exchange(other.bytes_, nullptr)),
      size_bytes_(other.size_bytes_) {}

MemoryFile::~MemoryFile() {
    if (bytes_ != nullptr) munmap(bytes_, size_bytes_);
}

int MemoryFile::open(std::uint64_t bytes, std::string* message) {
    const int low = create_memfd();
    if (low < 0) return fail_call(message, "memfd_create", "close descriptors, or free memory");
    descriptor_ = OwnedDescriptor(move_above_100(low));
    if (descriptor() < 0) {
        return fail(EMFILE, message,
                    "memory region: no descriptor above 100 is free: raise the limit (ulimit -n 1024)");
    }
    if (!fix_size(descriptor(), bytes)) {
        return fail_call(message, "ftruncate",
                         "name a smaller size, or raise the file size limit (ulimit -f)");
    }
    void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor(), 0);
    if (address == MAP_FAILED) {
        return fail_call(message, "mmap",
                         "name a smaller size, or raise the address space limit (ulimit -v)");
    }
    bytes_ = static_cast<std::byte*>(address);
    size_bytes_ = bytes;
    // Advice, not needed for correctness: a core dump would hold all blobs, gigabytes that nothing can read
    // without the codec.
    (void)madvise(address, bytes, MADV_DONTDUMP);
    return 0;
}

int MemoryFile::punch(std::size_t offset, std::size_t length) const noexcept {
    return punch_hole(descriptor(), offset, length);
}

}  // namespace pnode::cxl
