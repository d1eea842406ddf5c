// Against a real redis-server, without pnode: the demonstration's own machinery must notice what goes wrong.
#include "tools/demo/server.h"

#include <errno.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "tools/demo/failure.h"
#include "tools/demo/redis_client.h"
#include "tools/demo/workload.h"

namespace pnode::demo {
namespace {

class RedisServer : public testing::Test {
  protected:
    void SetUp() override {
        catch_signals();
        redis_ = find_program("redis-server");
        ASSERT_NE(redis_, "") << "apt-get install redis-server";
    }

    std::string redis_;
    TemporaryFolder folder_;
};

std::string failure_of(const std::vector<std::string>& command, const std::string& folder) {
    try {
        Server("tested", command, folder);
    } catch (const Failure& failure) {
        return failure.what();
    }
    return {};
}

TEST_F(RedisServer, AnswersAndEndsWithItsObject) {
    pid_t pid = -1;
    {
        const Server server("tested", {redis_}, folder_.path());
        pid = server.pid();
        EXPECT_EQ(RedisClient(server.port()).process_id(), pid);
    }
    EXPECT_EQ(::kill(pid, 0), -1);
    EXPECT_EQ(errno, ESRCH);
}

TEST_F(RedisServer, TwoAtOnceHavePortsOfTheirOwn) {
    const Server one("one", {redis_}, folder_.path());
    const Server two("two", {redis_}, folder_.path());
    EXPECT_NE(one.port(), two.port());
    EXPECT_EQ(RedisClient(one.port()).process_id(), one.pid());
    EXPECT_EQ(RedisClient(two.port()).process_id(), two.pid());
}

TEST_F(RedisServer, SaysWhyItDidNotStart) {
    EXPECT_THAT(failure_of({"/bin/sh", "-c", "echo the last words; exit 3"}, folder_.path()),
                testing::AllOf(testing::HasSubstr("exit code 3"), testing::HasSubstr("the last words")));
    EXPECT_THAT(failure_of({folder_.path() + "/nothing"}, folder_.path()), testing::HasSubstr("exec failed"));
}

TEST_F(RedisServer, DeathIsReportedWithItsSignal) {
    Server server("tested", {redis_}, folder_.path());
    RedisClient client(server.port());
    ASSERT_EQ(::kill(server.pid(), SIGKILL), 0);
    EXPECT_THROW(while (true) client.process_id(), ConnectionLost);
    EXPECT_THAT(server.autopsy(), testing::HasSubstr("Killed"));
}

TEST_F(RedisServer, WhatWasLoadedIsReadBack) {
    const Server server("tested", {redis_}, folder_.path());
    const auto records = synthetic_catalogue(1000, 1);
    load(server.port(), records);
    Comparison comparison;
    read_back(server.port(), records, comparison);
    const double rate = random_gets(server.port(), records, {5, 3000, 60}, comparison);
    EXPECT_GT(rate, 0);
    EXPECT_EQ(comparison.compared, 4000u);
    EXPECT_EQ(comparison.different, 0u);
}

TEST_F(RedisServer, OneWrongByteAMissingRecordAndABrokenLengthAreDifferent) {
    const Server server("tested", {redis_}, folder_.path());
    const auto records = synthetic_catalogue(300, 1);
    load(server.port(), records);
    std::string wrong_byte = records[10].value;
    wrong_byte.back() ^= 1;
    RedisClient client(server.port());
    client.append({"SET", records[10].key, wrong_byte});
    client.append({"DEL", records[20].key});
    client.append({"SET", records[30].key, records[30].value + std::string(1, '\0')});
    for (int answers = 0; answers < 3; ++answers) client.reply();

    Comparison comparison;
    read_back(server.port(), records, comparison);
    EXPECT_EQ(comparison.compared, 300u);
    EXPECT_EQ(comparison.different, 3u);
    EXPECT_EQ(comparison.first_different_key, records[10].key);

    Comparison of_random_gets;
    random_gets(server.port(), records, {5, 30000, 60}, of_random_gets);
    EXPECT_GT(of_random_gets.different, 0u);
}

TEST_F(RedisServer, RecordsLargerThanAReadArriveWhole) {
    const Server server("tested", {redis_}, folder_.path());
    const std::vector<Record> records = {{"large", std::string(3 << 20, 'x')}, {"empty", ""}};
    load(server.port(), records);
    Comparison comparison;
    read_back(server.port(), records, comparison);
    random_gets(server.port(), records, {5, 100, 60}, comparison);
    EXPECT_EQ(comparison.compared, 102u);
    EXPECT_EQ(comparison.different, 0u);
}

}  // namespace
}  // namespace pnode::demo
