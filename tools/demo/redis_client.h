// One connection to a Redis server on 127.0.0.1, over hiredis. Used by one thread at a time.
#pragma once

#include <hiredis/hiredis.h>
#include <sys/types.h>

#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string_view>

namespace pnode::demo {

// The server went away, or did not answer in 20 s.
struct ConnectionLost : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct FreeReply {
    void operator()(redisReply* reply) const { ::freeReplyObject(reply); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;

class RedisClient {
  public:
    explicit RedisClient(int port);

    // Queues a command; flush(), or the next reply(), sends what is queued.
    void append(std::initializer_list<std::string_view> words);
    void flush();

    // The answer to the oldest unanswered command. Error replies throw Failure with the server's words.
    Reply reply();

    // The same when some bytes have arrived at fd(), which is one read; null when they are no whole reply
    // yet.
    Reply reply_if_whole();

    int fd() const { return context_->fd; }
    pid_t process_id();

  private:
    struct FreeContext {
        void operator()(redisContext* context) const { ::redisFree(context); }
    };
    [[noreturn]] void throw_lost() const;
    static Reply checked(void* raw);

    std::unique_ptr<redisContext, FreeContext> context_;
};

inline std::string_view bytes_of(const redisReply& reply) {
    return reply.type == REDIS_REPLY_STRING ? std::string_view(reply.str, reply.len) : std::string_view();
}

}  // namespace pnode::demo
