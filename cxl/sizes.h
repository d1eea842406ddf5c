// Sizes as people write them: "64M", "1.5G", "40%", "4096". One parser for options, specs and environment.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace pnode {

// What % is a share of: the memory cgroup's limit (v1 or v2) when it is lower than physical memory, else
// physical memory. Bytes, never 0.
std::uint64_t memory_bytes_available();
std::uint64_t physical_memory_bytes();

// Digits, optionally a fraction (with a unit only, at most nine digits; rounded down), optionally K M G T
// (powers of 1024, either case, an optional B or iB after) or %. False, `bytes` untouched, with a sentence in
// `why` (may be null) for anything else: empty, sign, zero, overflow of 63 bits, over 100 %, trailing text.
bool parse_size(std::string_view text, std::uint64_t* bytes, std::string* why);

// "1.5 GiB", "12.0 MiB", "4096 B".
std::string format_size(std::uint64_t bytes);

// The lowest limit that the memory cgroup of a process, or a cgroup above it, sets; UINT64_MAX when none
// does. `proc_cgroup` is the text of /proc/PID/cgroup, `root` where the cgroup file systems are mounted
// (/sys/fs/cgroup). Levels that cannot be seen (a container shows only its own) are passed over.
std::uint64_t cgroup_memory_bytes_max(std::string_view proc_cgroup, const std::string& root);

}  // namespace pnode
