// Page contents that a seed determines, so that a test needs no second copy to compare with.
//
// Nothing here allocates: a forked child may call all of it.
#pragma once

#include <pnode/pnode.h>

#include <array>
#include <cstdint>
#include <cstring>

namespace pnode::test {

inline constexpr std::uint64_t page_bytes = PN_PAGE_BYTES;
inline constexpr std::uint64_t kib = 1024;
inline constexpr std::uint64_t mib = 1024 * kib;
inline constexpr std::uint64_t gib = 1024 * mib;

// splitmix64: small, replayable on every machine, and good enough to be incompressible.
class Random {
  public:
    explicit Random(std::uint64_t seed) : state_(seed) {}

    std::uint64_t next() {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    // 0 to limit - 1; the small bias does not matter to a test.
    std::uint64_t below(std::uint64_t limit) { return next() % limit; }

  private:
    std::uint64_t state_;
};

enum class Kind : std::uint8_t {
    zeros,   // reads as a fresh page
    same,    // one 64-bit word over and over
    text,    // words of a record: about 3 : 1 with lz4
    half,    // half random, half constant: 2 : 1, with no luck in it
    random,  // incompressible
};
inline constexpr std::array every_kind = {Kind::zeros, Kind::same, Kind::text, Kind::half, Kind::random};
inline constexpr std::array compressible_kinds = {Kind::same, Kind::text, Kind::half};

using PageImage = std::array<std::uint8_t, page_bytes>;

namespace internal {

inline void fill_words(PageImage& image, std::size_t from, std::size_t to, Random& random, bool same) {
    const std::uint64_t constant = random.next() | 1;
    for (std::size_t at = from; at < to; at += sizeof(std::uint64_t)) {
        const std::uint64_t word = same ? constant : random.next();
        std::memcpy(&image[at], &word, sizeof(word));
    }
}

inline void fill_text(PageImage& image, Random& random) {
    static constexpr std::array<const char*, 8> words = {
        "Package: ", "Version: ", "Depends: ", "library", "compressed", "memory", "private", "description"};
    std::size_t at = 0;
    while (at < image.size()) {
        const std::uint64_t draw = random.next();
        for (const char* c = words[draw % words.size()]; *c != 0 && at < image.size(); ++c) {
            image[at++] = static_cast<std::uint8_t>(*c);
        }
        for (unsigned shift = 8; shift < 24 && at < image.size(); shift += 8) {
            image[at++] = static_cast<std::uint8_t>('0' + (draw >> shift) % 32);
        }
    }
}

}  // namespace internal

inline PageImage page_image(Kind kind, std::uint64_t seed) {
    PageImage image{};
    Random random(seed * 8 + static_cast<std::uint64_t>(kind));
    switch (kind) {
        case Kind::zeros:
            break;
        case Kind::same:
            internal::fill_words(image, 0, image.size(), random, true);
            break;
        case Kind::text:
            internal::fill_text(image, random);
            break;
        case Kind::half:
            internal::fill_words(image, 0, image.size() / 2, random, false);
            internal::fill_words(image, image.size() / 2, image.size(), random, true);
            break;
        case Kind::random:
            internal::fill_words(image, 0, image.size(), random, false);
            break;
    }
    return image;
}

inline void fill_page(void* page, Kind kind, std::uint64_t seed) {
    const PageImage image = page_image(kind, seed);
    std::memcpy(page, image.data(), image.size());
}

inline bool page_is(const void* page, Kind kind, std::uint64_t seed) {
    const PageImage image = page_image(kind, seed);
    return std::memcmp(page, image.data(), image.size()) == 0;
}

// Page i of the range holds the pattern of seed + i.
inline void fill_pages(std::uint8_t* first, std::uint64_t pages, Kind kind, std::uint64_t seed) {
    for (std::uint64_t i = 0; i < pages; ++i) {
        fill_page(first + i * page_bytes, kind, seed + i);
    }
}

// How many pages of the range do not hold what fill_pages() wrote.
inline std::uint64_t wrong_pages(const std::uint8_t* first, std::uint64_t pages, Kind kind,
                                 std::uint64_t seed) {
    std::uint64_t wrong = 0;
    for (std::uint64_t i = 0; i < pages; ++i) {
        wrong += page_is(first + i * page_bytes, kind, seed + i) ? 0 : 1;
    }
    return wrong;
}

}  // namespace pnode::test
