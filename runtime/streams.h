// Who reads pages one after another? A few streams of faults are remembered; a fault just past where one of
// them got to continues it, and each time it does, twice as many pages are brought near with it.
//
// A stream only guesses: what it brings near in vain costs a decode, and leaves first. So a lone fault brings
// one page, and three faults in a row begin to pay.
//
// Thread rule: one thread at a time. Whoever serves its own faults finds them in its lane again (lanes.h);
// handlers share theirs, for any of them may be told of a thread's next fault.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace pnode {

class Streams {
  public:
    static constexpr unsigned run_max = 16;

    // How many pages from this one on to bring near, 1 to run_max. `page` counts over the whole address
    // space. `ahead`: so many before this one may have been brought by others for a stream in full swing.
    unsigned run_at(std::uint64_t page, unsigned ahead = 0) noexcept {
        for (Stream& stream : streams_) {
            // Past what it brought near, or just past that: some pages were near already.
            if (page - stream.page - 1 > std::max(stream.run + (stream.run == run_max ? ahead : 0), 1u))
                continue;
            stream = {page, std::clamp(2 * stream.run, 1u, run_max)};
            return stream.run;
        }
        streams_[next_] = {page, 0};
        next_ = (next_ + 1) % streams_max;
        return 1;
    }

  private:
    static constexpr unsigned streams_max = 8;
    struct Stream {
        std::uint64_t page = UINT64_MAX / 2;  // where its last fault was: for now, where none will be
        unsigned run = 0;                     // what that brought near; 0: it was the first
    };
    // Two ranges that are compared or copied are two streams; others go on beside them.
    std::array<Stream, streams_max> streams_;
    unsigned next_ = 0;
};

}  // namespace pnode
