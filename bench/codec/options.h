// The command line of pnode-bench-codec.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace pnode::bench {

enum class CodecOutput { table, json, csv };

struct CodecOptions {
    std::vector<std::string> inputs;   // files, or numbers of processes
    std::vector<std::string> corpora;  // with no inputs: all by default
    std::vector<std::string> codecs;
    std::vector<unsigned> block_kib = {4, 16, 64};
    bool dictionaries = true;
    bool zram = true;
    std::size_t pages = 4096;
    int rounds = 3;
    CodecOutput output = CodecOutput::table;

    nlohmann::ordered_json as_json() const;
};

// True with `options` filled in; otherwise the program ends with `*exit_code` (help, or one line about a bad
// value).
bool parse_codec_options(int count, char** arguments, CodecOptions* options, int* exit_code);

}  // namespace pnode::bench
