#include "tools/demo/samples.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "tools/demo/failure.h"
#include "tools/demo/report.h"

namespace pnode::demo {
namespace {

constexpr std::chrono::milliseconds kLookEvery{10};

std::string read_all(int fd) {
    std::string text;
    char buffer[8192];
    for (ssize_t got; (got = ::read(fd, buffer, sizeof buffer)) > 0;)
        text.append(buffer, static_cast<std::size_t>(got));
    return text;
}

}  // namespace

Statistics parse_statistics(std::string_view json) {
    Statistics out = {};
    try {
        const auto object = nlohmann::json::parse(json);
#define PNODE_DEMO_READ(name, unit, sentence) out.numbers.name = object.at(#name).get<std::uint64_t>();
        PN_STATS_LIST(PNODE_DEMO_READ)
#undef PNODE_DEMO_READ
        out.engine = object.at("engine").get<std::string>();
    } catch (const nlohmann::json::exception& error) {
        throw Failure(std::string("the statistics file is not what this program knows (") + error.what() +
                      "): build pnode and pnode-demo from one source");
    }
    return out;
}

std::optional<std::uint64_t> parse_resident_bytes(std::string_view smaps_rollup) {
    constexpr std::string_view kName = "\nRss:";
    std::size_t at = smaps_rollup.find(kName);
    if (at == std::string_view::npos) return {};
    at = smaps_rollup.find_first_not_of(' ', at + kName.size());
    if (at == std::string_view::npos) return {};
    std::uint64_t kib = 0;
    const auto result =
        std::from_chars(smaps_rollup.data() + at, smaps_rollup.data() + smaps_rollup.size(), kib);
    if (result.ec != std::errc()) return {};
    return kib * 1024;
}

std::optional<std::uint64_t> resident_bytes(pid_t pid) {
    const int fd = ::open(("/proc/" + std::to_string(pid) + "/smaps_rollup").c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return {};
    const std::string text = read_all(fd);
    ::close(fd);
    return parse_resident_bytes(text);
}

void Judgement::complain(std::string sentence) {
    if (complaints_++ == 0) first_complaint_ = std::move(sentence);
}

void Judgement::add(const Statistics& statistics) {
    ++samples_;
    const pn_stats_t& now = statistics.numbers;
    const std::uint64_t near_bytes = std::max(now.near_bytes, now.near_bytes_peak);
    if (near_bytes > limits_.near_bytes + limits_.near_slack_bytes) {
        complain("near bytes " + mebibytes(near_bytes) + " passed the near limit of " +
                 mebibytes(limits_.near_bytes) + " by more than " + mebibytes(limits_.near_slack_bytes));
    }
    judge_resident(std::max(now.far_bytes, last_ ? last_->numbers.far_bytes : 0));
    last_ = statistics;
}

void Judgement::add_resident(std::uint64_t bytes) {
    waiting_resident_ = bytes;
    resident_peak_ = std::max(resident_peak_, bytes);
}

void Judgement::judge_resident(std::uint64_t far_bytes) {
    if (!waiting_resident_) return;
    ++resident_samples_;
    if (*waiting_resident_ > limits_.near_bytes + far_bytes + limits_.resident_slack_bytes) {
        complain("Rss " + mebibytes(*waiting_resident_) + " passed near limit " +
                 mebibytes(limits_.near_bytes) + " + far bytes " + mebibytes(far_bytes) + " + " +
                 mebibytes(limits_.resident_slack_bytes));
    }
    waiting_resident_.reset();
}

std::string Judgement::complaint() const {
    if (!last_)
        return "no statistics were written, so nothing was tiered: `pnode probe` says what is missing here";
    if (last_->engine == "none") return "the program ran unmanaged: `pnode probe` says what is missing here";
    if (complaints_ > 0) return first_complaint_ + " (in " + std::to_string(complaints_) + " samples)";
    if (last_->numbers.demotions == 0) return "nothing was demoted: `pnode probe` says what is missing here";
    if (resident_samples_ == 0)
        return "no Rss could be read: is /proc/PID/smaps_rollup there? (kernel 4.14 or later)";
    return {};
}

Sampler::Sampler(std::string statistics_path, pid_t pid, Limits limits)
    : statistics_path_(std::move(statistics_path)),
      pid_(pid),
      judgement_(limits),
      thread_([this] { run(); }) {}

Sampler::~Sampler() {
    end_thread();
}

void Sampler::end_thread() {
    {
        const std::lock_guard lock(mutex_);
        ending_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
}

Judgement Sampler::finish(std::chrono::seconds patience) {
    {
        std::unique_lock lock(mutex_);
        // The next file may have been begun before this call; the one after it was not.
        const std::uint64_t fresh = judgement_.samples() + 2;
        const bool told = changed_.wait_for(
            lock, patience, [&] { return judgement_.samples() >= fresh || !broken_.empty(); });
        if (!told && judgement_.samples() > 0) {
            broken_ = "the statistics file is no longer rewritten: `pnode run --verbose` may say why";
        }
    }
    end_thread();
    if (!broken_.empty()) throw Failure(broken_);
    return judgement_;
}

std::uint64_t Sampler::samples() {
    const std::lock_guard lock(mutex_);
    return judgement_.samples();
}

void Sampler::run() {
    std::unique_lock lock(mutex_);
    while (!ending_) {
        lock.unlock();
        bool fresh = false;
        std::string broken;
        try {
            fresh = read_new_statistics();
        } catch (const Failure& failure) {
            broken = failure.what();
        }
        const auto resident = fresh ? resident_bytes(pid_) : std::nullopt;
        lock.lock();
        if (resident) judgement_.add_resident(*resident);
        if (fresh || !broken.empty()) changed_.notify_all();
        if (!broken.empty()) {
            broken_ = broken;
            return;
        }
        changed_.wait_for(lock, kLookEvery, [this] { return ending_; });
    }
}

// The file is replaced by rename, so an open descriptor reads one whole version of it.
bool Sampler::read_new_statistics() {
    const int fd = ::open(statistics_path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;  // not written yet
    struct stat status = {};
    const bool known =
        ::fstat(fd, &status) != 0 || (status.st_ino == seen_inode_ && status.st_mtim.tv_sec == seen_.tv_sec &&
                                      status.st_mtim.tv_nsec == seen_.tv_nsec);
    const std::string text = known ? std::string() : read_all(fd);
    ::close(fd);
    if (known) return false;
    seen_ = status.st_mtim;
    seen_inode_ = status.st_ino;
    const Statistics statistics = parse_statistics(text);
    const std::lock_guard lock(mutex_);
    judgement_.add(statistics);
    return true;
}

}  // namespace pnode::demo
