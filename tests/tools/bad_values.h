// Values that an option must refuse and values that it must take, by its type.
#pragma once

#include <string>
#include <vector>

#include "runtime/options/options.h"

namespace pnode::test {

inline std::string first_choice(const OptionSpec& spec) {
    const std::string all = spec.choices;
    return all.substr(0, all.find('|'));
}

inline std::string last_choice(const OptionSpec& spec) {
    const std::string all = spec.choices;
    return all.substr(all.rfind('|') + 1);
}

inline std::vector<std::string> bad_values(const OptionSpec& spec) {
    switch (spec.type) {
        case OptionType::size: {
            std::vector<std::string> bad = {
                "abc", "-5M", "+5M", "12Q", "1M!", "1 M", "%", "200%", "99999999999999999999999", "9999999T"};
            if (spec.minimum > 0) bad.insert(bad.end(), {"0", "0M", "4095"});
            return bad;
        }
        case OptionType::milliseconds:
            return {"abc", "-1", "+1", "1.5", "10ms", "3600001", "99999999999999999999999"};
        case OptionType::flag:
            return {"2", "-1", "maybe", "TRUE!"};
        case OptionType::choice:
            return {"0", "AUTO", "threads", "auto|thread", "auto,thread", "-1"};
        case OptionType::list:
            return {"0",
                    first_choice(spec) + "s",
                    first_choice(spec) + ",",
                    "," + first_choice(spec),
                    first_choice(spec) + ",," + last_choice(spec),
                    spec.choices};
        case OptionType::codec:
            return {"lz5",       "LZ4",  "zstd:", "zstd:99", "zstd:-99999", "zstd:x",     "lz4:1",
                    "deflate:1", "iaa:", "iaa:0", "iaa:101", "iaa:models",  "same-filled"};
        case OptionType::node:
            return {"memory",      "memory:",       "memory:0", "memory:-1G", "memory:1Q", "memory:9999999T",
                    "memory:1G:2", "dax",           "64M",      ":64M",       "dax:",      "dax:dax0.0",
                    "numa:",       "numa:-1",       "numa:x",   "auto:",      "sim:",      "sim:1G,",
                    "sim:1G,x=1",  "sim:1G,ratio=0"};
        case OptionType::file:
            return {std::string(5000, 'x')};
    }
    return {};
}

inline std::vector<std::string> good_values(const OptionSpec& spec) {
    switch (spec.type) {
        case OptionType::size:
            return {"1M", "1.5M", "1048576", "1%", "2m"};
        case OptionType::milliseconds:
            return {"0", "1", "3600000"};
        case OptionType::flag:
            return {"1", "0", "true", "false", "yes", "no", "on", "off"};
        case OptionType::choice:
            return {"auto", "thread"};
        case OptionType::list:
            return {first_choice(spec), last_choice(spec), first_choice(spec) + "," + last_choice(spec),
                    first_choice(spec) + "," + first_choice(spec)};
        case OptionType::codec:
            return {"lz4", "zstd", "zstd:5", "deflate", "iaa", "iaa:10", "iaa:model"};
        case OptionType::node:
            return {"memory:1M", "memory:10%", "dax:/dev/dax0.0", "numa:1:64M", "auto", "sim:64M,ratio=2"};
        case OptionType::file:
            return {"-", "statistics.json"};
    }
    return {};
}

}  // namespace pnode::test
