// C34, on the accelerator's model: what can be seen of the device is its descriptors.
#include "tests/compress/iaa/rig.h"

namespace pnode::compress::iaa::testing {
namespace {

std::uint64_t by_software(const Counters& counters) {
    std::uint64_t operations = 0;
    for (const auto& counter : counters.software) operations += counter;
    return operations;
}

// The device works, then fails at everything: every page is right (compress_and_check decodes each with
// software alone), and the switch is counted.
TEST(ContractAccelerator, C34_SoftwareEqualsHardware) {
    constexpr std::uint64_t works_for = self_test_requests + 64;
    Random random(test_seed());
    for (const Misdeed failure : {Misdeed::status, Misdeed::flip_byte, Misdeed::wrong_crc}) {
        Rig rig;
        const Plan plan(test_seed(), works_for, 1000, {{failure, 0x20, 0, 1}});
        ASSERT_EQ(rig.start(Backend::model_portal, {for_ever_ns, 100, for_ever_ns}, plan), "");
        const Counters& counters = rig.accelerator.counters();
        for (int batch = 0; batch < 16; ++batch) {
            Pages pages(random, 8, compressible);
            ASSERT_NO_FATAL_FAILURE(pages.compress_and_check(rig.accelerator, rig.scratch()));
            EXPECT_EQ(pages.fitted(), 8u);
        }
        EXPECT_GT(counters.compressed, 0u);
        EXPECT_GT(by_software(counters), 0u);
    }
}

}  // namespace
}  // namespace pnode::compress::iaa::testing
