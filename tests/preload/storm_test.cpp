// Many threads that fault at once, that end while they fault, and whose memory changes under them, under the
// preload library.
#include <dlfcn.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <latch>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "far_memory.h"

namespace {

using preload_test::becomes_far;
using preload_test::becomes_mostly_far;
using preload_test::FarBlock;
using preload_test::large_bytes;
using preload_test::page_bytes;

constexpr std::size_t pages = large_bytes / page_bytes;

// Threads on small stacks of the kernel's; all of them run `body` at about the same time.
template <class Body>
void run_together(int count, Body& body) {
    struct Shared {
        Body* body;
        std::latch ready;
        std::atomic<int> next{0};
    } shared{&body, std::latch(count)};
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, std::size_t{128} << 10);
    std::vector<pthread_t> threads(static_cast<std::size_t>(count));
    for (pthread_t& thread : threads) {
        const auto main = +[](void* argument) -> void* {
            auto& all = *static_cast<Shared*>(argument);
            const int index = all.next++;
            all.ready.arrive_and_wait();
            (*all.body)(index);
            return nullptr;
        };
        ASSERT_EQ(pthread_create(&thread, &attributes, main, &shared), 0);
    }
    for (const pthread_t thread : threads) pthread_join(thread, nullptr);
    pthread_attr_destroy(&attributes);
}

constexpr int many = 500;

TEST(Storm, FiveHundredThreadsOnOnePage) {
    FarBlock block(large_bytes, 1);
    for (int round = 0; round < 5; ++round) {
        ASSERT_TRUE(becomes_far(block.data() + page_bytes * 100, page_bytes, 0, block));
        std::atomic<int> wrong{0};
        auto body = [&](int) { wrong += block.page_is_intact(101) && block.page_is_intact(100) ? 0 : 1; };
        run_together(many, body);
        EXPECT_EQ(wrong, 0);
    }
}

TEST(Storm, FiveHundredThreadsOnFiveHundredPages) {
    FarBlock block(large_bytes, 2);
    for (int round = 0; round < 5; ++round) {
        ASSERT_TRUE(becomes_mostly_far(block));
        std::atomic<int> wrong{0};
        auto body = [&](int index) {
            wrong += block.page_is_intact(static_cast<std::size_t>(index) * 7 + 1) ? 0 : 1;
        };
        run_together(many, body);
        EXPECT_EQ(wrong, 0);
    }
    EXPECT_TRUE(block.is_intact());
}

// ---- threads that end while they fault ----

struct Reader {
    const FarBlock* block;
    std::atomic<bool> begun{false};
    std::atomic<bool> wrong{false};
};

void* read_for_ever(void* argument) {
    auto& reader = *static_cast<Reader*>(argument);
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, nullptr);
    reader.begun = true;
    for (std::size_t page = 0;; page = (page + 31) % pages) {
        if (!reader.block->page_is_intact(page)) reader.wrong = true;
    }
}

TEST(Storm, ThreadsAreCancelledWhileTheyFault) {
    FarBlock block(large_bytes, 3);
    ASSERT_TRUE(becomes_mostly_far(block));
    for (int round = 0; round < 100; ++round) {
        Reader reader{&block, {}, {}};
        pthread_t thread{};
        ASSERT_EQ(pthread_create(&thread, nullptr, read_for_ever, &reader), 0);
        while (!reader.begun) std::this_thread::yield();
        usleep(static_cast<useconds_t>(round * 37 % 1000));
        ASSERT_EQ(pthread_cancel(thread), 0);
        void* result = nullptr;
        ASSERT_EQ(pthread_join(thread, &result), 0);
        EXPECT_EQ(result, PTHREAD_CANCELED);
        EXPECT_FALSE(reader.wrong);
    }
    EXPECT_TRUE(block.is_intact());
}

// A thread that waits in the kernel, which will write to a far page, is cancelled; the page is not harmed.
TEST(Storm, AThreadIsCancelledInASystemCallOnFarMemory) {
    FarBlock block(large_bytes, 4);
    auto* buffer = static_cast<char*>(std::aligned_alloc(page_bytes, page_bytes));
    std::strcpy(buffer, "before");
    struct Call {
        char* buffer;
        int from;
    };
    for (int round = 0; round < 4; ++round) {
        int ends[2];
        ASSERT_EQ(pipe(ends), 0);
        ASSERT_TRUE(becomes_far(buffer, page_bytes, 0, block));
        Call call{buffer, ends[0]};
        pthread_t thread{};
        ASSERT_EQ(pthread_create(
                      &thread, nullptr,
                      [](void* argument) -> void* {
                          const auto* mine = static_cast<Call*>(argument);
                          const ssize_t got = read(mine->from, mine->buffer + 100, 10);
                          return reinterpret_cast<void*>(got);
                      },
                      &call),
                  0);
        if (round % 2 == 1) {
            ASSERT_EQ(write(ends[1], "0123456789", 10), 10);
        }
        pthread_cancel(thread);
        void* result = nullptr;
        ASSERT_EQ(pthread_join(thread, &result), 0);
        EXPECT_TRUE(result == PTHREAD_CANCELED || result == reinterpret_cast<void*>(10));
        EXPECT_STREQ(buffer, "before");
        close(ends[0]);
        close(ends[1]);
    }
    std::free(buffer);
}

std::atomic<int> exit_wrong{0};
FarBlock* last_words = nullptr;

// The destructors of a thread's values run when the thread is nearly gone.
TEST(Storm, ThreadsEndWhileTheyAndOthersFault) {
    FarBlock block(large_bytes, 5);
    last_words = &block;
    exit_wrong = 0;
    pthread_key_t key{};
    ASSERT_EQ(pthread_key_create(&key,
                                 [](void* value) {
                                     const auto page = reinterpret_cast<std::size_t>(value) % pages;
                                     exit_wrong += last_words->page_is_intact(page) ? 0 : 1;
                                 }),
              0);
    ASSERT_TRUE(becomes_mostly_far(block));
    for (int round = 0; round < 4; ++round) {
        auto body = [&](int index) {
            pthread_setspecific(
                key, reinterpret_cast<void*>(std::size_t{1} + static_cast<std::size_t>(index) * 61));
            for (std::size_t i = 0; i < 20; ++i)
                exit_wrong +=
                    block.page_is_intact((static_cast<std::size_t>(index) * 97 + i * 13) % pages) ? 0 : 1;
            if (index % 2 == 0) pthread_exit(nullptr);
        };
        run_together(100, body);
    }
    pthread_key_delete(key);
    EXPECT_EQ(exit_wrong, 0);
}

// ---- memory that changes under threads that fault ----

// Pages of an area that threads read while it is mapped away, moved and mapped again. A page reads as zeros
// or as its own number, or there is no page: then the reader's handler jumps out.
thread_local sigjmp_buf no_page;

void jump_from_no_page(int) {
    siglongjmp(no_page, 1);
}

class ChangingArea {
  public:
    static constexpr std::size_t area_pages = 512;

    ChangingArea() {
        struct sigaction action = {};
        action.sa_handler = jump_from_no_page;
        action.sa_flags = SA_NODEFER;
        sigaction(SIGSEGV, &action, &former_);
        first_ = map(nullptr, area_pages);
        other_ = map(nullptr, area_pages);
        fill(first_, area_pages, 0);
    }
    ~ChangingArea() {
        munmap(first_, area_pages * page_bytes);
        munmap(other_, area_pages * page_bytes);
        sigaction(SIGSEGV, &former_, nullptr);
    }
    ChangingArea(const ChangingArea&) = delete;
    ChangingArea& operator=(const ChangingArea&) = delete;

    static std::byte* map(void* at, std::size_t count) {
        void* mapping = mmap(at, count * page_bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | (at != nullptr ? MAP_FIXED : 0), -1, 0);
        if (mapping == MAP_FAILED) std::abort();
        return static_cast<std::byte*>(mapping);
    }
    // Each word of a page is its number plus one.
    static void fill(std::byte* at, std::size_t count, std::size_t number) {
        for (std::size_t i = 0; i < count * page_bytes / 8; ++i)
            reinterpret_cast<volatile std::uint64_t*>(at)[i] = number + i / (page_bytes / 8) + 1;
    }
    bool page_reads_right(std::size_t page) const {
        if (sigsetjmp(no_page, 0) != 0) return true;
        const auto* words = reinterpret_cast<const volatile std::uint64_t*>(first_ + page * page_bytes);
        const std::uint64_t word = words[page * 29 % 512];
        return word == 0 || word == page + 1;
    }
    // Takes a piece away, moves it elsewhere and back, or maps it anew; its bytes are right at each step that
    // nobody else can see.
    bool change(std::mt19937& random) {
        const std::size_t page = random() % (area_pages - 64);
        const std::size_t count = 1 + random() % 64;
        std::byte* const at = first_ + page * page_bytes;
        std::byte* const aside = other_ + page * page_bytes;
        const std::size_t bytes = count * page_bytes;
        switch (random() % 4) {
            case 0:
                munmap(at, bytes);
                map(at, count);
                fill(at, count, page);
                return true;
            case 1:
                madvise(at, bytes, MADV_DONTNEED);
                fill(at, count, page);
                return true;
            case 2:
                madvise(at, bytes, MADV_PAGEOUT);
                return true;
            default:
                if (mremap(at, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, aside) != aside) return false;
                for (std::size_t i = 0; i < count; ++i) {
                    const std::uint64_t word =
                        *reinterpret_cast<volatile std::uint64_t*>(aside + i * page_bytes);
                    if (word != page + i + 1) return false;
                }
                return mremap(aside, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, at) == at &&
                       map(aside, count) == aside;
        }
    }

  private:
    std::byte* first_;
    std::byte* other_;
    struct sigaction former_ = {};
};

TEST(Storm, AgainstUnmappingMovingAndForking) {
    FarBlock pressure(large_bytes, 6);
    ChangingArea area;
    std::atomic<bool> stop{false};
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    std::latch started(4);
    for (unsigned t = 0; t < 3; ++t) {
        threads.emplace_back([&, t] {
            std::mt19937 random(t + 1);
            started.arrive_and_wait();
            while (!stop) {
                if (!area.page_reads_right(random() % ChangingArea::area_pages)) ++wrong;
                if (!pressure.page_is_intact(random() % pages)) ++wrong;
            }
        });
    }
    started.arrive_and_wait();
    std::mt19937 random(42);
    for (int round = 0; round < 600; ++round) {
        ASSERT_TRUE(area.change(random)) << "change " << round;
        if (round % 50 != 0) continue;
        const pid_t child = fork();
        if (child == 0) {
            for (std::size_t page = 0; page < ChangingArea::area_pages; ++page) {
                if (!area.page_reads_right(page)) _exit(1);
            }
            for (std::size_t page = 0; page < pages; page += 5) {
                if (!pressure.page_is_intact(page)) _exit(2);
            }
            _exit(0);
        }
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0);
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
    EXPECT_TRUE(pressure.is_intact());
}

// Many children at once, each of which reads, writes and forks; the parent goes on writing and freeing.
TEST(Storm, TwentyChildrenAtOnce) {
    std::vector<pid_t> children;
    int door[2];
    ASSERT_EQ(pipe(door), 0);
    constexpr std::size_t bytes = std::size_t{10} << 20;  // more than the near limit
    FarBlock block(bytes, 1000);
    for (std::uint64_t generation = 0; generation < 20; ++generation) {
        block.rewrite(1000 + generation);
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            close(door[1]);
            char byte = 0;
            if (read(door[0], &byte, 1) < 0) _exit(2);  // until the parent opens, or is gone
            if (!block.is_intact()) _exit(1);
            block.rewrite(5000 + generation);
            const pid_t grandchild = fork();
            if (grandchild == 0) _exit(block.is_intact() ? 0 : 1);
            int status = 0;
            if (waitpid(grandchild, &status, 0) != grandchild || status != 0) _exit(3);
            _exit(block.is_intact() ? 0 : 4);
        }
        children.push_back(child);
    }
    close(door[0]);
    block.rewrite(2000);
    {
        FarBlock more(bytes, 2001);
        EXPECT_TRUE(more.is_intact());
    }
    close(door[1]);
    for (const pid_t child : children) {
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0);
    }
    EXPECT_TRUE(block.is_intact());
}

// ---- what a server does: many small records, counted while they are read, of which children write copies
// ----

class Records {
  public:
    explicit Records(std::size_t count) {
        for (std::size_t id = 0; id < count; ++id) {
            records_.push_back(new Record{0, 1, nullptr, id});
            records_.back()->text = text_of(id, 'x');
        }
    }
    ~Records() {
        for (Record* const record : records_) {
            std::free(record->text);
            delete record;
        }
    }
    Records(const Records&) = delete;
    Records& operator=(const Records&) = delete;

    std::size_t count() const { return records_.size(); }
    // Read, counted, read and no longer counted, each on its own access.
    bool is_right(std::size_t id) {
        volatile Record& record = *records_[id];
        const bool counted = record.kind == 0 && record.users == 1;
        record.users = record.users + 1;
        const char* const text = record.text;
        const bool right = counted && record.id == id && text != nullptr && has(text, id);
        record.users = record.users - 1;
        if (!right) tell(id);
        return right;
    }
    bool all_are_right(std::size_t step) {
        for (std::size_t i = 0; i < count(); i += step) {
            if (!is_right(i * 7919 % count())) return false;  // a prime: each once, in no order
        }
        return true;
    }
    std::size_t any() { return random_() % count(); }
    void rewrite(std::size_t id) {
        std::free(records_[id]->text);
        records_[id]->text = text_of(id, 'y');
    }

  private:
    struct Record {
        unsigned kind;
        unsigned users;
        char* text;
        std::size_t id;
    };
    static constexpr std::size_t text_bytes = 200;
    static constexpr std::size_t number_bytes = sizeof(std::size_t);

    static char* text_of(std::size_t id, char fill) {
        auto* const text = static_cast<char*>(std::malloc(text_bytes));
        std::memset(text, fill, text_bytes);
        std::memcpy(text, &id, number_bytes);
        std::memcpy(text + text_bytes - number_bytes, &id, number_bytes);
        return text;
    }
    static bool has(const char* text, std::size_t id) {
        return std::memcmp(text, &id, number_bytes) == 0 &&
               std::memcmp(text + text_bytes - number_bytes, &id, number_bytes) == 0;
    }
    // What a wrong record looks like says where it came from. It may be a child that finds it.
    void tell(std::size_t id) const {
        const Record& record = *records_[id];
        dprintf(STDERR_FILENO, "process %d: record %zu at %p: kind %u, users %u, id %zu, text %p\n", getpid(),
                id, static_cast<const void*>(&record), record.kind, record.users, record.id,
                static_cast<const void*>(record.text));
        if (record.text == nullptr) return;
        const auto page = reinterpret_cast<std::uintptr_t>(record.text) & ~(page_bytes - 1);
        const char* const bytes = reinterpret_cast<const char*>(page);
        dprintf(STDERR_FILENO, "  its text's page: %td zeros, %td x, %td y; the text:",
                std::count(bytes, bytes + page_bytes, '\0'), std::count(bytes, bytes + page_bytes, 'x'),
                std::count(bytes, bytes + page_bytes, 'y'));
        for (std::size_t i = 0; i < 2 * number_bytes; ++i)
            dprintf(STDERR_FILENO, " %02x", static_cast<unsigned char>(record.text[i]));
        dprintf(STDERR_FILENO, "\n");
    }

    std::vector<Record*> records_;
    std::mt19937_64 random_{42};
};

void count_while_children_read(Records& records, long rounds) {
    for (long round = 0; round < rounds; ++round) {
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) _exit(records.all_are_right(3) ? 0 : 1);
        int status = 0;
        while (waitpid(child, &status, WNOHANG) == 0) {
            std::free(std::calloc(1, 1000 + records.any() % 20'000));
            ASSERT_TRUE(records.is_right(records.any())) << "round " << round << ", beside the child";
            usleep(100);
        }
        ASSERT_EQ(status, 0) << "round " << round;
        ASSERT_TRUE(records.all_are_right(1)) << "round " << round;
        for (std::size_t i = 0; i < records.count() / 50; ++i) records.rewrite(records.any());
    }
}

// Under stress each access is a fault.
std::size_t record_count() {
    return std::getenv("PNODE_STRESS") != nullptr ? 2'000 : 60'000;
}

// With PNODE_ROUNDS longer than here.
TEST(Storm, RecordsAreCountedWhileChildrenReadThem) {
    const char* const asked = std::getenv("PNODE_ROUNDS");
    Records records(record_count());
    count_while_children_read(records, asked != nullptr ? std::atol(asked) : 1);
}

// While it lives another process has the kernel compact its memory: pages migrate under everybody's feet.
class Compaction {
  public:
    Compaction() {
        const int fd = open("/proc/sys/vm/compact_memory", O_WRONLY | O_CLOEXEC);
        if (write(fd, "1", 1) == 1) process_ = fork();
        if (process_ == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            while (write(fd, "1", 1) == 1) usleep(20'000);
            _exit(0);
        }
        close(fd);
    }
    ~Compaction() {
        if (process_ <= 0) return;
        kill(process_, SIGKILL);
        waitpid(process_, nullptr, 0);
    }
    Compaction(const Compaction&) = delete;
    Compaction& operator=(const Compaction&) = delete;
    bool is_under_way() const { return process_ > 0 && waitpid(process_, nullptr, WNOHANG) == 0; }

  private:
    pid_t process_ = -1;
};

// A page that is on its way elsewhere has the kernel try again, within one UFFDIO_MOVE, of which it then
// counts less than it moved (runtime/os/userfaultfd.h).
TEST(Storm, RecordsAreCountedWhileTheirPagesMigrate) {
    Records records(record_count());
    const Compaction compaction;
    if (!compaction.is_under_way())
        GTEST_SKIP() << "only root may have memory compacted, and not in every container";
    count_while_children_read(records, 2);
    EXPECT_TRUE(compaction.is_under_way());
}

// ---- libraries that come and go, and what they do when they do ----

TEST(Storm, LibrariesWithConstructorsComeAndGo) {
    FarBlock block(large_bytes, 7);
    std::atomic<bool> stop{false};
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 3; ++t) {
        threads.emplace_back([&, t] {
            std::mt19937 random(t + 1);
            while (!stop) {
                if (!block.page_is_intact(random() % pages)) ++wrong;
            }
        });
    }
    for (int round = 0; round < 60; ++round) {
        void* library = dlopen(PLUGIN, RTLD_NOW);
        ASSERT_NE(library, nullptr) << dlerror();
        const auto kept = reinterpret_cast<bool (*)()>(dlsym(library, "plugin_kept_its_bytes"));
        ASSERT_NE(kept, nullptr);
        if (round % 20 == 0) {
            ASSERT_TRUE(becomes_mostly_far(block));
        }
        EXPECT_TRUE(kept());
        if (round % 10 == 0) {
            const pid_t child = fork();
            if (child == 0) _exit(!kept() ? 1 : dlclose(library) != 0 ? 2 : 0);
            int status = 0;
            ASSERT_EQ(waitpid(child, &status, 0), child);
            EXPECT_EQ(status, 0);
        }
        EXPECT_EQ(dlclose(library), 0);
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(wrong, 0);
    EXPECT_TRUE(block.is_intact());
}

}  // namespace
