// Watching a tiered process: what its statistics file and /proc say while it runs, and whether that kept the
// limits.
#pragma once

#include <pnode/pnode.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

namespace pnode::demo {

struct Limits {
    std::uint64_t near_bytes;                          // the near limit that was asked for
    std::uint64_t near_slack_bytes = 2ull << 20;       // near_bytes and its peak may pass the limit by this
    std::uint64_t resident_slack_bytes = 48ull << 20;  // Rss may pass near limit + physical far bytes by this
};

struct Statistics {
    pn_stats_t numbers;
    std::string engine;
};

// Reads what pn_stats_json() wrote. Throws Failure naming the field that is missing or no number.
Statistics parse_statistics(std::string_view json);

// "Rss:" of a smaps_rollup, in bytes; nothing when the text has none (the process is ending).
std::optional<std::uint64_t> parse_resident_bytes(std::string_view smaps_rollup);

// Rss of a process now.
std::optional<std::uint64_t> resident_bytes(pid_t pid);

// Judges samples in the order they were taken. An Rss is judged when the statistics after it are there,
// against the larger far_bytes of the two around it: Rss and statistics cannot be read in one instant, and
// far bytes only count what is placed.
class Judgement {
  public:
    explicit Judgement(Limits limits) : limits_(limits) {}

    void add(const Statistics& statistics);
    void add_resident(std::uint64_t bytes);

    std::uint64_t samples() const { return samples_; }                    // statistics seen
    std::uint64_t resident_samples() const { return resident_samples_; }  // Rss seen and judged
    std::uint64_t resident_peak() const { return resident_peak_; }
    const std::optional<Statistics>& last() const { return last_; }

    // What is wrong, all in all, in one line; empty when the limits were kept, something was demoted and
    // there was something to judge.
    std::string complaint() const;

  private:
    void judge_resident(std::uint64_t far_bytes);
    void complain(std::string sentence);

    Limits limits_;
    std::optional<Statistics> last_;
    std::optional<std::uint64_t> waiting_resident_;
    std::uint64_t samples_ = 0;
    std::uint64_t resident_samples_ = 0;
    std::uint64_t resident_peak_ = 0;
    std::uint64_t complaints_ = 0;
    std::string first_complaint_;
};

// A thread that feeds a Judgement until it is asked for: each new statistics file, and an Rss after each.
class Sampler {
  public:
    Sampler(std::string statistics_path, pid_t pid, Limits limits);
    ~Sampler();
    Sampler(const Sampler&) = delete;
    Sampler& operator=(const Sampler&) = delete;

    // Ends the thread when statistics were written that are newer than this call. Throws Failure when they
    // cannot be read, or are no longer written within `patience`; if there never were any, that is left to
    // the judgement.
    Judgement finish(std::chrono::seconds patience = std::chrono::seconds(5));

    std::uint64_t samples();  // seen until now

  private:
    void run();
    bool read_new_statistics();
    void end_thread();

    const std::string statistics_path_;
    const pid_t pid_;
    struct timespec seen_ = {};  // modification time of the last file read; the thread's own
    std::uint64_t seen_inode_ = 0;

    std::mutex mutex_;
    std::condition_variable changed_;
    Judgement judgement_;  // this and what follows: under mutex_
    std::string broken_;   // why the thread gave up on the statistics file
    bool ending_ = false;

    std::thread thread_;  // last: starts when the rest is there
};

}  // namespace pnode::demo
