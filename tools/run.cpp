#include "tools/run.h"

#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "cxl/region_spec.h"
#include "cxl/topology.h"
#include "runtime/options/options.h"
#include "tools/program.h"
#include "tools/say.h"

namespace pnode::tools {
namespace {

constexpr const char* library_name = "libpnode-preload.so";
constexpr int exit_no_library = 1;

// The folder this program was started from, "" when the kernel does not say.
std::string own_folder() {
    char path[PATH_MAX];
    const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path);
    if (length <= 0 || length == static_cast<ssize_t>(sizeof path)) return {};
    const std::string_view whole(path, static_cast<std::size_t>(length));
    return std::string(whole.substr(0, whole.rfind('/')));
}

// The real path of the library, "" when there is none. What PNODE_LIBRARY names is taken or nothing is.
std::string find_library() {
    std::vector<std::string> candidates;
    if (const char* named = std::getenv("PNODE_LIBRARY"); named != nullptr && *named != '\0') {
        candidates = {named};
    } else {
        const std::string folder = own_folder();
        candidates = {folder + "/../lib/" + library_name, folder + "/" + library_name};
    }
    for (const std::string& candidate : candidates) {
        char real[PATH_MAX];
        if (::access(candidate.c_str(), R_OK) == 0 && ::realpath(candidate.c_str(), real) != nullptr)
            return real;
    }
    return {};
}

// Ours first, then what was there; never ours twice.
std::string preload_list(const std::string& library) {
    std::string list = library;
    const char* const existing = std::getenv("LD_PRELOAD");
    std::string_view rest = existing != nullptr ? existing : "";
    while (!rest.empty()) {
        const std::size_t at = rest.find_first_of(" :");  // the loader takes both
        const std::string_view entry = rest.substr(0, at);
        rest = at == std::string_view::npos ? std::string_view{} : rest.substr(at + 1);
        if (!entry.empty() && entry != library) list.append(":").append(entry);
    }
    return list;
}

int refuse(const Refusal& refusal) {
    say(refusal.message);
    return refusal.exit_code;
}

int set_up_environment(const RunRequest& request) {
    const std::string library = find_library();
    if (library.empty()) {
        say(std::string(library_name) +
            " is not where pnode looks for it (../lib or beside pnode): set PNODE_LIBRARY to it");
        return exit_no_library;
    }
    if (library.find_first_of(" :") != std::string::npos) {
        say(library +
            " cannot be preloaded: the loader splits LD_PRELOAD at blanks and colons; move it elsewhere");
        return exit_no_library;
    }
    // Said here once, and not by each process that the program may start.
    Options::clean_environment([](const char* line, void*) { say(line); }, nullptr);
    for (const auto& [name, value] : request.environment) ::setenv(name.c_str(), value.c_str(), 1);
    ::setenv("LD_PRELOAD", preload_list(library).c_str(), 1);
    return 0;
}

// A NUMA node is everybody's unless its administrator closed it. Said here once, as above.
void warn_of_open_node() {
    const char* const text = std::getenv("PNODE_NODE");
    cxl::RegionSpec spec;
    cxl::NumaNode node;
    if (text == nullptr || !cxl::parse_region_spec(text, &spec, nullptr)) return;
    if (spec.kind != cxl::RegionKind::numa || !cxl::find_numa_node(spec.numa_node, &node) || node.has_cpus)
        return;
    const std::string notice = cxl::numa_notice(node);
    if (!notice.empty()) say(notice);
}

}  // namespace

int run(const RunRequest& request) {
    std::string path;
    if (const Refusal refusal = find_program(request.command.front(), &path)) return refuse(refusal);
    if (const Refusal refusal = check_program(path)) return refuse(refusal);
    if (const int exit_code = set_up_environment(request)) return exit_code;
    warn_of_open_node();

    std::vector<char*> arguments;
    for (const std::string& argument : request.command)
        arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    ::execv(path.c_str(), arguments.data());
    // A missing loader, arguments too long, a file that changed since it was judged.
    say(path + " cannot be run: " + std::strerror(errno));
    return errno == ENOENT ? exit_not_found : exit_cannot_run;
}

}  // namespace pnode::tools
