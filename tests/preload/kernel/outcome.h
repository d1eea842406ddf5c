// What a case saw: a list of named results that must be the same wherever its memory was.
#pragma once

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace kernel_access {

class Outcome {
  public:
    // A result, with errno when it is -1.
    long note(std::string_view what, long result);
    // The same for a call that must succeed: a case that compares two failures shows nothing.
    long ok(std::string_view what, long result);
    // For values that differ from run to run: only that they are right.
    void check(std::string_view what, bool holds);
    void text(std::string_view what, std::string_view value);

    const std::vector<std::string>& lines() const { return lines_; }

  private:
    std::vector<std::string> lines_;
};

}  // namespace kernel_access
