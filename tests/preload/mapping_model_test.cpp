// Random sequences of mapping calls on twins (mapping_twin.h). PNODE_SEED=N replays one.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>

#include "far_memory.h"
#include "mapping_twin.h"

namespace {

using namespace preload_test;

constexpr std::size_t arena_pages = 1536;
constexpr std::size_t file_pages_whole = 64;
constexpr int steps = 2500;
constexpr std::size_t locked_pages_max = 64;
constexpr int dont_unmap = 4;      // MREMAP_DONTUNMAP
constexpr int populate_read = 22;  // MADV_POPULATE_READ, MADV_POPULATE_WRITE
constexpr int populate_write = 23;

// What the kernel keeps of a page beside its contents. Two pages that differ are never one mapping to it.
struct Page {
    bool mapped = false;
    int protection = PROT_NONE;
    bool locked = false;
    bool hidden = false;  // MADV_DONTFORK
    bool wiped = false;
    bool dumped = true;
    bool file = false;
    bool operator==(const Page&) const = default;
};

// Which page of the file it is, if it is one: of two side by side, the next. A mapping may grow past the
// file's end, where an access raises SIGBUS.
using FilePage = std::size_t;

// Two ranges of addresses with the same holes, and what is known of both.
struct Arena {
    std::byte* managed = nullptr;
    std::byte* kernel = nullptr;
    Page page[arena_pages];
    FilePage file_page[arena_pages] = {};
};

struct Part {
    Arena* arena;
    std::size_t first;
    std::size_t pages;
    std::byte* managed() const { return arena->managed + first * page_bytes; }
    std::byte* kernel() const { return arena->kernel + first * page_bytes; }
    std::size_t bytes() const { return pages * page_bytes; }
    Page* begin() const { return arena->page + first; }
    Page* end() const { return begin() + pages; }
    FilePage* file_pages() const { return arena->file_page + first; }
    void follows_in_file(FilePage from) const { std::iota(file_pages(), file_pages() + pages, from); }
    // Is there something to read or write, if the protection allows?
    bool has_contents(std::size_t index) const {
        const Page& page = begin()[index];
        return page.mapped && !(page.file && file_pages()[index] >= file_pages_whole);
    }
    Part page_at(std::size_t index) const { return {arena, first + index, 1}; }
};

// Nothing is allocated while it runs: what is allocated could come to lie in a hole of one twin.
class Model {
  public:
    explicit Model(std::uint64_t seed) : random_(seed) {
        file_ = static_cast<int>(syscall(SYS_memfd_create, "twin", 0));
        twin_file_ = static_cast<int>(syscall(SYS_memfd_create, "twin", 0));
        for (const int fd : {file_, twin_file_}) {
            if (ftruncate(fd, file_pages_whole * page_bytes) != 0) std::abort();
            for (std::size_t page = 0; page < file_pages_whole; ++page) {
                if (pwrite(fd, &page, sizeof(page), static_cast<off_t>(page * page_bytes)) != sizeof(page))
                    std::abort();
            }
        }
        constexpr std::size_t bytes = arena_pages * page_bytes;
        constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS;
        void* const managed = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
        void* const kernel = raw::map(nullptr, bytes, PROT_READ | PROT_WRITE, flags);
        if (managed == MAP_FAILED || kernel == MAP_FAILED) std::abort();
        arena_.managed = static_cast<std::byte*>(managed);
        arena_.kernel = static_cast<std::byte*>(kernel);
        Page page;
        page.mapped = true;
        page.protection = PROT_READ | PROT_WRITE;
        std::fill(std::begin(arena_.page), std::end(arena_.page), page);
    }
    ~Model() {
        munmap(arena_.managed, arena_pages * page_bytes);
        raw::unmap(arena_.kernel, arena_pages * page_bytes);
        close(file_);
        close(twin_file_);
    }
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    // Null, or what differed.
    const char* last() const { return last_; }
    const char* step() {
        using Step = const char* (Model::*)();
        static constexpr Step all[] = {
            &Model::write_pages, &Model::write_pages, &Model::write_pages, &Model::compare,
            &Model::compare,     &Model::map_fixed,   &Model::unmap,       &Model::protect,
            &Model::protect,     &Model::advise,      &Model::advise,      &Model::advise,
            &Model::map_fixed,   &Model::map_file,    &Model::map_if_free, &Model::remap,
            &Model::remap,       &Model::remap_fixed, &Model::lock,        &Model::unlock,
            &Model::look,        &Model::bad_calls};
        if (below(150) == 0) return fork_child();
        return (this->*all[below(std::size(all))])();
    }

    const char* compare_all() {
        for (std::size_t page = 0; page < arena_pages; ++page) {
            if (const char* wrong = compare_page({&arena_, page, 1}, true)) return wrong;
        }
        return nullptr;
    }

  private:
    std::size_t below(std::size_t bound) { return random_() % bound; }

    Part any_part(std::size_t pages_max) {
        const std::size_t first = below(arena_pages);
        return {&arena_, first, 1 + below(std::min(arena_pages - first, pages_max))};
    }
    static bool is_uniform(const Part& part) {
        return std::all_of(part.begin(), part.end(), [&](const Page& page) { return page == *part.begin(); });
    }
    static std::size_t mapped_pages(const Part& part) {  // before the first hole
        return static_cast<std::size_t>(
            std::find_if(part.begin(), part.end(), [](const Page& page) { return !page.mapped; }) -
            part.begin());
    }
    // What a step did, for whoever has to find out.
    const char* note(const char* what, int detail) {
        std::snprintf(last_, sizeof(last_), "%s %d", what, detail);
        return "the twins' results differ";
    }

    // ---- contents ----

    const char* write_pages() {
        const Part part = any_part(64);
        const bool fill = below(2) == 0;
        const std::uint64_t value = random_();
        for (std::size_t index = 0; index < part.pages; ++index) {
            const Page& page = part.begin()[index];
            if (!part.has_contents(index) || (page.protection & PROT_WRITE) == 0) continue;
            for (std::byte* twin : {part.managed(), part.kernel()}) {
                auto* words = reinterpret_cast<std::uint64_t*>(twin + index * page_bytes);
                if (fill) std::fill(words, words + page_bytes / 16, value + index);
                words[value % (page_bytes / 8)] = value;
            }
        }
        return nullptr;
    }
    const char* compare_page(const Part& part, bool probe) {
        const Page& page = *part.begin();
        const char* wrong = nullptr;
        if (part.has_contents(0) && (page.protection & PROT_READ) != 0) {
            if (std::memcmp(part.managed(), part.kernel(), page_bytes) != 0) wrong = "contents differ";
        } else if (probe) {
            if (prober_.can_read(part.managed())) wrong = "an inaccessible page can be read";
            if (prober_.can_read(part.kernel())) wrong = "the model is wrong: the kernel's twin can be read";
        }
        if (wrong != nullptr) {
            std::snprintf(last_, sizeof(last_), "page %zu%s%s, protection %d", part.first,
                          page.mapped ? "" : ", not mapped", page.file ? ", of a file" : "", page.protection);
        }
        return wrong;
    }
    const char* compare() {
        const Part part = any_part(256);
        for (std::size_t index = 0; index < part.pages; ++index) {
            if (const char* wrong = compare_page(part.page_at(index), below(8) == 0)) return wrong;
        }
        return nullptr;
    }

    // ---- mapping ----

    int any_protection() {
        static constexpr int all[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE};
        return all[below(std::size(all))];
    }
    const char* unmap() {
        const Part part = any_part(64);
        const Result managed = result_of([&] { return munmap(part.managed(), part.bytes()) != 0; });
        if (managed != result_of([&] { return raw::unmap(part.kernel(), part.bytes()) != 0; }))
            return note("unmap", managed.error);
        std::fill(part.begin(), part.end(), Page{});
        return nullptr;
    }
    const char* protect() {
        const Part part = any_part(256);
        const int protection = any_protection();
        const Result managed =
            result_of([&] { return mprotect(part.managed(), part.bytes(), protection) != 0; });
        if (managed != result_of([&] { return raw::protect(part.kernel(), part.bytes(), protection) != 0; }))
            return note("protect", managed.error);
        for (std::size_t index = 0; index < mapped_pages(part); ++index)
            part.begin()[index].protection = protection;
        return nullptr;
    }
    const char* map_over(const Part& part, int protection, int flags, int fd, int twin_fd, off_t offset) {
        const Result managed = result_of([&] {
            return mmap(part.managed(), part.bytes(), protection, flags, fd, offset) != part.managed();
        });
        const Result kernel = result_of([&] {
            return raw::map(part.kernel(), part.bytes(), protection, flags, twin_fd, offset) != part.kernel();
        });
        if (managed != kernel) return note("map_over", managed.error);
        if (managed.failed) return nullptr;
        Page page;
        page.mapped = true;
        page.protection = protection;
        page.file = fd >= 0;
        std::fill(part.begin(), part.end(), page);
        part.follows_in_file(static_cast<FilePage>(offset) / page_bytes);
        return nullptr;
    }
    const char* map_fixed() {
        return map_over(any_part(64), any_protection(),
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | (below(3) == 0 ? MAP_NORESERVE : 0) |
                            (below(4) == 0 ? MAP_POPULATE : 0),
                        -1, -1, 0);
    }
    const char* map_file() {
        const Part part = any_part(32);
        // Whether a private page sees what is written to its file later is nobody's promise: so two halves.
        const bool shared = below(2) == 0;
        const std::size_t page =
            below(file_pages_whole / 2 - part.pages + 1) + (shared ? file_pages_whole / 2 : 0);
        const auto offset = static_cast<off_t>(page * page_bytes);
        if (below(8) == 0)  // refused: nothing may have changed
            return map_over(part, PROT_READ, MAP_PRIVATE | MAP_FIXED, -1, -1, offset);
        return map_over(part, any_protection(), (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_FIXED, file_,
                        twin_file_, offset);
    }
    const char* map_if_free() {
        return map_over(any_part(8), any_protection(), MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
                        -1, 0);
    }

    // ---- mremap ----

    // Where it is, to another size: where a hole behind it allows, in place, else not at all.
    const char* remap() {
        const Part part = any_part(64);
        const std::size_t pages = 1 + below(std::min<std::size_t>(arena_pages - part.first, 96));
        if (pages > part.pages && !is_uniform(part)) return nullptr;
        void* at = nullptr;
        const Result expected = result_of([&] {
            at = raw::remap(part.kernel(), part.bytes(), pages * page_bytes, 0);
            return at == MAP_FAILED;
        });
        // Two mappings that the kernel did not join again: it alone knows of them.
        if (expected.error == EFAULT && part.begin()->mapped) return nullptr;
        const Result result = result_of([&] {
            at = mremap(part.managed(), part.bytes(), pages * page_bytes, 0);
            return at == MAP_FAILED;
        });
        if (result != expected) return note("mremap", result.error);
        if (result.failed) return nullptr;
        if (at != part.managed()) return "it moved";
        const Page page = *part.begin();
        if (pages < part.pages) std::fill(part.begin() + pages, part.end(), Page{});
        if (pages > part.pages) std::fill(part.end(), part.begin() + pages, page);
        for (std::size_t index = part.pages; index < pages; ++index)
            part.file_pages()[index] = part.file_pages()[index - 1] + 1;
        return nullptr;
    }
    const char* remap_fixed() {
        const Part from = any_part(32);
        const Part to = any_part(32);
        const std::size_t pages = std::min(from.pages, to.pages);
        const Part target{&arena_, to.first, pages};
        const Part source{&arena_, from.first, pages};
        if (!is_uniform(source) || !source.begin()->mapped) return nullptr;
        // Of a part of a locked mapping, MREMAP_DONTUNMAP unlocks the rest too: the kernel alone knows how
        // far.
        const int flags =
            MREMAP_MAYMOVE | MREMAP_FIXED |
            (below(4) == 0 && !source.begin()->file && !source.begin()->locked ? dont_unmap : 0);
        const Result expected = result_of([&] {
            return raw::remap(source.kernel(), source.bytes(), target.bytes(), flags, target.kernel()) ==
                   MAP_FAILED;
        });
        if (expected.error == EFAULT) return nullptr;
        const Result result = result_of([&] {
            return mremap(source.managed(), source.bytes(), target.bytes(), flags, target.managed()) ==
                   MAP_FAILED;
        });
        if (result != expected) return note("mremap onto", result.error);
        if (result.failed) return nullptr;
        std::fill(target.begin(), target.end(), *source.begin());
        // From 6.17 on the kernel moves several mappings at once.
        std::copy_n(source.file_pages(), pages, target.file_pages());
        for (Page& left : source) {
            if ((flags & dont_unmap) == 0) left = Page{};
            left.locked = false;
        }
        return nullptr;
    }

    // ---- advice and locks ----

    const char* advise() {
        static constexpr int all[] = {MADV_DONTNEED,
                                      MADV_DONTNEED,
                                      MADV_FREE,
                                      MADV_WILLNEED,
                                      MADV_COLD,
                                      MADV_PAGEOUT,
                                      MADV_PAGEOUT,
                                      MADV_PAGEOUT,
                                      MADV_DONTFORK,
                                      MADV_DOFORK,
                                      MADV_WIPEONFORK,
                                      MADV_KEEPONFORK,
                                      MADV_DONTDUMP,
                                      MADV_DODUMP,
                                      populate_read,
                                      populate_write,
                                      77,
                                      -1};
        const Part part = any_part(64);
        const int advice = all[below(std::size(all))];
        const Result managed = result_of([&] { return madvise(part.managed(), part.bytes(), advice) != 0; });
        const Result kernel =
            result_of([&] { return raw::advise(part.kernel(), part.bytes(), advice) != 0; });
        if (managed != kernel) return note("madvise", advice);
        // What was freed may still be there, or not.
        for (std::size_t index = 0; index < part.pages && advice == MADV_FREE; ++index) {
            const Page& page = part.begin()[index];
            if (page.locked && page.mapped) break;
            if (page.file && page.mapped) break;
            if (!page.mapped) continue;
            madvise(part.page_at(index).managed(), page_bytes, MADV_DONTNEED);
            raw::advise(part.page_at(index).kernel(), page_bytes, MADV_DONTNEED);
        }
        note_advice(part, advice, managed);
        return nullptr;
    }
    // Holes are passed over; another error ends it where it was met, which for these is a file page.
    static void note_advice(const Part& part, int advice, const Result& result) {
        for (Page& page : part) {
            if (!page.mapped) continue;
            if (advice == MADV_WIPEONFORK && page.file && result.failed) return;
            if (advice == MADV_DONTFORK) page.hidden = true;
            if (advice == MADV_DOFORK) page.hidden = false;
            if (advice == MADV_WIPEONFORK) page.wiped = true;
            if (advice == MADV_KEEPONFORK) page.wiped = false;
            if (advice == MADV_DONTDUMP) page.dumped = false;
            if (advice == MADV_DODUMP) page.dumped = true;
        }
    }
    const char* lock() {
        const Part part = any_part(16);
        const bool bare = std::any_of(part.begin(), part.end(), [](const Page& page) {
            return page.mapped && page.protection == PROT_NONE;
        });
        if (bare || locked_pages() > locked_pages_max)
            return nullptr;  // docs/behaviour.md: not the kernel's answer
        const Result managed = result_of([&] { return mlock(part.managed(), part.bytes()) != 0; });
        if (managed != result_of([&] { return raw::lock(part.kernel(), part.bytes()) != 0; }))
            return note("lock", managed.error);
        for (std::size_t index = 0; index < mapped_pages(part); ++index) part.begin()[index].locked = true;
        return nullptr;
    }
    const char* unlock() {
        const Part part = any_part(arena_pages);
        const Result managed = result_of([&] { return munlock(part.managed(), part.bytes()) != 0; });
        if (managed != result_of([&] { return raw::unlock(part.kernel(), part.bytes()) != 0; }))
            return note("unlock", managed.error);
        for (std::size_t index = 0; index < mapped_pages(part); ++index) part.begin()[index].locked = false;
        return nullptr;
    }
    std::size_t locked_pages() const {
        return static_cast<std::size_t>(std::count_if(std::begin(arena_.page), std::end(arena_.page),
                                                      [](const Page& page) { return page.locked; }));
    }
    const char* look() {
        const Part part = any_part(256);
        static unsigned char present[arena_pages];
        if (result_of([&] { return mincore(part.managed(), part.bytes(), present) != 0; }) !=
            result_of([&] { return raw::in_core(part.kernel(), part.bytes(), present) != 0; }))
            return note("mincore or msync", 0);
        static constexpr int all[] = {MS_SYNC, MS_ASYNC, MS_INVALIDATE, MS_SYNC | MS_ASYNC, 99};
        const int flags = all[below(std::size(all))];
        if (result_of([&] { return msync(part.managed(), part.bytes(), flags) != 0; }) !=
            result_of([&] { return raw::sync(part.kernel(), part.bytes(), flags) != 0; }))
            return note("mincore or msync", 0);
        return nullptr;
    }

    // ---- what the kernel refuses ----

    const char* bad_calls() {
        const Part part = any_part(4);
        static constexpr std::size_t sizes[] = {0, 1, page_bytes, ~std::size_t{0},
                                                ~std::size_t{0} - page_bytes};
        const std::size_t bytes = sizes[below(std::size(sizes))];
        const std::size_t off = bytes == 1 || bytes == page_bytes ? 1 : below(2);  // never a call that works
        std::byte* const a = part.managed() + off;
        std::byte* const b = part.kernel() + off;
        const int flags = static_cast<int>(below(16));
        const auto same = [](auto managed, auto kernel) { return result_of(managed) == result_of(kernel); };
        const bool equal =
            same([&] { return munmap(a, bytes) != 0; }, [&] { return raw::unmap(b, bytes) != 0; }) &&
            same([&] { return mprotect(a, bytes, PROT_READ) != 0; },
                 [&] { return raw::protect(b, bytes, PROT_READ) != 0; }) &&
            same([&] { return madvise(a, bytes, MADV_DONTNEED) != 0; },
                 [&] { return raw::advise(b, bytes, MADV_DONTNEED) != 0; }) &&
            same([&] { return msync(a, bytes, MS_SYNC) != 0; },
                 [&] { return raw::sync(b, bytes, MS_SYNC) != 0; }) &&
            same(
                [&] {
                    return mmap(a, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
                           MAP_FAILED;
                },
                [&] {
                    return raw::map(b, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED) ==
                           MAP_FAILED;
                }) &&
            same([&] { return mremap(a, page_bytes, bytes, 0xf0 | flags, a) == MAP_FAILED; },
                 [&] { return raw::remap(b, page_bytes, bytes, 0xf0 | flags, b) == MAP_FAILED; });
        return equal ? nullptr : "a refusal differs";
    }

    // ---- fork ----

    const char* check_child() {
        for (std::size_t index = 0; index < arena_pages; ++index) {
            const Part part{&arena_, index, 1};
            const Page& page = *part.begin();
            if (!page.mapped || page.hidden) {
                if (!page.file && prober_.can_read(part.managed())) return "a child sees what is not there";
            } else if (const char* wrong = compare_page(part, below(8) == 0)) {
                return wrong;
            }
        }
        return nullptr;
    }
    const char* fork_child() {
        const pid_t child = fork();
        if (child < 0) return "fork failed";
        if (child == 0) {
            const char* wrong = check_child();
            if (wrong != nullptr) std::fprintf(stderr, "child: %s: %s\n", wrong, last_);
            _exit(wrong != nullptr ? 1 : 0);
        }
        int status = -1;
        waitpid(child, &status, 0);
        return status == 0 ? nullptr : "a child failed";
    }

    std::mt19937_64 random_;
    Prober prober_;
    Arena arena_;
    char last_[64] = "";
    int file_;
    int twin_file_;
};

std::uint64_t seed() {
    const char* replay = std::getenv("PNODE_SEED");
    if (replay != nullptr) return std::strtoull(replay, nullptr, 10);
    return std::random_device{}();
}

TEST(MappingModel, IsTheKernelsTwin) {
    const FarBlock pressure(std::size_t{6} << 20, 1);
    const std::uint64_t first = seed();
    std::printf("PNODE_SEED=%llu\n", static_cast<unsigned long long>(first));
    std::fflush(stdout);
    auto model = std::make_unique<Model>(first);
    for (int step = 0; step < steps; ++step) {
        const char* wrong = model->step();
        ASSERT_EQ(wrong, nullptr) << wrong << ": " << model->last() << " at step " << step
                                  << " with PNODE_SEED=" << first;
        if (step % 500 == 0) {
            ASSERT_TRUE(pressure.is_intact());
        }
    }
    const char* wrong = model->compare_all();
    EXPECT_EQ(wrong, nullptr) << wrong << ": " << model->last() << " at the end with PNODE_SEED=" << first;
}

}  // namespace
