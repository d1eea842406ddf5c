// A real Redis saves from a forked child while most of its data is far: the child reads its snapshot out of
// the parent's node, the parent goes on writing, and what a plain redis-server loads from the dump is the
// data as of the fork.

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "tools/demo/catalogue.h"
#include "tools/demo/redis_client.h"
#include "tools/demo/server.h"
#include "tools/demo/workload.h"

namespace pnode::demo {
namespace {

constexpr std::uint64_t mib = 1 << 20;

std::string number_after(std::string_view text, std::string_view name) {
    const std::size_t at = text.find(name);
    if (at == std::string_view::npos) return "";
    const std::size_t from = at + name.size();
    return std::string(text.substr(from, text.find_first_of("\r\n", from) - from));
}

class RedisSnapshot : public ::testing::Test {
  protected:
    static constexpr std::size_t records_count = 20000;

    std::vector<std::string> tiered(std::uint64_t near_bytes) const {
        return {PNODE_COMMAND,   "run", "--near",  std::to_string(near_bytes),
                "--activation",  "4M",  "--stats", statistics(),
                "--stats-every", "50",  "--",      find_program("redis-server")};
    }
    std::string statistics() const { return folder_.path() + "/statistics.json"; }

    nlohmann::json statistics_now() const {
        std::ifstream file(statistics());
        return nlohmann::json::parse(file, nullptr, false);
    }

    static std::string command(RedisClient& client, std::initializer_list<std::string_view> words) {
        client.append(words);
        const Reply reply = client.reply();
        return reply->str != nullptr ? std::string(reply->str, reply->len) : "";
    }

    static void wait_until_zero(RedisClient& client, std::string_view figure) {
        const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(2);
        while (number_after(command(client, {"INFO", "persistence"}), figure) != "0") {
            ASSERT_LT(std::chrono::steady_clock::now(), end) << figure << " never becomes 0";
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
    }

    // Of every key and value, whatever their order.
    static std::string digest(RedisClient& client) { return command(client, {"DEBUG", "DIGEST"}); }

    static std::vector<std::string> plain() {
        return {find_program("redis-server"), "--enable-debug-command", "yes"};
    }

    TemporaryFolder folder_;
    const std::vector<Record> records_ = synthetic_catalogue(records_count, 1);
};

TEST_F(RedisSnapshot, OfMostlyFarDataIsTheDataAsOfTheFork) {
    {
        Server server("tiered", tiered(8 * mib), folder_.path());
        load(server.port(), records_);
        RedisClient client(server.port());
        command(client, {"BGSAVE"});
        // Every second value changes while the child saves.
        for (std::size_t index = 0; index < records_.size(); index += 2)
            client.append({"SET", records_[index].key, "changed after the fork"});
        for (std::size_t index = 0; index < records_.size(); index += 2) client.reply();
        wait_until_zero(client, "rdb_bgsave_in_progress:");
        EXPECT_EQ(number_after(command(client, {"INFO", "persistence"}), "rdb_last_bgsave_status:"), "ok");
        EXPECT_EQ(command(client, {"GET", records_[0].key}), "changed after the fork");
        EXPECT_EQ(command(client, {"GET", records_[1].key}), records_[1].value);
        const nlohmann::json told = statistics_now();
        ASSERT_TRUE(told.is_object());
        EXPECT_GT(told.value("fork_events", 0u), 0u);
        EXPECT_GT(told.value("far_logical_bytes", 0u), 0u);
        client.append({"SHUTDOWN", "NOSAVE"});
        client.flush();
    }
    Server plain("plain", {find_program("redis-server")}, folder_.path());
    RedisClient client(plain.port());
    wait_until_zero(client, "loading:");
    Comparison comparison;
    read_back(plain.port(), records_, comparison);
    EXPECT_EQ(comparison.compared, records_.size());
    EXPECT_EQ(comparison.different, 0u) << comparison.first_different_key;
}

// The child of `parent` that saves, or nothing. Read from the kernel, so that it asks nothing of the server.
std::string saving_child(pid_t parent) {
    const std::string id = std::to_string(parent);
    std::ifstream children("/proc/" + id + "/task/" + id + "/children");
    std::string child;
    children >> child;
    return child;
}

// The anonymous memory that a process has resident, shared with its parent or not; 0 when it is gone.
std::uint64_t anonymous_bytes(const std::string& process) {
    std::ifstream rollup("/proc/" + process + "/smaps_rollup");
    for (std::string line; std::getline(rollup, line);) {
        if (line.starts_with("Anonymous:")) return std::stoull(line.substr(10)) * 1024;
    }
    return 0;
}

// What counts is the child's anonymous memory: what is near, shared with the parent or its own, and all that
// the library and Redis have besides. Not the mapped blobs it reads: they are the parent's node, and are
// there once, under its far limit.
TEST_F(RedisSnapshot, OfMostlyFarDataKeepsToTheNearLimit) {
    constexpr std::uint64_t beside_bytes = 32 * mib;
    const std::vector<Record> many = synthetic_catalogue(3 * records_count, 2);
    const std::uint64_t near_bytes = dataset_bytes(many) * 2 / 5;
    std::string expected;
    {
        Server near("near", plain(), folder_.path());
        load(near.port(), many);
        RedisClient client(near.port());
        expected = digest(client);
        ASSERT_EQ(expected.size(), 40u);
    }
    std::uint64_t peak_bytes = 0;
    {
        Server server("tiered", tiered(near_bytes), folder_.path());
        load(server.port(), many);
        RedisClient client(server.port());
        const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(2);
        do {  // again, should it have been over before we looked
            command(client, {"BGSAVE"});
            for (std::string child = saving_child(server.pid()); !child.empty();
                 child = saving_child(server.pid())) {
                peak_bytes = std::max(peak_bytes, anonymous_bytes(child));
                ASSERT_LT(std::chrono::steady_clock::now(), end) << "the child never ends";
            }
            wait_until_zero(client, "rdb_bgsave_in_progress:");
        } while (peak_bytes <= near_bytes / 2 && std::chrono::steady_clock::now() < end);
        EXPECT_EQ(number_after(command(client, {"INFO", "persistence"}), "rdb_last_bgsave_status:"), "ok");
        const nlohmann::json told = statistics_now();
        EXPECT_GT(told.value("far_logical_bytes", std::uint64_t{0}),
                  told.value("heap_bytes", std::uint64_t{0}) / 2);
        client.append({"SHUTDOWN", "NOSAVE"});
        client.flush();
    }
    EXPECT_GT(peak_bytes, near_bytes / 2) << "the child was not seen";
    EXPECT_LE(peak_bytes, near_bytes + beside_bytes);
    std::printf("near limit %.1f MiB, anonymous memory of the saving child at most %.1f MiB\n",
                static_cast<double>(near_bytes) / mib, static_cast<double>(peak_bytes) / mib);
    Server loaded("loaded", plain(), folder_.path());
    RedisClient client(loaded.port());
    wait_until_zero(client, "loading:");
    EXPECT_EQ(digest(client), expected);
}

}  // namespace
}  // namespace pnode::demo
