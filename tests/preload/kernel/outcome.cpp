#include "tests/preload/kernel/outcome.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace kernel_access {

long Outcome::note(std::string_view what, long result) {
    const int error = errno;
    std::string line(what);
    line += " = " + std::to_string(result);
    if (result == -1) line += std::string(" ") + strerrorname_np(error);
    lines_.push_back(std::move(line));
    errno = error;
    return result;
}

long Outcome::ok(std::string_view what, long result) {
    note(what, result);
    if (result < 0) ADD_FAILURE() << lines_.back();
    return result;
}

void Outcome::check(std::string_view what, bool holds) {
    lines_.push_back(std::string(what) + (holds ? ": yes" : ": no"));
    if (!holds) ADD_FAILURE() << lines_.back();
}

void Outcome::text(std::string_view what, std::string_view value) {
    lines_.push_back(std::string(what) + ": " + std::string(value));
}

}  // namespace kernel_access
