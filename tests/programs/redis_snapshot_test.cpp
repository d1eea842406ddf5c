// A real Redis saves from a forked child while most of its data is far: the child reads its snapshot out of
// the parent's node, the parent goes on writing, and what a plain redis-server loads from the dump is the
// data as of the fork.

#include <gtest/gtest.h>

#include <chrono>
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

std::string number_after(std::string_view text, std::string_view name) {
    const std::size_t at = text.find(name);
    if (at == std::string_view::npos) return "";
    const std::size_t from = at + name.size();
    return std::string(text.substr(from, text.find_first_of("\r\n", from) - from));
}

class RedisSnapshot : public ::testing::Test {
  protected:
    static constexpr std::size_t records_count = 20000;

    std::vector<std::string> tiered() const {
        return {PNODE_COMMAND,   "run", "--near",  "8M",
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

    TemporaryFolder folder_;
    const std::vector<Record> records_ = synthetic_catalogue(records_count, 1);
};

TEST_F(RedisSnapshot, OfMostlyFarDataIsTheDataAsOfTheFork) {
    {
        Server server("tiered", tiered(), folder_.path());
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

}  // namespace
}  // namespace pnode::demo
