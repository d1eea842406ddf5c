// The dynamic loader keeps its lists of objects in malloc's memory, so in the heap, and they can be far.
// Whoever brings pages near must therefore never have a symbol looked up: what the preload library uses is
// bound at start, codecs and all. A program of its own, since the first decode tells.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "child.h"
#include "far_memory.h"

namespace {

using namespace preload_test;

// An object of global scope makes the loader allocate the list that every lookup walks.
TEST(Loader, ItsListsAreFarWhenTheFirstPageComesBack) {
    void* const plugin = dlopen(PLUGIN, RTLD_NOW | RTLD_GLOBAL);
    ASSERT_NE(plugin, nullptr) << dlerror();
    const FarBlock first(std::size_t{12} << 20, 1);
    const FarBlock second(std::size_t{12} << 20, 2);
    EXPECT_TRUE(first.is_intact());
    EXPECT_TRUE(second.is_intact());
    EXPECT_NE(dlsym(RTLD_DEFAULT, "malloc"), nullptr);
    dlclose(plugin);
}

// libc needs nobody else's lists.
TEST(Loader, WhatTheLibraryNeedsIsBoundAtStart) {
    const Directory directory;
    const char* const list =
        "ldd $0 | sed -n 's/.*=> \\([^ ]*\\) .*/\\1/p' | grep -v -e /libc.so -e /libm.so; "
        "echo $0";
    const Said needed = run({"/bin/sh", "-c", list, PRELOAD_LIBRARY}, {{"LD_PRELOAD", ""}}, directory);
    std::istringstream lines(needed.out);
    int objects = 0;
    for (std::string object; std::getline(lines, object); ++objects) {
        const Said dynamic = run({"readelf", "-d", object}, {{"LD_PRELOAD", ""}}, directory);
        EXPECT_NE(dynamic.out.find("NOW"), std::string::npos) << object << " binds lazily";
    }
    EXPECT_GT(objects, 1) << needed.err;
}

}  // namespace
