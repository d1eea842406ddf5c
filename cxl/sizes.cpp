#include "cxl/sizes.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <limits>

namespace pnode {

namespace {

constexpr std::uint64_t no_limit = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t bytes_max = std::numeric_limits<std::int64_t>::max();
constexpr std::size_t fraction_digits_max = 9;

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

std::string_view take_digits(std::string_view* text) {
    std::size_t count = 0;
    while (count < text->size() && is_digit((*text)[count])) ++count;
    const std::string_view digits = text->substr(0, count);
    text->remove_prefix(count);
    return digits;
}

// False: more than 63 bits.
bool to_number(std::string_view digits, std::uint64_t* number) {
    unsigned __int128 value = 0;
    for (const char digit : digits) {
        value = value * 10 + static_cast<unsigned>(digit - '0');
        if (value > bytes_max) return false;
    }
    *number = static_cast<std::uint64_t>(value);
    return true;
}

// Empty where it cannot be read. Every process that is preloaded into does this when it starts, and a stream
// of the run-time library's, with the locale that comes with the first, costs more than the reading.
std::string read_file(const std::string& path) {
    std::string text;
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return text;
    char piece[512];
    for (ssize_t count = 0; (count = ::read(fd, piece, sizeof piece)) > 0;)
        text.append(piece, static_cast<std::size_t>(count));
    ::close(fd);
    return text;
}

// One number, as cgroup files have it; "max", a missing file and v1's huge "no limit" are none.
std::uint64_t read_limit(const std::string& path) {
    const std::string text = read_file(path);
    std::string_view rest = text;
    const std::string_view digits = take_digits(&rest);
    std::uint64_t bytes = 0;
    return !digits.empty() && to_number(digits, &bytes) && bytes <= bytes_max / 2 ? bytes : no_limit;
}

// The lowest `file` in `root`/`path` and every directory above it, `root` included.
std::uint64_t lowest_limit(const std::string& root, std::string path, const std::string& file) {
    std::uint64_t lowest = no_limit;
    for (;;) {
        lowest = std::min(lowest, read_limit(root + path + "/" + file));
        const std::size_t slash = path.rfind('/');
        if (slash == std::string::npos) return lowest;
        path.resize(slash);
    }
}

bool has_controller(std::string_view list, std::string_view name) {
    while (!list.empty()) {
        const std::size_t comma = std::min(list.find(','), list.size());
        if (list.substr(0, comma) == name) return true;
        list.remove_prefix(std::min(comma + 1, list.size()));
    }
    return false;
}

bool refuse(std::string* why, std::string_view text, const char* reason) {
    if (why != nullptr)
        *why = "\"" + std::string(text) + "\" is not a size: " + reason + " (write 64M, 1.5G, 40% or bytes)";
    return false;
}

char upper(char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
}

// K, KB, KiB and so on; 0 for what is no unit.
std::uint64_t unit_of(std::string_view suffix) {
    constexpr std::string_view letters = "KMGT";
    const std::size_t letter = letters.find(upper(suffix[0]));
    if (letter == std::string_view::npos) return 0;
    suffix.remove_prefix(1);
    if (suffix.size() == 2 && upper(suffix[0]) == 'I') suffix.remove_prefix(1);
    if (!suffix.empty() && (suffix.size() != 1 || upper(suffix[0]) != 'B')) return 0;
    return std::uint64_t{1} << (10 * (letter + 1));
}

}  // namespace

std::uint64_t physical_memory_bytes() {
    const long pages = sysconf(_SC_PHYS_PAGES);
    const long page_bytes = sysconf(_SC_PAGESIZE);
    // sysconf cannot fail for these on Linux; were it to, a small machine is the safe guess.
    if (pages <= 0 || page_bytes <= 0) return std::uint64_t{1} << 30;
    return static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page_bytes);
}

std::uint64_t cgroup_memory_bytes_max(std::string_view proc_cgroup, const std::string& root) {
    std::uint64_t lowest = no_limit;
    while (!proc_cgroup.empty()) {
        const std::string_view line = proc_cgroup.substr(0, proc_cgroup.find('\n'));
        proc_cgroup.remove_prefix(std::min(line.size() + 1, proc_cgroup.size()));
        // "4:memory:/path" is v1, "0::/path" is v2; v2 beside v1 controllers is mounted one level deeper.
        const std::size_t first = line.find(':');
        const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string_view controllers = line.substr(first + 1, second - first - 1);
        std::string path(line.substr(second + 1));
        if (path == "/") path.clear();
        if (has_controller(controllers, "memory")) {
            lowest = std::min(lowest, lowest_limit(root + "/memory", path, "memory.limit_in_bytes"));
        } else if (controllers.empty()) {
            lowest = std::min(lowest, lowest_limit(root, path, "memory.max"));
            lowest = std::min(lowest, lowest_limit(root + "/unified", path, "memory.max"));
        }
    }
    return lowest;
}

std::uint64_t memory_bytes_available() {
    const std::uint64_t limit = cgroup_memory_bytes_max(read_file("/proc/self/cgroup"), "/sys/fs/cgroup");
    return std::max<std::uint64_t>(1, std::min(limit, physical_memory_bytes()));
}

bool parse_size(std::string_view text, std::uint64_t* bytes, std::string* why) {
    std::string_view rest = text;
    std::uint64_t whole = 0;
    const std::string_view digits = take_digits(&rest);
    if (digits.empty())
        return refuse(why, text, text.empty() ? "it is empty" : "it does not begin with a digit");
    if (!to_number(digits, &whole)) return refuse(why, text, "it is too large");

    std::uint64_t fraction = 0;
    std::uint64_t fraction_of = 1;
    const bool has_fraction = !rest.empty() && rest[0] == '.';
    if (has_fraction) {
        rest.remove_prefix(1);
        const std::string_view fraction_digits = take_digits(&rest);
        if (fraction_digits.empty()) return refuse(why, text, "a digit is missing after the point");
        if (fraction_digits.size() > fraction_digits_max)
            return refuse(why, text, "it has more than nine digits after the point");
        to_number(fraction_digits, &fraction);
        for (std::size_t i = 0; i < fraction_digits.size(); ++i) fraction_of *= 10;
    }

    const bool is_share = rest == "%";
    if (rest.empty() && has_fraction) return refuse(why, text, "a fraction of a byte");
    if (is_share && (whole > 100 || (whole == 100 && fraction != 0)))
        return refuse(why, text, "a share is at most 100%");
    const std::uint64_t unit = rest.empty() ? 1 : is_share ? memory_bytes_available() : unit_of(rest);
    if (unit == 0) return refuse(why, text, "what follows the number is not K, M, G, T or %");

    // 63 bits of number times 64 bits of unit fit in 128.
    using Wide = unsigned __int128;
    const Wide divisor = is_share ? 100 : 1;
    const Wide value = (Wide{whole} * unit + Wide{fraction} * unit / fraction_of) / divisor;
    if (value > bytes_max) return refuse(why, text, "it is too large");
    if (value == 0) return refuse(why, text, "it is zero");
    *bytes = static_cast<std::uint64_t>(value);
    return true;
}

std::string format_size(std::uint64_t bytes) {
    constexpr std::uint64_t plain_bytes_max = 9999;
    char text[32];
    if (bytes <= plain_bytes_max) {
        std::snprintf(text, sizeof text, "%llu B", static_cast<unsigned long long>(bytes));
        return text;
    }
    static constexpr const char* units[] = {"KiB", "MiB", "GiB", "TiB"};
    std::size_t unit = 0;
    double amount = static_cast<double>(bytes) / 1024;
    // What would be written as 1024.0 is 1.0 of the next unit.
    while (amount >= 1023.95 && unit + 1 < std::size(units)) {
        amount /= 1024;
        ++unit;
    }
    std::snprintf(text, sizeof text, "%.1f %s", amount, units[unit]);
    return text;
}

}  // namespace pnode
