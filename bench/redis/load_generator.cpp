#include "bench/redis/load_generator.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <stdexcept>
#include <system_error>

#include "bench/common/interrupt.h"

namespace pnode::bench {
namespace {

constexpr int silence_ms_max = 60'000;
constexpr std::size_t read_bytes = 64 * 1024;

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

// What hiredis makes of a reply: not an object but a number in the pointer. 0 would mean "no reply yet".
enum : std::uintptr_t { kind_text = 1, kind_status = 2, kind_error = 3, kind_other = 4, kind_bits = 3 };

void* make_text(const redisReadTask* task, char*, std::size_t bytes) {
    const std::uintptr_t kind = task->type == REDIS_REPLY_STRING   ? kind_text
                                : task->type == REDIS_REPLY_STATUS ? kind_status
                                                                   : kind_error;
    return reinterpret_cast<void*>(bytes << kind_bits | kind);
}
void* make_array(const redisReadTask*, int) {
    return reinterpret_cast<void*>(kind_other);
}
void* make_integer(const redisReadTask*, long long) {
    return reinterpret_cast<void*>(kind_other);
}
void* make_nil(const redisReadTask*) {
    return reinterpret_cast<void*>(kind_other);
}
void forget(void*) {}

redisReplyObjectFunctions lengths_only = {make_text, make_array, make_integer, make_nil, forget};

redisContext* connect_to(int port) {
    redisContext* context = redisConnect("127.0.0.1", port);
    if (context && !context->err) return context;
    const std::string reason = context ? context->errstr : "no memory";
    if (context) redisFree(context);
    throw std::runtime_error("cannot connect to the server: " + reason);
}

void append_bulk(std::string& wire, std::string_view text) {
    wire += '$';
    wire += std::to_string(text.size());
    wire += "\r\n";
    wire += text;
    wire += "\r\n";
}

void append_request(std::string& wire, Request request, const Dataset& dataset) {
    wire += request.is_set ? "*3\r\n$3\r\nSET\r\n" : "*2\r\n$3\r\nGET\r\n";
    append_bulk(wire, dataset.key(request.key));
    if (request.is_set) append_bulk(wire, dataset.value(request.key));
}

}  // namespace

struct LoadGenerator::Connection {
    explicit Connection(int port) : context(connect_to(port)) {
        redisReaderFree(context->reader);
        context->reader = redisReaderCreateWithFunctions(&lengths_only);
    }
    ~Connection() { redisFree(context); }
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;

    redisContext* context;
    std::string wire;
    std::vector<Request> outstanding;
    std::size_t answered = 0;  // of outstanding
    std::uint64_t sent_ns = 0;
};

LoadGenerator::LoadGenerator(int port, int connections, int pipeline, const Dataset& dataset)
    : dataset_(dataset),
      pipeline_(static_cast<std::size_t>(pipeline)),
      events_(epoll_create1(EPOLL_CLOEXEC)) {
    if (events_ < 0) fail("epoll_create1");
    for (int i = 0; i < connections; ++i) {
        auto connection = std::make_unique<Connection>(port);
        epoll_event event = {};
        event.events = EPOLLIN;
        event.data.ptr = connection.get();
        if (epoll_ctl(events_, EPOLL_CTL_ADD, connection->context->fd, &event) != 0) fail("epoll_ctl");
        connections_.push_back(std::move(connection));
    }
}

LoadGenerator::~LoadGenerator() {
    close(events_);
}

Round LoadGenerator::run(const std::vector<Request>& requests) {
    requests_ = &requests;
    sent_ = 0;
    latencies_ns_.assign(requests.size(), 0);  // touches it before the clock runs
    latencies_ns_.clear();
    const std::uint64_t begin = now_ns();
    for (auto& connection : connections_) send_batch(*connection);
    epoll_event ready[64];
    while (latencies_ns_.size() < requests.size()) {
        const int count = epoll_wait(events_, ready, static_cast<int>(std::size(ready)), silence_ms_max);
        throw_if_interrupted();
        if (count == 0) throw std::runtime_error("the server has not answered for a minute");
        for (int i = 0; i < count; ++i) receive(*static_cast<Connection*>(ready[i].data.ptr));
    }
    const std::uint64_t wall_ns = now_ns() - begin;
    return summarize(latencies_ns_, requests.size(), wall_ns);
}

void LoadGenerator::send_batch(Connection& connection) {
    const std::size_t batch = std::min(pipeline_, requests_->size() - sent_);
    if (batch == 0) return;
    connection.outstanding.assign(requests_->begin() + static_cast<std::ptrdiff_t>(sent_),
                                  requests_->begin() + static_cast<std::ptrdiff_t>(sent_ + batch));
    connection.answered = 0;
    sent_ += batch;
    connection.wire.clear();
    for (Request request : connection.outstanding) append_request(connection.wire, request, dataset_);
    connection.sent_ns = now_ns();
    // The socket is blocking for writes; the server reads all the time, so this does not wait for our own
    // reading.
    for (std::size_t done = 0; done < connection.wire.size();) {
        const ssize_t wrote = send(connection.context->fd, connection.wire.data() + done,
                                   connection.wire.size() - done, MSG_NOSIGNAL);
        if (wrote < 0 && errno != EINTR) fail("send to the server");
        throw_if_interrupted();
        done += wrote > 0 ? static_cast<std::size_t>(wrote) : 0;
    }
}

void LoadGenerator::receive(Connection& connection) {
    static char buffer[read_bytes];
    const ssize_t got = recv(connection.context->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) throw std::runtime_error("the server closed a connection");
    redisReader* reader = connection.context->reader;
    redisReaderFeed(reader, buffer, static_cast<std::size_t>(got));
    for (;;) {
        void* reply = nullptr;
        if (redisReaderGetReply(reader, &reply) != REDIS_OK) throw std::runtime_error(reader->errstr);
        if (!reply) return;  // level-triggered: what is left in the socket is announced again
        if (connection.answered == connection.outstanding.size())
            throw std::runtime_error("an answer nobody asked for");
        const std::uint64_t latency_ns = now_ns() - connection.sent_ns;
        latencies_ns_.push_back(static_cast<std::uint32_t>(std::min<std::uint64_t>(latency_ns, UINT32_MAX)));
        check_reply(connection.outstanding[connection.answered++], reply);
        if (connection.answered == connection.outstanding.size()) send_batch(connection);
    }
}

void LoadGenerator::check_reply(Request request, void* reply) const {
    const auto word = reinterpret_cast<std::uintptr_t>(reply);
    const std::uintptr_t kind = word & ((1u << kind_bits) - 1);
    const bool right = request.is_set
                           ? kind == kind_status
                           : kind == kind_text && word >> kind_bits == dataset_.value(request.key).size();
    if (!right)
        throw std::runtime_error(std::string("wrong answer to ") + (request.is_set ? "SET " : "GET ") +
                                 dataset_.key(request.key));
}

std::uint64_t verify_sample(int port, const Dataset& dataset, std::uint64_t sample) {
    std::unique_ptr<redisContext, void (*)(redisContext*)> context(connect_to(port), redisFree);
    std::mt19937_64 random(2);
    const bool all = sample >= dataset.size();
    const std::uint64_t count = all ? dataset.size() : sample;
    for (std::uint64_t i = 0; i < count; ++i) {
        throw_if_interrupted();
        const auto number = static_cast<std::uint32_t>(all ? i : random() % dataset.size());
        const std::string key = dataset.key(number);
        std::unique_ptr<redisReply, void (*)(void*)> reply(
            static_cast<redisReply*>(redisCommand(context.get(), "GET %b", key.data(), key.size())),
            freeReplyObject);
        if (!reply) throw std::runtime_error(std::string("no answer to GET ") + key + ": " + context->errstr);
        const bool same =
            reply->type == REDIS_REPLY_STRING &&
            std::string_view(reply->str, static_cast<std::size_t>(reply->len)) == dataset.value(number);
        if (!same) throw std::runtime_error("the value of " + key + " is not what was stored");
    }
    return count;
}

}  // namespace pnode::bench
