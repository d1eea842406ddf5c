// What is asked of the accelerator is answered rightly, whatever is behind it.
#include "compress/iaa/accelerator.h"

#include "tests/compress/iaa/rig.h"

namespace pnode::compress::iaa::testing {
namespace {

class IaaEvery : public ::testing::TestWithParam<Backend> {
  protected:
    void SetUp() override {
        config_.wait_ns_max = for_ever_ns;
        config_.promotion_wait_ns = for_ever_ns;
        const std::string failed = rig_.start(GetParam(), config_);
        if (GetParam() == Backend::device && !failed.empty()) GTEST_SKIP() << failed;
        ASSERT_EQ(failed, "");
    }
    bool has_device() const { return GetParam() != Backend::software; }
    const Counters& counters() const { return rig_.accelerator.counters(); }
    Block decompressed(Bytes payload, bool* done) {
        const GuardedBuffer room(page_bytes);
        *done = rig_.accelerator.decompress(payload, room.span());
        EXPECT_TRUE(room.intact());
        return {room.span().begin(), room.span().end()};
    }

    Accelerator::Config config_;
    Rig rig_;
    Random random_{test_seed()};
    const Codec& deflate_ = *codec_by_name("deflate");
};

TEST_P(IaaEvery, CompressesBatchesOfAnySizeSoThatSoftwareReadsThem) {
    std::size_t pages = 0;
    for (std::size_t count = 1; count <= 20; ++count, pages += count) {
        Pages batch(random_, count);
        ASSERT_NO_FATAL_FAILURE(batch.compress_and_check(rig_.accelerator, rig_.scratch()));
    }
    const std::uint64_t software = rig_.software(Cause::no_queue) + rig_.software(Cause::busy);
    EXPECT_EQ(counters().compressed + software, 210u + (has_device() ? 1 : 0));
    EXPECT_EQ(counters().compressed != 0, has_device());
    EXPECT_EQ(counters().submitted, counters().completed + counters().abandoned);
    EXPECT_EQ(counters().abandoned, 0u);
}

TEST_P(IaaEvery, DecodesWhatSoftwareCompressed) {
    for (const Pattern pattern : all_patterns) {
        const Block plain = make_block(pattern, page_bytes, random_);
        Block packed(deflate_.bound(page_bytes));
        packed.resize(deflate_.compress(plain, packed, 0, rig_.scratch()));
        bool done = false;
        const Block back = decompressed(packed, &done);
        EXPECT_EQ(done, has_device() && packed.size() <= page_bytes)
            << pnode::compress::testing::name_of(pattern);
        if (done) {
            EXPECT_EQ(back, plain);
        }
    }
}

TEST_P(IaaEvery, WhatIsNoStreamIsNotDecoded) {
    for (int round = 0; round < 50; ++round) {
        Block noise = make_block(Pattern::random, 512, random_);
        noise[0] |= std::byte{6};  // a block type that there is not
        bool done = true;
        decompressed(noise, &done);
        EXPECT_FALSE(done);
    }
    bool done = true;
    decompressed({}, &done);
    EXPECT_FALSE(done);
    EXPECT_EQ(rig_.software(Cause::analytics), has_device() ? 50u : 0u);
    EXPECT_EQ(rig_.accelerator.has_queue(), has_device());  // the data is to blame
}

TEST_P(IaaEvery, EveryRoomIsRespected) {
    for (const std::size_t room :
         {std::size_t{1}, std::size_t{8}, std::size_t{100}, std::size_t{2000}, page_bytes}) {
        Pages batch(random_, 12);
        ASSERT_NO_FATAL_FAILURE(batch.compress_and_check(rig_.accelerator, rig_.scratch(), room));
        if (room == 1) {
            EXPECT_EQ(batch.fitted(), 0u);
        }
    }
}

TEST_P(IaaEvery, BlobsAreReadWhoeverWroteThem) {
    const BlobKey key(std::span<const std::byte, 32>(make_block(Pattern::random, 32, random_)));
    std::vector<Block> plain, blobs;
    std::vector<EncodeJob> jobs;
    for (const std::size_t bytes : {page_bytes, std::size_t{8192}})  // of which one is never offloaded
        for (const Pattern pattern : all_patterns) plain.push_back(make_block(pattern, bytes, random_));
    for (const Block& block : plain) blobs.emplace_back(blob_header_bytes + deflate_.bound(block.size()));
    for (std::size_t i = 0; i < plain.size(); ++i)
        jobs.push_back({plain[i], key.hash(plain[i]), blobs[i], 0});
    encode(jobs, choice_of("iaa"), rig_.scratch(), rig_.accelerator);
    const GuardedBuffer decode_scratch(decode_scratch_bytes_max());
    for (std::size_t i = 0; i < jobs.size(); ++i) {
        SCOPED_TRACE(i);
        if (jobs[i].blob_bytes == 0) {  // fixed codes make random bytes larger than a page
            EXPECT_TRUE(has_device() && plain[i].size() == page_bytes);
            continue;
        }
        const Bytes blob = Bytes(blobs[i]).first(jobs[i].blob_bytes);
        for (Accelerator* const reader : {static_cast<Accelerator*>(nullptr), &rig_.accelerator}) {
            const GuardedBuffer back(plain[i].size());
            ASSERT_EQ(decode(blob, key, back.span(), decode_scratch.span(), reader), DecodeResult::ok);
            EXPECT_TRUE(std::ranges::equal(back.span(), plain[i]));
        }
    }
}

TEST_P(IaaEvery, ServesManyThreadsAtOnce) {
    std::vector<std::thread> threads;
    for (std::uint64_t i = 0; i < 3; ++i) {
        threads.emplace_back([this, i] {
            Random random(test_seed() + i);
            const GuardedBuffer scratch(deflate_.scratch_bytes(0));
            for (int round = 0; round < 20 && !HasFatalFailure(); ++round)
                Pages(random, 1 + random() % 16).compress_and_check(rig_.accelerator, scratch.span());
        });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(counters().submitted, counters().completed);
}

TEST_P(IaaEvery, IsNotThereAfterForgetting) {
    if (GetParam() == Backend::model_write)
        GTEST_SKIP() << "the model's process would wait for an end of file";
    rig_.accelerator.forget();
    ASSERT_EQ(rig_.accelerator.open(config_, rig_.scratch()), 0);
    EXPECT_FALSE(rig_.accelerator.has_queue());
    Pages batch(random_, 9);
    ASSERT_NO_FATAL_FAILURE(batch.compress_and_check(rig_.accelerator, rig_.scratch()));
    EXPECT_EQ(rig_.software(Cause::no_queue), 9u);
}

INSTANTIATE_TEST_SUITE_P(Backend, IaaEvery,
                         ::testing::Values(Backend::software, Backend::model_portal, Backend::model_write,
                                           Backend::device),
                         [](const auto& test) { return name_of(test.param); });

TEST(IaaPromotion, WaitsNoLongerThanSoftwareTakes) {
    Rig rig;
    ASSERT_EQ(rig.start(Backend::model_portal, {.wait_ns_max = for_ever_ns}), "");
    EXPECT_GT(rig.accelerator.promotion_wait_ns(), 0u);
    EXPECT_LT(rig.accelerator.promotion_wait_ns(), 10'000'000u);
    Random random(test_seed());
    const Codec& deflate = *codec_by_name("deflate");
    const Block plain = make_block(Pattern::json, page_bytes, random);
    Block packed(deflate.bound(page_bytes)), back(page_bytes);
    packed.resize(deflate.compress(plain, packed, 0, rig.scratch()));
    // The model is slower than software: it is asked now and then, and given up as soon as software would be
    // done.
    const std::uint64_t before = rig.accelerator.counters().submitted;
    for (int i = 0; i < 4096; ++i) ASSERT_TRUE(!rig.accelerator.decompress(packed, back) || back == plain);
    const Counters& counters = rig.accelerator.counters();
    EXPECT_GE(counters.submitted, before + 4);
    EXPECT_EQ(rig.software(Cause::slow), counters.abandoned);
    EXPECT_TRUE(rig.accelerator.has_queue());  // being slow is no error
}

TEST(IaaDevices, WhatIsMissingIsSaid) {
    Rig rig;
    ASSERT_EQ(rig.start(Backend::software, {}), "");
    std::string message;
    EXPECT_EQ(rig.accelerator.add_devices("/nonexistent", rig.scratch(), &message), 0u);
    EXPECT_EQ(message, "no iax work queue in /sys/bus/dsa/devices");
}

}  // namespace
}  // namespace pnode::compress::iaa::testing
