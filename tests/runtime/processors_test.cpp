// Where a thread runs, asked by another (runtime/os/processors.h).
#include "runtime/os/processors.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

namespace pnode::test {
namespace {

std::vector<int> processors_allowed() {
    cpu_set_t set;
    std::vector<int> found;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return found;
    for (int processor = 0; processor < CPU_SETSIZE; ++processor) {
        if (CPU_ISSET(processor, &set)) found.push_back(processor);
    }
    return found;
}

// A thread that goes where it is told, and waits there.
class Pinned {
  public:
    explicit Pinned(int processor)
        : thread_([this, processor] {
              cpu_set_t set;
              CPU_ZERO(&set);
              CPU_SET(processor, &set);
              sched_setaffinity(0, sizeof set, &set);
              number_ = static_cast<std::uint32_t>(syscall(SYS_gettid));
              number_.notify_all();
              ends_.wait(false);
          }) {
        number_.wait(0);
    }
    ~Pinned() {
        ends_ = true;
        ends_.notify_all();
        thread_.join();
    }
    std::uint32_t number() const { return number_; }

  private:
    std::atomic<std::uint32_t> number_{0};
    std::atomic<bool> ends_{false};
    std::thread thread_;
};

int processor_of(std::uint32_t thread) {
    return os::processor_told_at(os::processor_word_of(thread));
}

TEST(Processors, OfAThreadAreTold) {
    for (const int processor : processors_allowed()) {
        const Pinned thread(processor);
        EXPECT_EQ(processor_of(thread.number()), processor);
    }
    EXPECT_EQ(processor_of(0x3fffffff), -1);
    EXPECT_EQ(os::processor_told_at(8), -1);
}

// A number that the program has just closed is the next it gets: nothing of ours may be open there meanwhile.
TEST(Processors, AreToldWithoutADescriptor) {
    const std::vector<int> processors = processors_allowed();
    const Pinned thread(processors.back());
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    const rlimit none = {0, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    const int told = processor_of(thread.number());
    setrlimit(RLIMIT_NOFILE, &before);
    EXPECT_EQ(told, processors.back());
}

}  // namespace
}  // namespace pnode::test
