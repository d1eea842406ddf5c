#include "tools/demo/workload.h"

#include <errno.h>
#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>

#include "tools/demo/failure.h"
#include "tools/demo/redis_client.h"

namespace pnode::demo {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kPipelined = 128;
constexpr int kAnswerMilliseconds = 20000;

// Calls append(record) and then take(record, reply) for batches of records.
template <typename Append, typename Take>
void pipelined(const std::vector<Record>& records, RedisClient& client, Append append, Take take) {
    for (std::size_t first = 0; first < records.size(); first += kPipelined) {
        throw_if_interrupted();
        const std::size_t end = std::min(first + kPipelined, records.size());
        for (std::size_t at = first; at < end; ++at) append(records[at]);
        for (std::size_t at = first; at < end; ++at) take(records[at], client.reply());
    }
}

class RandomGets {
  public:
    RandomGets(int port, const std::vector<Record>& records, const Stretch& stretch, Comparison& comparison)
        : records_(records), stretch_(stretch), comparison_(comparison), random_(stretch.seed) {
        for (std::size_t at = 0; at < stretch.connections; ++at) {
            clients_.emplace_back(port);
            waits_.push_back({clients_.back().fd(), POLLIN, 0});
            asked_.push_back(nullptr);
        }
    }

    double run() {
        start_ = steady_clock::now();
        for (std::size_t at = 0; at < clients_.size(); ++at) ask(at);
        while (under_way_ > 0) answer_whoever_is_ready();
        return static_cast<double>(answered_) / seconds();
    }

  private:
    double seconds() const { return std::chrono::duration<double>(steady_clock::now() - start_).count(); }

    void ask(std::size_t at) {
        if (sent_ == stretch_.requests || seconds() > stretch_.seconds_max) return;
        asked_[at] = &records_[random_() % records_.size()];
        clients_[at].append({"GET", asked_[at]->key});
        clients_[at].flush();
        ++sent_;
        ++under_way_;
    }

    void answer_whoever_is_ready() {
        throw_if_interrupted();
        const int ready = ::poll(waits_.data(), waits_.size(), kAnswerMilliseconds);
        if (ready == 0) throw ConnectionLost("no answer to a GET");
        if (ready < 0 && errno == EINTR) return;
        if (ready < 0)
            throw Failure(std::string("poll: ") + std::strerror(errno) +
                          ": raise the limit of open files, see `ulimit -n`");
        for (std::size_t at = 0; at < waits_.size(); ++at) {
            if (waits_[at].revents != 0) take_answer(at);
        }
    }

    void take_answer(std::size_t at) {
        const Reply reply = clients_[at].reply_if_whole();
        if (!reply) return;
        comparison_.add(*asked_[at], bytes_of(*reply));
        ++answered_;
        --under_way_;
        ask(at);
    }

    const std::vector<Record>& records_;
    const Stretch& stretch_;
    Comparison& comparison_;
    std::mt19937_64 random_;
    std::vector<RedisClient> clients_;
    std::vector<pollfd> waits_;
    std::vector<const Record*> asked_;
    std::uint64_t sent_ = 0;
    std::uint64_t answered_ = 0;
    std::size_t under_way_ = 0;
    steady_clock::time_point start_;
};

}  // namespace

void Comparison::add(const Record& record, std::string_view read_back) {
    ++compared;
    if (read_back == record.value) return;
    if (different++ == 0) first_different_key = record.key;
}

void load(int port, const std::vector<Record>& records) {
    RedisClient client(port);
    pipelined(
        records, client,
        [&](const Record& record) {
            client.append({"SET", record.key, record.value});
        },
        [](const Record&, const Reply&) {});
}

void read_back(int port, const std::vector<Record>& records, Comparison& comparison) {
    RedisClient client(port);
    pipelined(
        records, client,
        [&](const Record& record) {
            client.append({"GET", record.key});
        },
        [&](const Record& record, const Reply& reply) { comparison.add(record, bytes_of(*reply)); });
}

double random_gets(int port, const std::vector<Record>& records, const Stretch& stretch,
                   Comparison& comparison) {
    return RandomGets(port, records, stretch, comparison).run();
}

}  // namespace pnode::demo
