// Every row of the matrix, in every shape, with its memory near, far and fresh: results, errno and contents
// must not tell which.
#include <gtest/gtest.h>
#include <liburing.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <string>

#include "tests/preload/far_memory.h"
#include "tests/preload/kernel/cases.h"

namespace kernel_access {
namespace {

struct Seen {
    std::vector<std::string> lines;
    std::string contents;
};

Seen run(const Case& row, Where where, const Shape& shape) {
    const testing::ScopedTrace trace(__FILE__, __LINE__, describe(where, shape));
    Memory memory(where, shape);
    Outcome outcome;
    row.body(memory, outcome);
    EXPECT_EQ(memory.went_away(), where != Where::near) << "the case took nothing away";
    EXPECT_TRUE(memory.surroundings_are_intact());
    return {outcome.lines(), memory.contents()};
}

void expect_the_same(const Seen& near, const Seen& other) {
    EXPECT_EQ(near.lines, other.lines);
    ASSERT_EQ(near.contents.size(), other.contents.size());
    const auto [a, b] = std::mismatch(near.contents.begin(), near.contents.end(), other.contents.begin());
    if (a == near.contents.end()) return;
    ADD_FAILURE() << "byte " << a - near.contents.begin() << " of " << near.contents.size() << " is "
                  << static_cast<int>(*b) << ", not " << static_cast<int>(*a);
}

void compare(const Case& row, const Shape& shape) {
    const Seen near = run(row, Where::near, shape);
    for (const Where where : {Where::far, Where::zero}) {
        const Seen other = run(row, where, shape);
        const testing::ScopedTrace trace(__FILE__, __LINE__, describe(where, shape));
        expect_the_same(near, other);
    }
}

class Matrix : public testing::Test {
  public:
    explicit Matrix(const Case& row) : row_(row) {}
    void TestBody() override {
        for (const Shape& shape : shapes) {
            if (row_.every_shape || shape.data_bytes <= page_bytes) compare(row_, shape);
            if (HasFailure() || IsSkipped()) return;
        }
    }

  private:
    const Case& row_;
};

const char* suite_of(Access access) {
    switch (access) {
        case Access::synchronous:
            return "Synchronous";
        case Access::asleep:
            return "Asleep";
        case Access::signal:
            return "Signal";
        case Access::deferred:
            return "Deferred";
        case Access::foreign:
            return "Foreign";
        case Access::unqueued:
            return "Unqueued";
        case Access::exit:
            return "Exit";
        case Access::debugger:
            return "Debugger";
    }
    return "";
}

void register_all(std::span<const Case> rows) {
    for (const Case& row : rows) {
        testing::RegisterTest((std::string("KernelAccess") + suite_of(row.access)).c_str(), row.name, nullptr,
                              nullptr, __FILE__, __LINE__, [&row]() -> Matrix* { return new Matrix(row); });
    }
}

// Starts the program again under the library when PRELOAD_WITH says with which variables.
void preload(char** argv) {
    const char* const with = std::getenv("PRELOAD_WITH");
    if (with == nullptr || std::getenv("LD_PRELOAD") != nullptr) return;
    std::istringstream variables(with);
    for (std::string variable; variables >> variable;) {
        const std::size_t equals = variable.find('=');
        setenv(variable.substr(0, equals).c_str(), variable.substr(equals + 1).c_str(), 1);
    }
    setenv("LD_PRELOAD", PRELOAD_LIBRARY, 1);
    execv("/proc/self/exe", argv);
    std::abort();
}

// The inline engine gives way to handler threads, with far memory, before the first row. The ring stays open:
// what closing it leaves to be done later interrupts this thread then as a signal would, and getrandom(2)
// gives less than it was asked for, with pnode or without.
void change_engine() {
    preload_test::FarBlock block(std::size_t{16} << 20, 1);
    if (!becomes_mostly_far(block)) std::abort();
    static io_uring ring;
    int tries = 30;  // where others have the machine, it may be refused at first
    while (io_uring_queue_init(4, &ring, 0) != 0)
        if (--tries == 0) std::abort();
    if (!block.is_intact()) std::abort();
}

}  // namespace
}  // namespace kernel_access

int main(int argc, char** argv) {
    using namespace kernel_access;
    preload(argv);
    if (std::getenv("CHANGE_ENGINE") != nullptr) change_engine();
    testing::InitGoogleTest(&argc, argv);
    for (const auto rows :
         {file_cases, name_cases, socket_cases, wait_cases, thread_cases, signal_cases, ipc_cases,
          process_cases, deferred_cases, foreign_cases, library_cases, bad_pointer_cases}) {
        register_all(rows());
    }
    return RUN_ALL_TESTS();
}
