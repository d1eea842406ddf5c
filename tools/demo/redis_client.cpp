#include "tools/demo/redis_client.h"

#include <sys/time.h>

#include <charconv>
#include <string>
#include <vector>

#include "tools/demo/failure.h"

namespace pnode::demo {
namespace {

constexpr timeval kTimeout = {20, 0};

}  // namespace

RedisClient::RedisClient(int port) : context_(::redisConnectWithTimeout("127.0.0.1", port, kTimeout)) {
    if (!context_) throw std::bad_alloc();
    if (context_->err != 0 || ::redisSetTimeout(context_.get(), kTimeout) != REDIS_OK) throw_lost();
}

void RedisClient::throw_lost() const {
    throw ConnectionLost(context_->errstr);
}

void RedisClient::append(std::initializer_list<std::string_view> words) {
    std::vector<const char*> starts;
    std::vector<std::size_t> lengths;
    for (const std::string_view word : words) {
        starts.push_back(word.data());
        lengths.push_back(word.size());
    }
    const int count = static_cast<int>(words.size());
    if (::redisAppendCommandArgv(context_.get(), count, starts.data(), lengths.data()) != REDIS_OK)
        throw_lost();
}

void RedisClient::flush() {
    for (int done = 0; !done;) {
        if (::redisBufferWrite(context_.get(), &done) != REDIS_OK) throw_lost();
    }
}

Reply RedisClient::checked(void* raw) {
    Reply reply(static_cast<redisReply*>(raw));
    if (reply && reply->type == REDIS_REPLY_ERROR)
        throw Failure("Redis refused a command: " + std::string(reply->str, reply->len));
    return reply;
}

Reply RedisClient::reply() {
    void* raw = nullptr;
    if (::redisGetReply(context_.get(), &raw) != REDIS_OK) throw_lost();
    return checked(raw);
}

Reply RedisClient::reply_if_whole() {
    void* raw = nullptr;
    if (::redisBufferRead(context_.get()) != REDIS_OK) throw_lost();
    if (::redisGetReplyFromReader(context_.get(), &raw) != REDIS_OK) throw_lost();
    return checked(raw);
}

pid_t RedisClient::process_id() {
    append({"INFO", "server"});
    const Reply info = reply();
    const std::string_view text = bytes_of(*info);
    constexpr std::string_view kName = "process_id:";
    const std::size_t at = text.find(kName);
    pid_t pid = -1;
    if (at != std::string_view::npos)
        std::from_chars(text.data() + at + kName.size(), text.data() + text.size(), pid);
    return pid;
}

}  // namespace pnode::demo
