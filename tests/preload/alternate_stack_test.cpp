// An alternate signal stack is the program's memory: while no handler runs there it may be unmapped, freed and
// used for something else, though it is still set. Nothing but the program's handlers may write to it.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>

#include "far_memory.h"

namespace {

using namespace preload_test;

constexpr std::size_t stack_bytes = std::size_t{128} << 10;
constexpr std::size_t large_bytes = std::size_t{32} << 20;

void set_stack(void* address) {
    const stack_t stack = {address, 0, stack_bytes};
    ASSERT_EQ(sigaltstack(&stack, nullptr), 0);
}

// Faults, system calls of libc's and bare ones.
bool works(FarBlock& block) {
    int ends[2];
    if (!becomes_mostly_far(block) || !block.is_intact() || pipe(ends) != 0) return false;
    close(ends[0]);
    close(ends[1]);
    return syscall(SYS_getppid) == getppid();
}

// In a child, whose stack this is: it may end by a signal.
int status_of(const std::function<bool()>& body) {
    const pid_t child = fork();
    if (child == 0) _exit(body() ? 0 : 1);
    int status = 0;
    waitpid(child, &status, 0);
    return status;
}

TEST(AlternateStack, MayBeUnmappedWhileItIsSet) {
    const int status = status_of([] {
        FarBlock block(large_bytes, 1);
        void* const stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        set_stack(stack);
        return works(block) && munmap(stack, stack_bytes) == 0 && works(block);
    });
    EXPECT_EQ(status, 0) << "ended by signal " << WTERMSIG(status);
}

TEST(AlternateStack, MayBeUnmappedByABareCallWhileItIsSet) {
    const int status = status_of([] {
        FarBlock block(large_bytes, 2);
        void* const stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        set_stack(stack);
        return works(block) && syscall(SYS_munmap, stack, stack_bytes) == 0 && works(block);
    });
    EXPECT_EQ(status, 0) << "ended by signal " << WTERMSIG(status);
}

TEST(AlternateStack, IsWhosItIsNext) {
    const int status = status_of([] {
        FarBlock block(large_bytes, 3);
        auto* const stack = static_cast<unsigned char*>(std::aligned_alloc(page_bytes, stack_bytes));
        set_stack(stack);
        std::memset(stack, 0x5a, stack_bytes);  // as its next owner would: the very same bytes, whoever gets them
        if (!works(block)) return false;
        for (std::size_t at = 0; at < stack_bytes; ++at) {
            if (stack[at] != 0x5a) return false;
        }
        return true;
    });
    EXPECT_EQ(status, 0) << "somebody wrote to memory of the program's";
}

}  // namespace
