// fork() and its kin, under the preload library, with memory that is far.
#include <gtest/gtest.h>
#include <pthread.h>
#include <pwd.h>
#include <spawn.h>
#include <sys/wait.h>

#include <atomic>
#include <barrier>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "far_memory.h"
#include "forked.h"

extern "C" char** environ;

namespace {

using preload_test::becomes_far;
using preload_test::becomes_mostly_far;
using preload_test::exit_code_of_child;
using preload_test::FarBlock;
using preload_test::page_bytes;

constexpr std::size_t large_bytes = std::size_t{32} << 20;  // four times the near limit

// On a page of its own, so that nobody keeps it near.
char* on_own_page(const char* text) {
    char* page = static_cast<char*>(std::aligned_alloc(page_bytes, page_bytes));
    std::strcpy(page, text);
    return page;
}

TEST(Fork, ChildAndParentReadEveryFarByte) {
    FarBlock block(large_bytes, 1);
    ASSERT_TRUE(becomes_mostly_far(block));
    EXPECT_EQ(exit_code_of_child([&] { return block.is_intact() ? 0 : 1; }), 0);
    EXPECT_TRUE(block.is_intact());
}

TEST(Fork, ChildSeesTheMomentOfTheFork) {
    FarBlock block(large_bytes, 2);
    ASSERT_TRUE(becomes_mostly_far(block));
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    if (child == 0) {
        close(ready[1]);
        char byte = 0;
        if (read(ready[0], &byte, 1) != 1) _exit(2);
        _exit(block.is_intact() ? 0 : 1);
    }
    block.rewrite(3);
    ASSERT_EQ(write(ready[1], "x", 1), 1);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
    close(ready[0]);
    close(ready[1]);
    EXPECT_TRUE(block.is_intact());
}

TEST(Fork, ParentDoesNotSeeWhatTheChildWrites) {
    FarBlock block(large_bytes, 4);
    ASSERT_TRUE(becomes_mostly_far(block));
    EXPECT_EQ(exit_code_of_child([&] {
                  block.rewrite(5);
                  return block.is_intact() ? 0 : 1;
              }),
              0);
    EXPECT_TRUE(block.is_intact());
}

TEST(Fork, GrandchildrenReadEveryByte) {
    FarBlock block(large_bytes, 6);
    ASSERT_TRUE(becomes_mostly_far(block));
    const auto grandchild = [&] { return block.is_intact() ? 0 : 1; };
    const auto child = [&] {
        const int deeper = exit_code_of_child([&] { return exit_code_of_child(grandchild); });
        return deeper != 0 ? deeper : grandchild();
    };
    EXPECT_EQ(exit_code_of_child(child), 0);
    EXPECT_TRUE(block.is_intact());
}

// Reads its snapshot when the parent, whose node it is in, is gone; so does its own child.
TEST(Fork, ChildOutlivesItsParent) {
    FarBlock block(large_bytes, 21);
    ASSERT_TRUE(becomes_mostly_far(block));
    int gone[2];  // its write end is closed by the middle process's end
    int said[2];
    ASSERT_EQ(pipe(gone), 0);
    ASSERT_EQ(pipe(said), 0);
    const pid_t middle = fork();
    if (middle == 0) {
        block.rewrite(22);
        if (fork() != 0) {
            block.rewrite(23);
            _exit(0);
        }
        close(gone[1]);
        char byte = 0;
        if (read(gone[0], &byte, 1) != 0) _exit(2);
        const bool right =
            block.is_intact() && exit_code_of_child([&] { return block.is_intact() ? 0 : 1; }) == 0;
        _exit(write(said[1], right ? "y" : "n", 1) == 1 ? 0 : 1);
    }
    close(gone[1]);
    close(said[1]);
    int status = 0;
    ASSERT_EQ(waitpid(middle, &status, 0), middle);
    EXPECT_EQ(status, 0);
    char answer = 0;
    EXPECT_EQ(read(said[0], &answer, 1), 1);
    EXPECT_EQ(answer, 'y');
    close(gone[0]);
    close(said[0]);
    EXPECT_TRUE(block.is_intact());
}

// As servers do that start as root: what the first fork needed may not be asked for again.
TEST(Fork, OfAProcessThatGaveItsPrivilegesAway) {
    FarBlock block(large_bytes, 24);
    ASSERT_TRUE(becomes_mostly_far(block));
    EXPECT_EQ(exit_code_of_child([&] {
                  if (!becomes_mostly_far(block)) return 4;
                  constexpr uid_t nobody = 65534;
                  if (geteuid() == 0 && setresuid(nobody, nobody, nobody) != 0) return 5;
                  const int child = exit_code_of_child([&] { return block.is_intact() ? 0 : 1; });
                  return child != 0 ? child : block.is_intact() ? 0 : 2;
              }),
              0);
    EXPECT_TRUE(block.is_intact());
}

TEST(Fork, ChildAllocatesPastTheNearLimitToo) {
    FarBlock block(large_bytes, 7);
    EXPECT_EQ(exit_code_of_child([&] {
                  const FarBlock own(large_bytes, 8);
                  return own.is_intact() && block.is_intact() ? 0 : 1;
              }),
              0);
    EXPECT_TRUE(block.is_intact());
}

TEST(Fork, ChildMayStartThreads) {
    FarBlock block(large_bytes, 9);
    EXPECT_EQ(exit_code_of_child([&] {
                  std::atomic<int> broken{0};
                  std::vector<std::thread> threads;
                  for (std::uint64_t i = 0; i < 4; ++i) {
                      threads.emplace_back([&broken, i] {
                          const FarBlock own(std::size_t{4} << 20, i);
                          if (!own.is_intact()) ++broken;
                      });
                  }
                  for (std::thread& thread : threads) thread.join();
                  return broken == 0 && block.is_intact() ? 0 : 1;
              }),
              0);
}

TEST(Fork, WhileOtherThreadsAllocateAndTouch) {
    FarBlock block(large_bytes, 10);
    std::atomic<bool> stop{false};
    std::atomic<int> broken{0};
    std::barrier started(4);
    std::vector<std::thread> threads;
    for (std::uint64_t i = 0; i < 3; ++i) {
        threads.emplace_back([&, i] {
            started.arrive_and_wait();
            while (!stop) {
                const FarBlock own(std::size_t{1} << 20, i);
                const FarBlock small(700, i);
                if (!own.is_intact() || !small.is_intact()) ++broken;
            }
        });
    }
    started.arrive_and_wait();
    for (int i = 0; i < 12; ++i) {
        EXPECT_EQ(exit_code_of_child([&] {
                      const FarBlock own(std::size_t{1} << 20, 11);
                      return own.is_intact() && block.is_intact() ? 0 : 1;
                  }),
                  0);
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(broken, 0);
    EXPECT_TRUE(block.is_intact());
}

// A thread's start reads the heads of the locale's tables, which come from malloc: a child's first handler
// thread must not wait for itself.
TEST(Fork, WhereWhatAThreadsStartReadsIsFar) {
    ASSERT_NE(std::setlocale(LC_ALL, "C.UTF-8"), nullptr);
    FarBlock block(large_bytes, 17);
    for (int round = 0; round < 4; ++round) ASSERT_TRUE(block.is_intact());  // what nobody touches leaves
    for (int round = 0; round < 8; ++round)
        EXPECT_EQ(exit_code_of_child([&] { return block.is_intact() ? 0 : 1; }), 0);
    std::setlocale(LC_ALL, "C");
}

// libc writes to every open stream in the child before any fork handler of the child runs.
TEST(Fork, StreamsOnFarPagesSurvive) {
    std::vector<FILE*> streams;
    std::vector<char*> neighbours;
    for (int i = 0; i < 40; ++i) {
        streams.push_back(std::tmpfile());
        ASSERT_NE(streams.back(), nullptr);
        neighbours.push_back(strdup("beside a stream"));
        ASSERT_GT(std::fprintf(streams.back(), "stream %d", i), 0);
        ASSERT_EQ(std::fflush(streams.back()), 0);
    }
    FarBlock block(large_bytes, 12);
    ASSERT_TRUE(becomes_far(streams[20], sizeof(FILE), 0, block));
    EXPECT_EQ(exit_code_of_child([&] {
                  for (FILE* stream : streams) {
                      std::rewind(stream);
                      int number = -1;
                      if (std::fscanf(stream, "stream %d", &number) != 1) return 1;
                      if (std::fputs(" more", stream) < 0 || std::fclose(stream) != 0) return 2;
                  }
                  for (const char* text : neighbours) {
                      if (std::strcmp(text, "beside a stream") != 0) return 3;
                  }
                  return block.is_intact() ? 0 : 4;
              }),
              0);
    for (FILE* stream : streams) EXPECT_EQ(std::fclose(stream), 0);
    for (char* text : neighbours) {
        EXPECT_STREQ(text, "beside a stream");
        std::free(text);
    }
}

// libc clears the second level of other threads' values in the child before any fork handler runs there.
TEST(Fork, ThreadSpecificValuesOfOtherThreadsHarmNothing) {
    std::vector<pthread_key_t> keys(64);
    for (pthread_key_t& key : keys) ASSERT_EQ(pthread_key_create(&key, nullptr), 0);
    std::vector<char*> neighbours;
    std::barrier ready(2);
    std::barrier done(2);
    std::thread other([&] {
        for (const pthread_key_t key : keys) {
            pthread_setspecific(key, &keys);
            neighbours.push_back(static_cast<char*>(std::calloc(31, 16)));
            std::strcpy(neighbours.back(), "in the same size class");
        }
        ready.arrive_and_wait();
        done.arrive_and_wait();
    });
    ready.arrive_and_wait();
    FarBlock block(large_bytes, 13);
    const bool far = becomes_far(neighbours[30], 496, 0, block);
    const auto all_there = [&] {
        for (const char* text : neighbours) {
            if (std::strcmp(text, "in the same size class") != 0) return 1;
        }
        return 0;
    };
    EXPECT_TRUE(far);
    EXPECT_EQ(exit_code_of_child(all_there), 0);
    done.arrive_and_wait();
    other.join();
    EXPECT_EQ(all_there(), 0);
    for (char* text : neighbours) std::free(text);
    for (const pthread_key_t key : keys) pthread_key_delete(key);
}

// libc's fork() reads its name-service state when the runtime serves no fault.
TEST(Fork, AfterANameServiceLookup) {
    ASSERT_NE(getpwuid(0), nullptr);
    FarBlock block(large_bytes, 19);
    for (std::uint64_t round = 0; round < 4; ++round) {
        ASSERT_TRUE(becomes_mostly_far(block));
        EXPECT_EQ(exit_code_of_child([] { return getpwuid(0) != nullptr ? 0 : 1; }), 0);
        block.rewrite(20 + round);
    }
}

TEST(Fork, HandlersOfTheProgramMayAllocate) {
    static int calls = 0;
    const auto handler = [] {
        const FarBlock own(std::size_t{1} << 20, 14);
        if (own.is_intact()) ++calls;
    };
    ASSERT_EQ(pthread_atfork(handler, handler, handler), 0);
    FarBlock block(large_bytes, 15);
    EXPECT_EQ(exit_code_of_child([&] { return calls == 2 && block.is_intact() ? 0 : 1; }), 0);
    EXPECT_EQ(calls, 2);
}

// The strings are read by the kernel, for a process that shares our memory.
TEST(Spawn, ArgumentsMayBeFar) {
    char* text = on_own_page("argument that went far");
    char* path = on_own_page("/bin/sh");
    char* script = on_own_page("test \"$1\" = 'argument that went far' && exit 23");
    FarBlock block(large_bytes, 16);
    ASSERT_TRUE(becomes_far(text, 1, 0, block));
    char* arguments[] = {path, const_cast<char*>("-c"), script, path, text, nullptr};
    pid_t child = 0;
    ASSERT_EQ(posix_spawn(&child, path, nullptr, nullptr, arguments, environ), 0);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(WEXITSTATUS(status), 23);

    ASSERT_TRUE(becomes_far(text, 1, 0, block));
    EXPECT_EQ(exit_code_of_child([&] {
                  execv(path, arguments);
                  return 1;
              }),
              23);
    const pid_t vforked = vfork();
    if (vforked == 0) {
        execv(path, arguments);
        _exit(1);
    }
    ASSERT_EQ(waitpid(vforked, &status, 0), vforked);
    EXPECT_EQ(WEXITSTATUS(status), 23);
    EXPECT_TRUE(block.is_intact());
    std::free(text);
    std::free(path);
    std::free(script);
}

TEST(Spawn, SystemAndPopenWork) {
    FarBlock block(large_bytes, 18);
    EXPECT_EQ(WEXITSTATUS(std::system("exit 5")), 5);
    FILE* pipe = popen("echo one; echo two; exit 6", "r");
    ASSERT_NE(pipe, nullptr);
    std::string text;
    for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) text += static_cast<char>(c);
    EXPECT_EQ(WEXITSTATUS(pclose(pipe)), 6);
    EXPECT_EQ(text, "one\ntwo\n");
    EXPECT_TRUE(block.is_intact());
}

}  // namespace
