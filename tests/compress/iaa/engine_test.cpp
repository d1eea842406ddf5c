// The model's engine judges descriptors as the device does.
#include "compress/iaa/model/engine.h"

#include <sys/mman.h>
#include <unistd.h>

#include "compress/iaa/status.h"
#include "tests/compress/blocks.h"

namespace pnode::compress::iaa::model {
namespace {

using namespace pnode::compress::testing;

class IaaEngine : public ::testing::Test {
  protected:
    struct Memory {
        alignas(4096) std::byte source[page_bytes];
        alignas(4096) std::byte destination[page_bytes];
        alignas(64) CompressAecs aecs;
        Completion record;
    };
    IaaEngine() {
        memory_->aecs = fixed_codes();
        Random random(test_seed());
        std::ranges::copy(make_block(Pattern::json, page_bytes, random), memory_->source);
        std::ranges::fill(memory_->destination, std::byte{0});
    }
    static std::uint64_t at(const void* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }
    Descriptor compress() const {
        Descriptor d{};
        d.set(Opcode::compress, flag::completion_address_valid | flag::request_completion_record |
                                    flag::read_source2_aecs | flag::cache_control);
        d.completion_addr = at(&memory_->record);
        d.source1_addr = at(memory_->source);
        d.source1_bytes = page_bytes;
        d.source2_addr = at(&memory_->aecs);
        d.source2_bytes = sizeof(CompressAecs);
        d.destination_addr = at(memory_->destination);
        d.destination_bytes_max = page_bytes;
        d.operation_flags = compress_flag::whole_page;
        return d;
    }
    Descriptor decompress(std::uint32_t bytes) const {
        Descriptor d = compress();
        d.set(Opcode::decompress, flag::completion_address_valid | flag::request_completion_record);
        std::swap(d.source1_addr, d.destination_addr);
        d.source1_bytes = bytes;
        d.source2_addr = d.source2_bytes = 0;
        d.operation_flags = decompress_flag::whole_page;
        return d;
    }
    const Completion& run(const Descriptor& descriptor, bool queue_blocks = false) {
        memory_->record = {};
        const auto engine = std::make_unique<Engine>(::getpid(), Plan(), queue_blocks);
        EXPECT_TRUE(engine->execute(descriptor));
        return memory_->record;
    }

    std::unique_ptr<Memory> memory_ = std::make_unique<Memory>();
};

TEST_F(IaaEngine, CompressesDecodesAndVerifies) {
    const Block plain(memory_->source, memory_->source + page_bytes);
    Completion record = run(compress());
    ASSERT_EQ(record.status, status::success);
    ASSERT_GT(record.output_bytes, 0u);
    const std::uint32_t crc = record.crc, packed_bytes = record.output_bytes;
    std::ranges::fill(memory_->source, std::byte{0});
    Descriptor verify = decompress(packed_bytes);
    verify.operation_flags |= decompress_flag::suppress_output;
    record = run(verify);
    EXPECT_EQ(record.status, status::success);
    EXPECT_EQ(record.crc, crc);
    EXPECT_EQ(record.output_bytes, page_bytes);
    EXPECT_EQ(memory_->source[0], std::byte{0});
    record = run(decompress(packed_bytes));
    EXPECT_EQ(record.crc, crc);
    EXPECT_TRUE(std::ranges::equal(memory_->source, plain));
}

TEST_F(IaaEngine, EveryWrongDescriptorIsCalledWhatItIs) {
    using Change = void (*)(Descriptor&);
    const std::pair<std::uint8_t, Change> wrong[] = {
        {status::bad_opcode, [](Descriptor& d) { d.set(static_cast<Opcode>(0x60), d.flags()); }},
        {status::invalid_flags, [](Descriptor& d) { d.flags_opcode |= flag::block_on_fault; }},
        {status::invalid_flags, [](Descriptor& d) { d.flags_opcode |= 0x10; }},
        {status::invalid_flags, [](Descriptor& d) { d.flags_opcode &= ~flag::read_source2_aecs; }},
        {status::invalid_flags, [](Descriptor& d) { d.flags_opcode &= ~flag::request_completion_record; }},
        {status::nonzero_reserved, [](Descriptor& d) { d.pasid = 1; }},
        {status::nonzero_reserved, [](Descriptor& d) { d.filter_flags = 1; }},
        {status::nonzero_reserved, [](Descriptor& d) { d.input_count = 1; }},
        {0x19, [](Descriptor& d) { d.interrupt_handle = 1; }},
        {status::invalid_size, [](Descriptor& d) { d.source1_bytes = 0; }},
        {status::invalid_size, [](Descriptor& d) { d.source2_bytes = 32; }},
        {status::invalid_size, [](Descriptor& d) { d.destination_bytes_max = 0; }},
        {status::overlap, [](Descriptor& d) { d.destination_addr = d.source1_addr + 64; }},
        {status::address_alignment, [](Descriptor& d) { d.source2_addr += 16; }},
        {status::bad_operation_flags, [](Descriptor& d) { d.operation_flags |= 0x8000; }},
        {status::translation_failure,
         [](Descriptor& d) {
             d.flags_opcode |= flag::block_on_fault;
             d.source1_addr = 4096;
         }},
    };
    for (std::size_t i = 0; i < std::size(wrong); ++i) {
        Descriptor d = compress();
        wrong[i].second(d);
        const bool queue_blocks = wrong[i].first == status::translation_failure;
        EXPECT_EQ(run(d, queue_blocks).status, wrong[i].first) << i;
    }
    Descriptor d = decompress(64);
    d.operation_flags = 0;
    EXPECT_EQ(run(d).status, status::bad_operation_flags);
    d = decompress(64);
    d.source2_addr = d.destination_addr;
    EXPECT_EQ(run(d).status, status::nonzero_reserved);
}

TEST_F(IaaEngine, WithoutAPlaceForTheRecordThereIsNoAnswer) {
    Descriptor d = compress();
    d.completion_addr += 32;
    EXPECT_EQ(run(d).status, status::in_progress);
    d = compress();
    d.flags_opcode &= ~flag::completion_address_valid;
    EXPECT_EQ(run(d).status, status::in_progress);
}

TEST_F(IaaEngine, PagesThatAreNotThereFaultUnlessItMayBlock) {
    auto* const absent = static_cast<std::byte*>(
        ::mmap(nullptr, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(absent, MAP_FAILED);
    Descriptor d = compress();
    d.source1_addr = at(absent);
    Completion record = run(d);
    EXPECT_EQ(record.status, status::page_fault);
    EXPECT_EQ(record.fault_addr, at(absent));
    d = compress();
    d.destination_addr = at(absent);
    record = run(d);
    EXPECT_EQ(record.status, status::page_fault | status::fault_was_write);
    EXPECT_EQ(record.fault_addr, at(absent));
    d.flags_opcode |= flag::block_on_fault;
    EXPECT_EQ(run(d, true).status, status::success);
    ::munmap(absent, page_bytes);
}

TEST_F(IaaEngine, OutputThatDoesNotFitIsOneErrorOrTheOther) {
    Descriptor d = compress();
    d.destination_bytes_max = 64;
    Completion record = run(d);
    EXPECT_EQ(record.status, status::analytics_error);
    EXPECT_EQ(record.error_code, error::compressed_overflow);
    const std::uint32_t packed_bytes = run(compress()).output_bytes;
    d = decompress(packed_bytes);
    d.destination_bytes_max = page_bytes - 1;
    EXPECT_EQ(run(d).status, status::output_overflow);
}

TEST(IaaPlan, TellsTheSameStoryAfterATripAsText) {
    Plan plan(
        7, 3, 500,
        {{Misdeed::status, 0x20, 0, 0}, {Misdeed::page_fault, 0, 0, 2}, {Misdeed::wrong_size, 0, 0, -5}});
    Plan copy = Plan::parse(plan.text());
    int faults = 0;
    for (int i = 0; i < 1000; ++i) {
        const Fault a = plan.draw(), b = copy.draw();
        EXPECT_TRUE(a.misdeed == b.misdeed && a.status == b.status && a.number == b.number) << i;
        EXPECT_TRUE(i >= 3 || a.misdeed == Misdeed::none);
        faults += a.misdeed != Misdeed::none ? 1 : 0;
    }
    EXPECT_GT(faults, 300);
    EXPECT_LT(faults, 700);
}

}  // namespace
}  // namespace pnode::compress::iaa::model
