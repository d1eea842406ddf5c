// numa:N[:SIZE]: memory bound to one NUMA node without CPUs, such as a CXL expander the kernel has brought
// online.
//
// All of it is taken when it is opened. A bound page that the node cannot give is no error to the kernel: it
// kills the process (constraint MEMORY_POLICY). So the region stays under what is free, keeps its pages, and
// looks where each of them came to lie. The policy is set by system call: libnuma's start reads sysfs in
// every process that would preload it.

#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "cxl/memory_file.h"
#include "cxl/region.h"
#include "cxl/sizes.h"
#include "cxl/topology.h"

namespace pnode::cxl {

namespace {

constexpr std::uint64_t page_bytes = 4096;
constexpr std::uint64_t step_bytes = std::uint64_t{32} << 20;

class NumaRegion final : public Region {
  public:
    explicit NumaRegion(MemoryFile&& file) : file_(std::move(file)) {
        bytes_ = file_.bytes();
        size_bytes_ = file_.size_bytes();
        may_go_bad();
        is_memory_apart_ = true;
    }
    const char* kind() const noexcept override { return "numa"; }
    int descriptor() const noexcept override { return file_.descriptor(); }
    // The pages stay: the node might not have them a second time.
    int discard(std::size_t offset, std::size_t length) noexcept override {
        return clear(offset, length) ? 0 : EIO;
    }

  private:
    MemoryFile file_;
};

std::string named(int node) {
    return "numa:" + std::to_string(node);
}

// What is left to the kernel, for its own needs on that node.
std::uint64_t reserve_bytes(const NumaNode& node) {
    return std::max(node.memory_bytes / 16, step_bytes);
}

std::uint64_t available_bytes(const NumaNode& node) {
    const std::uint64_t reserve = reserve_bytes(node);
    return node.free_bytes > reserve ? (node.free_bytes - reserve) / page_bytes * page_bytes : 0;
}

int bind_to(const MemoryFile& file, int node, std::string* message) {
    constexpr unsigned bits = 8 * sizeof(unsigned long);
    unsigned long mask[1024 / bits] = {};
    mask[static_cast<unsigned>(node) / bits] = 1UL << (static_cast<unsigned>(node) % bits);
    const int mode = MPOL_BIND | MPOL_F_STATIC_NODES;
    if (syscall(SYS_mbind, file.bytes(), file.size_bytes(), mode, mask, 8 * sizeof mask + 1, 0) == 0)
        return 0;
    return fail(errno, message,
                named(node) + ": mbind: " + std::strerror(errno) +
                    ": the cpuset of this process must have the node (cpuset.mems)");
}

// In steps: others may take from the node meanwhile.
int fill(const MemoryFile& file, const NumaNode& node, std::string* message) {
    for (std::size_t at = 0; at < file.size_bytes(); at += step_bytes) {
        const std::size_t bytes = std::min<std::size_t>(step_bytes, file.size_bytes() - at);
        if (numa_free_bytes(node.number) < bytes + reserve_bytes(node) / 2) {
            return fail(ENOSPC, message,
                        named(node.number) + " ran full while it was taken: name a smaller size");
        }
        if (madvise(file.bytes() + at, bytes, MADV_POPULATE_WRITE) != 0) {
            return fail(errno == EFAULT ? ENOSPC : errno, message,
                        named(node.number) + ": its memory cannot be taken: " + std::strerror(errno) +
                            ": name a smaller size, or use Linux 5.14 or later");
        }
    }
    return 0;
}

// Asked of every page: a policy is a wish until somebody looked.
int verify(const MemoryFile& file, int node, std::string* message) {
    constexpr std::size_t batch = 512;
    void* pages[batch];
    int status[batch];
    for (std::size_t at = 0; at < file.size_bytes();) {
        std::size_t count = 0;
        for (; count < batch && at < file.size_bytes(); at += page_bytes) pages[count++] = file.bytes() + at;
        std::fill(std::begin(status), std::end(status), -ENOENT);
        if (syscall(SYS_move_pages, 0, count, pages, nullptr, status, 0) != 0)
            return fail(errno, message, named(node) + ": move_pages: " + std::strerror(errno));
        const int* const elsewhere = std::find_if(status, status + count, [&](int on) { return on != node; });
        if (elsewhere == status + count) continue;
        return fail(ENOSPC, message,
                    named(node) + ": a page came to lie on node " + std::to_string(*elsewhere) +
                        ": turn numa_balancing off, and name a smaller size");
    }
    return 0;
}

int check(const RegionSpec& spec, const NumaNode& node, std::string* message) {
    if (node.has_cpus) {
        return fail(EINVAL, message,
                    named(node.number) +
                        " has CPUs: it is everybody's memory; use a node without, or "
                        "memory:SIZE");
    }
    const std::uint64_t available = available_bytes(node);
    const std::uint64_t least = std::max(spec.least_bytes_wanted, page_bytes);
    if (spec.size_bytes <= available && available >= least) return 0;
    return fail(ENOSPC, message,
                named(node.number) + " can give " + format_size(available) + " of its " +
                    format_size(node.memory_bytes) + ": name less, or free some of it");
}

std::string own_cgroup() {
    std::ifstream file("/proc/self/cgroup");
    return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

std::string numa_notice(const NumaNode& node) {
    const std::string number = std::to_string(node.number);
    std::string notice;
    if (is_open_to_others(node.number, own_cgroup())) {
        notice =
            "node " + number +
            " is open to ordinary allocations too: keep them out with cpuset.mems of the other cgroups "
            "(systemctl set-property system.slice AllowedMemoryNodes=0, say; user.slice and init.scope too)";
    }
    if (node.demotion_targets) {
        notice += notice.empty() ? "node " + number + " is open to the kernel's demotion: keep it out with "
                                 : ", and the kernel's demotion with ";
        notice += "echo false > /sys/kernel/mm/numa/demotion_enabled";
    }
    return notice;
}

int open_numa_region(const RegionSpec& spec, std::unique_ptr<Region>* out, std::string* message) {
    NumaNode node;
    if (!find_numa_node(spec.numa_node, &node)) {
        return fail(ENODEV, message,
                    named(spec.numa_node) + ": there is no such node (pnode probe lists what there is)");
    }
    if (const int error = check(spec, node, message)) return error;
    if (const int error = install_guard()) return fail(error, message, "numa: no SIGBUS handler to be had");
    const std::uint64_t wanted = spec.size_bytes != 0 ? spec.size_bytes : available_bytes(node);
    MemoryFile file;
    if (const int error = file.open((wanted + page_bytes - 1) / page_bytes * page_bytes, message))
        return error;
    (void)madvise(file.bytes(), file.size_bytes(),
                  MADV_HUGEPAGE);  // all of it is taken, so they cost nothing
    if (const int error = bind_to(file, node.number, message)) return error;
    if (const int error = fill(file, node, message)) return error;
    if (const int error = verify(file, node.number, message)) return error;
    out->reset(new NumaRegion(std::move(file)));
    (*out)->set_notice(numa_notice(node));
    return 0;
}

}  // namespace pnode::cxl
