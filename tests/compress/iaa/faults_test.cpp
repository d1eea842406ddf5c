// Whatever the device does, no byte changes: each misdeed, alone and always, then all of them at random.
#include "tests/compress/iaa/rig.h"

namespace pnode::compress::iaa::testing {
namespace {

Plan always(Fault fault) {
    return {test_seed(), self_test_requests, 1000, {fault}};
}

class IaaFaults : public ::testing::TestWithParam<Backend> {
  protected:
    void start(const Plan& plan, std::uint64_t wait_ns = for_ever_ns, unsigned verify_pct = 100) {
        // With a short limit a busy machine may fail the self test.
        std::string failed = "not tried";
        for (int attempt = 0; attempt < 1000 && !failed.empty(); ++attempt) {
            rig_ = std::make_unique<Rig>();
            failed = rig_->start(GetParam(), {wait_ns, verify_pct, wait_ns}, plan);
        }
        ASSERT_EQ(failed, "");
        compressed_before_ = counters().compressed;
    }
    void compress(std::size_t pages, std::span<const Pattern> patterns = compressible) {
        Pages batch(random_, pages, patterns);
        ASSERT_NO_FATAL_FAILURE(batch.compress_and_check(rig_->accelerator, rig_->scratch()));
    }
    const Counters& counters() const { return rig_->accelerator.counters(); }
    std::uint64_t by_device() const { return counters().compressed - compressed_before_; }
    std::uint64_t by_software() const {
        std::uint64_t operations = 0;
        for (const auto& counter : counters().software) operations += counter;
        return operations;
    }

    std::unique_ptr<Rig> rig_;
    Random random_{test_seed()};
    std::uint64_t compressed_before_ = 0;
};

TEST_P(IaaFaults, EveryStatusLeadsWhereItsRowSays) {
    for (const StatusRow& row : status_rows()) {
        if (row.recovery == Recovery::accept) continue;
        SCOPED_TRACE(row.name);
        start(always({Misdeed::status, row.status, 1, 0}));
        compress(2);
        EXPECT_EQ(by_device(), 0u);
        EXPECT_EQ(by_software(), 2u);
        EXPECT_GE(rig_->software(row.cause), 1u);
        EXPECT_EQ(counters().resubmitted != 0, row.recovery == Recovery::again);
        compress(6);
        EXPECT_EQ(by_software(), 8u);
        EXPECT_EQ(rig_->accelerator.has_queue(), row.blame == Blame::nobody);
        EXPECT_EQ(counters().queues_retired, row.blame == Blame::nobody ? 0u : 1u);
        EXPECT_EQ(counters().submitted, counters().completed);
    }
}

TEST_P(IaaFaults, SuccessWithNothingWrittenIsNotBelieved) {
    start(always({Misdeed::status, status::success, 0, 0}));
    compress(8);
    EXPECT_EQ(by_software(), 8u);
    EXPECT_EQ(by_device(), 0u);
}

TEST_P(IaaFaults, EveryAnalyticsErrorIsDoneInSoftwareButTheOneThatIsAnAnswer) {
    for (int code = 1; code <= 36; ++code) {
        if (code == error::compressed_overflow) continue;
        start(always({Misdeed::status, status::analytics_error, static_cast<std::uint8_t>(code), 0}));
        compress(1);
        EXPECT_EQ(rig_->software(Cause::analytics), 1u) << code;
    }
    start(always({Misdeed::status, status::analytics_error, error::compressed_overflow, 0}));
    Pages batch(random_, 4);
    ASSERT_NO_FATAL_FAILURE(batch.compress_and_check(rig_->accelerator, rig_->scratch()));
    EXPECT_EQ(batch.fitted(), 0u);
    EXPECT_EQ(by_software(), 0u);
}

TEST_P(IaaFaults, AFaultingPageIsTouchedAndTheWholeOperationDoneAgain) {
    for (std::int16_t page = 0; page < 3; ++page) {
        start(Plan(test_seed(), self_test_requests, 300, {{Misdeed::page_fault, 0, 0, page}}));
        for (int round = 0; round < 10; ++round) compress(8);
        EXPECT_GT(counters().resubmitted, 0u);
        EXPECT_GT(by_device(), 0u);  // how many depends on how busy the model is
        EXPECT_TRUE(rig_->accelerator.has_queue());
    }
}

TEST_P(IaaFaults, APageThatKeepsFaultingIsLeftToSoftware) {
    start(always({Misdeed::page_fault, 0, 0, 0}));
    compress(3);
    EXPECT_EQ(rig_->software(Cause::page_fault), 3u);
    EXPECT_EQ(counters().resubmitted, 3u * 5);
}

TEST_P(IaaFaults, WhatComesOutWrongIsFoundAndDoneInSoftware) {
    for (const Fault fault : {Fault{Misdeed::flip_byte, 0, 0, 0}, Fault{Misdeed::wrong_size, 0, 0, -3},
                              Fault{Misdeed::wrong_size, 0, 0, 5000}, Fault{Misdeed::wrong_crc, 0, 0, 0}}) {
        SCOPED_TRACE(static_cast<int>(fault.misdeed));
        start(always(fault));
        constexpr Pattern text[] = {Pattern::text};
        compress(8, text);
        // A flipped bit may change nothing where a page repeats itself (another distance, the same bytes):
        // then the answer is right, which compress() has checked.
        if (fault.misdeed != Misdeed::flip_byte) {
            EXPECT_EQ(by_device(), 0u);
        }
        EXPECT_GE(rig_->software(Cause::wrong) + rig_->software(Cause::analytics), 1u);
        EXPECT_EQ(by_software() + by_device(), 8u);
    }
}

TEST_P(IaaFaults, OneWrongAnswerHasAllVerifiedForAWhile) {
    start(Plan(test_seed(), self_test_requests, 100, {{Misdeed::status, status::page_fault, 0, 0}}),
          for_ever_ns, 1);
    // One request in ten is faulty, so the first fault comes early, wherever the seed puts it; from then on
    // every page is verified, of which one in a hundred would be otherwise: some 8 of these 800, were it not
    // so. How many the device takes depends on how busy the model is.
    for (int round = 0; round < 100 && rig_->software(Cause::page_fault) == 0; ++round) compress(8);
    ASSERT_GT(rig_->software(Cause::page_fault), 0u);
    const std::uint64_t before = counters().verified;
    for (int round = 0; round < 100 && counters().verified <= before + 40; ++round) compress(8);
    EXPECT_GT(counters().verified, before + 40);
}

TEST_P(IaaFaults, AShareIsVerifiedWhenNothingIsWrong) {
    start({}, for_ever_ns, 10);
    const std::uint64_t before = counters().verified;
    const std::uint64_t software_before = by_software();
    for (int round = 0; round < 25; ++round) compress(8);
    const std::uint64_t verified = counters().verified - before;
    EXPECT_LE(verified, 21u);
    EXPECT_GE(verified,
              (200 - (by_software() - software_before)) / 10 / 2);  // what did not fit is not verified
}

// Nothing is waited for again, nothing is reused that the device may still write to, and three of them end
// it.
TEST_P(IaaFaults, WhatHangsIsGivenUpAndRetiresTheQueue) {
    start(always({Misdeed::hang, 0, 0, 0}), 50 * not_long_ns);
    compress(8);
    EXPECT_EQ(by_device(), 0u);
    EXPECT_EQ(by_software(), 8u);
    EXPECT_EQ(counters().abandoned, rig_->software(Cause::time_out));
    EXPECT_FALSE(rig_->accelerator.has_queue());
    compress(8);
    EXPECT_EQ(rig_->software(Cause::no_queue), 8u);
    EXPECT_EQ(counters().late, 0u);
}

// A late completion writes into a slot that nobody has, and the slot serves again.
TEST_P(IaaFaults, WhatComesLateHarmsNobody) {
    constexpr std::int16_t later = 3;
    start(Plan(test_seed(), self_test_requests, 30, {{Misdeed::late, 0, 0, later}}), 50 * not_long_ns);
    // Only the last three of a batch are given up before they come: one batch in ten has such a one among
    // them, so of 400 none is without (40 were not enough: 3 % of all plans had none).
    for (int round = 0; round < 400 && counters().late == 0 && rig_->accelerator.has_queue(); ++round) {
        compress(8);
    }
    // On a busy machine everything may have been given up; then the queue is retired and nothing comes late.
    if (rig_->accelerator.has_queue()) {
        EXPECT_GT(counters().late, 0u);
    }
    EXPECT_EQ(counters().submitted, counters().completed + counters().abandoned);
    EXPECT_LE(counters().late, counters().abandoned);
}

TEST_P(IaaFaults, ADeviceThatVanishesIsMissedByNobody) {
    start(always({Misdeed::vanish, 0, 0, 0}), 50 * not_long_ns);
    for (int round = 0; round < 4; ++round) compress(8);
    EXPECT_EQ(by_device(), 0u);
    EXPECT_EQ(by_software(), 32u);
    EXPECT_FALSE(rig_->accelerator.has_queue());
}

TEST_P(IaaFaults, AQueueThatIsFullIsNotWaitedFor) {
    if (GetParam() != Backend::model_write) GTEST_SKIP() << "a dedicated queue has room for every slot";
    start(always({Misdeed::stall, 0, 0, 100}));
    compress(16);
    EXPECT_GT(rig_->software(Cause::busy), 0u);
    EXPECT_GT(by_device(), 0u);
    EXPECT_TRUE(rig_->accelerator.has_queue());
}

TEST_P(IaaFaults, AFlippedByteInADecodedPageIsForItsHashToFind) {
    start(always({Misdeed::flip_byte, 0, 0, 0}));
    const Codec& deflate = *codec_by_name("deflate");
    const Block plain = make_block(Pattern::json, page_bytes, random_);
    Block packed(deflate.bound(page_bytes)), back(page_bytes);
    packed.resize(deflate.compress(plain, packed, 0, rig_->scratch()));
    ASSERT_TRUE(rig_->accelerator.decompress(packed, back));
    EXPECT_NE(back, plain);
    // As a blob: found, and decoded again in software.
    const BlobKey key(std::span<const std::byte, 32>(make_block(Pattern::random, 32, random_)));
    const GuardedBuffer decode_scratch(decode_scratch_bytes_max());
    Block blob(blob_header_bytes + deflate.bound(page_bytes));
    blob.resize(encode(plain, key.hash(plain), choice_of("deflate"), blob, rig_->scratch()));
    EXPECT_EQ(decode(blob, key, back, decode_scratch.span(), &rig_->accelerator), DecodeResult::ok);
    EXPECT_EQ(back, plain);
    EXPECT_EQ(rig_->software(Cause::wrong), 1u);
}

// Everything at once, from several threads, from a seed.
TEST_P(IaaFaults, AnythingAtAllNeverChangesAByte) {
    std::vector<Fault> faults;
    for (const StatusRow& row : status_rows())
        if (row.blame == Blame::nobody)
            faults.push_back({Misdeed::status, row.status, static_cast<std::uint8_t>(random_() % 40), 0});
    for (std::int16_t page = 0; page < 3; ++page) faults.push_back({Misdeed::page_fault, 0, 0, page});
    for (const Misdeed misdeed : {Misdeed::late, Misdeed::flip_byte, Misdeed::wrong_size, Misdeed::wrong_crc})
        faults.push_back({misdeed, 0, 0, 2});
    start(Plan(test_seed(), self_test_requests, 150, std::move(faults)), 10 * not_long_ns);
    std::vector<std::thread> threads;
    for (std::uint64_t i = 0; i < 2; ++i) {
        threads.emplace_back([this, i] {
            Random random(test_seed() + 100 + i);
            const GuardedBuffer scratch(codec_by_name("deflate")->scratch_bytes(0));
            for (int round = 0; round < 40 && !HasFatalFailure(); ++round)
                Pages(random, 1 + random() % 16).compress_and_check(rig_->accelerator, scratch.span());
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(counters().submitted, counters().completed + counters().abandoned);
}

INSTANTIATE_TEST_SUITE_P(Backend, IaaFaults, ::testing::Values(Backend::model_portal, Backend::model_write),
                         [](const auto& test) { return name_of(test.param); });

TEST(IaaSelfTest, AQueueThatFailsItIsNotUsed) {
    const std::pair<Fault, std::uint64_t> faults[] = {{{Misdeed::hang, 0, 0, 0}, 0},
                                                      {{Misdeed::status, 0x20, 0, 0}, 1},
                                                      {{Misdeed::flip_byte, 0, 0, 0}, 1},
                                                      {{Misdeed::wrong_crc, 0, 0, 0}, 2},
                                                      {{Misdeed::flip_byte, 0, 0, 0}, 3}};
    const char* const said[] = {"no-op", "compressed page", "compressed page", "compressed page",
                                "software compressed"};
    for (std::size_t i = 0; i < std::size(faults); ++i) {
        Rig rig;
        const Plan plan(1, faults[i].second, 1000, {faults[i].first});
        const bool waits = faults[i].first.misdeed != Misdeed::hang;
        const std::string failed =
            rig.start(Backend::model_portal, {.wait_ns_max = waits ? for_ever_ns : not_long_ns}, plan);
        EXPECT_NE(failed.find(said[i]), std::string::npos) << i << ' ' << failed;
        EXPECT_FALSE(rig.accelerator.has_queue());
    }
}

}  // namespace
}  // namespace pnode::compress::iaa::testing
