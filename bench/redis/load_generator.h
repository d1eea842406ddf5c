// A client of many connections in one thread, with as little of its own as can be: requests are written
// straight into a buffer, replies are parsed by hiredis without being copied out.
#pragma once

#include <memory>
#include <vector>

#include "bench/common/samples.h"
#include "bench/redis/dataset.h"

namespace pnode::bench {

class LoadGenerator {
  public:
    // Every connection sends `pipeline` requests at once and waits for all their answers.
    LoadGenerator(int port, int connections, int pipeline, const Dataset& dataset);
    ~LoadGenerator();
    LoadGenerator(const LoadGenerator&) = delete;
    LoadGenerator& operator=(const LoadGenerator&) = delete;

    // A latency is from before a request's batch is written to when its reply is parsed. A GET's length is
    // checked here, its bytes by verify_sample. Throws std::runtime_error on a wrong or missing answer,
    // Interrupted on a signal.
    Round run(const std::vector<Request>& requests);

  private:
    struct Connection;
    void send_batch(Connection& connection);
    void receive(Connection& connection);
    void check_reply(Request request, void* reply) const;

    const Dataset& dataset_;
    const std::size_t pipeline_;
    int events_ = -1;
    std::vector<std::unique_ptr<Connection>> connections_;

    // Of the current run.
    const std::vector<Request>* requests_ = nullptr;
    std::size_t sent_ = 0;
    std::vector<std::uint32_t> latencies_ns_;
};

// Compares values byte for byte: `sample` random keys, or all when there are fewer. Returns how many; throws
// on a difference.
std::uint64_t verify_sample(int port, const Dataset& dataset, std::uint64_t sample);

}  // namespace pnode::bench
