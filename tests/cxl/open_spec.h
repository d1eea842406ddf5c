// Opening regions by their spec, and being refused with the cure named.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "cxl/region.h"

namespace pnode::cxl {

struct Opened {
    int error;
    std::unique_ptr<Region> region;
    std::string message;
};

inline Opened open_spec(const std::string& spec) {
    Opened opened{};
    opened.error = open_region(spec, &opened.region, &opened.message);
    EXPECT_EQ(opened.error == 0, opened.region != nullptr) << spec;
    EXPECT_EQ(opened.error == 0, opened.message.empty()) << spec << opened.message;
    EXPECT_EQ(opened.message.find('\n'), std::string::npos);
    return opened;
}

inline void expect_refused(const std::string& spec, int error, const char* words) {
    const Opened opened = open_spec(spec);
    EXPECT_EQ(opened.error, error) << spec << ": " << opened.message;
    EXPECT_NE(opened.message.find(words), std::string::npos) << opened.message;
}

}  // namespace pnode::cxl
