// Data to compress: pages of files, of made-up and installed data, and of live processes.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <vector>

namespace pnode::bench {

struct Corpus {
    std::string name;
    std::string source;            // where it is from, in words
    std::vector<std::byte> bytes;  // whole pages
    std::string missing;           // why there are no bytes; "" when there are
};

// The built-in corpora: made up from fixed seeds, taken from this machine, and heaps of programs that are
// started, loaded and ended for it.
const std::vector<std::string>& corpus_names();

// Up to `pages` pages, evenly chosen where there are more. What cannot be had on this machine says why in
// `missing`; nothing is thrown but Interrupted.
Corpus built_in_corpus(const std::string& name, std::size_t pages);
// Throws std::runtime_error.
Corpus file_corpus(const std::string& path, std::size_t pages);
Corpus process_corpus(pid_t process, std::size_t pages);

}  // namespace pnode::bench
