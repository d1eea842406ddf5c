#include "bench/common/chosen_names.h"

#include <algorithm>

namespace pnode::bench {

bool is_chosen(const std::vector<std::string>& beginnings, const std::string& name) {
    return beginnings.empty() || std::ranges::any_of(beginnings, [&](const std::string& beginning) {
               return name.starts_with(beginning);
           });
}

std::string check_beginning(const std::string& what, const std::string& beginning,
                            const std::vector<std::string>& names) {
    std::string listed;
    for (const std::string& name : names) {
        if (!beginning.empty() && name.starts_with(beginning)) return "";
        listed += (listed.empty() ? "" : ", ") + name;
    }
    return "no " + what + " starts with '" + beginning + "'; there are " + listed;
}

}  // namespace pnode::bench
