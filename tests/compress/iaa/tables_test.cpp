// Layouts and statuses against the kernel's own header, and what each status leads to.
#include <gtest/gtest.h>
#include <linux/idxd.h>

#include <cstring>
#include <set>
#include <string>

#include "compress/iaa/hardware.h"
#include "compress/iaa/status.h"

namespace pnode::compress::iaa {
namespace {

static_assert(sizeof(Descriptor) == sizeof(iax_hw_desc) &&
              sizeof(Completion) == sizeof(iax_completion_record));
static_assert(offsetof(Descriptor, completion_addr) == offsetof(iax_hw_desc, completion_addr));
static_assert(offsetof(Descriptor, source1_addr) == offsetof(iax_hw_desc, src1_addr));
static_assert(offsetof(Descriptor, destination_addr) == offsetof(iax_hw_desc, dst_addr));
static_assert(offsetof(Descriptor, source1_bytes) == offsetof(iax_hw_desc, src1_size));
static_assert(offsetof(Descriptor, interrupt_handle) == offsetof(iax_hw_desc, int_handle));
static_assert(offsetof(Descriptor, operation_flags) == offsetof(iax_hw_desc, compr_flags));
static_assert(offsetof(Descriptor, source2_addr) == offsetof(iax_hw_desc, src2_addr));
static_assert(offsetof(Descriptor, destination_bytes_max) == offsetof(iax_hw_desc, max_dst_size));
static_assert(offsetof(Descriptor, source2_bytes) == offsetof(iax_hw_desc, src2_size));
static_assert(offsetof(Descriptor, filter_flags) == offsetof(iax_hw_desc, filter_flags));
static_assert(offsetof(Descriptor, input_count) == offsetof(iax_hw_desc, num_inputs));
static_assert(offsetof(Completion, error_code) == offsetof(iax_completion_record, error_code));
static_assert(offsetof(Completion, fault_addr) == offsetof(iax_completion_record, fault_addr));
static_assert(offsetof(Completion, invalid_flags) == offsetof(iax_completion_record, invalid_flags));
static_assert(offsetof(Completion, output_bytes) == offsetof(iax_completion_record, output_size));
static_assert(offsetof(Completion, output_bits) == offsetof(iax_completion_record, output_bits));
static_assert(offsetof(Completion, xor_checksum) == offsetof(iax_completion_record, xor_csum));
static_assert(offsetof(Completion, crc) == offsetof(iax_completion_record, crc));
static_assert(static_cast<int>(Opcode::noop) == IAX_OPCODE_NOOP);
static_assert(static_cast<int>(Opcode::decompress) == IAX_OPCODE_DECOMPRESS);
static_assert(static_cast<int>(Opcode::compress) == IAX_OPCODE_COMPRESS);
static_assert(flag::block_on_fault == IDXD_OP_FLAG_BOF && flag::cache_control == IDXD_OP_FLAG_CC);
static_assert(flag::completion_address_valid == IDXD_OP_FLAG_CRAV);
static_assert(flag::request_completion_record == IDXD_OP_FLAG_RCR);
static_assert(flag::read_source2_aecs == IDXD_OP_FLAG_RD_SRC2_AECS);

TEST(IaaDescriptor, FlagsAndOpcodeShareAWordAsInTheKernels) {
    Descriptor ours{};
    ours.set(Opcode::compress, flag::block_on_fault | flag::read_source2_aecs);
    iax_hw_desc kernels;
    std::memcpy(&kernels, &ours, sizeof kernels);
    EXPECT_EQ(kernels.opcode, IAX_OPCODE_COMPRESS);
    EXPECT_EQ(kernels.flags, static_cast<unsigned>(IDXD_OP_FLAG_BOF | IDXD_OP_FLAG_RD_SRC2_AECS));
    EXPECT_EQ(ours.opcode(), Opcode::compress);
    EXPECT_EQ(ours.flags(), flag::block_on_fault | flag::read_source2_aecs);
}

// Entries of the kernel's table (drivers/crypto/intel/iaa/iaa_crypto_comp_fixed.c).
TEST(IaaAecs, FixedCodesAreTheKernels) {
    constexpr CompressAecs aecs = fixed_codes();
    EXPECT_EQ(aecs.literal_codes[0], 0x40030u);
    EXPECT_EQ(aecs.literal_codes[143], 0x400BFu);
    EXPECT_EQ(aecs.literal_codes[144], 0x48190u);
    EXPECT_EQ(aecs.literal_codes[255], 0x481FFu);
    EXPECT_EQ(aecs.literal_codes[256], 0x38000u);
    EXPECT_EQ(aecs.literal_codes[280], 0x400C0u);
    EXPECT_EQ(aecs.distance_codes[29], 0x2801Du);
    EXPECT_EQ(aecs.accumulated_bits, 3u);
}

TEST(IaaStatus, EveryStatusOfTheKernelsHasItsRow) {
    constexpr int kernels[] = {IAX_COMP_SUCCESS,
                               IAX_COMP_PAGE_FAULT_IR,
                               IAX_COMP_ANALYTICS_ERROR,
                               IAX_COMP_OUTBUF_OVERFLOW,
                               IAX_COMP_BAD_OPCODE,
                               IAX_COMP_INVALID_FLAGS,
                               IAX_COMP_NOZERO_RESERVE,
                               IAX_COMP_INVALID_SIZE,
                               IAX_COMP_OVERLAP_BUFFERS,
                               IAX_COMP_INT_HANDLE_INVAL,
                               IAX_COMP_CRA_XLAT,
                               IAX_COMP_CRA_ALIGN,
                               IAX_COMP_ADDR_ALIGN,
                               IAX_COMP_PRIV_BAD,
                               IAX_COMP_TRAFFIC_CLASS_CONF,
                               IAX_COMP_PFAULT_RDBA,
                               IAX_COMP_HW_ERR1,
                               IAX_COMP_HW_ERR_DRB,
                               IAX_COMP_TRANSLATION_FAIL,
                               IAX_COMP_PRS_TIMEOUT,
                               IAX_COMP_WATCHDOG,
                               IAX_COMP_INVALID_COMP_FLAG,
                               IAX_COMP_INVALID_FILTER_FLAG,
                               IAX_COMP_INVALID_INPUT_SIZE,
                               IAX_COMP_INVALID_NUM_ELEMS,
                               IAX_COMP_INVALID_SRC1_WIDTH,
                               IAX_COMP_INVALID_INVERT_OUT,
                               DSA_COMP_PAGE_FAULT_NOBOF};
    for (const int status : kernels)
        EXPECT_EQ(status_row(static_cast<std::uint8_t>(status), 0, true).status, status) << status;
    EXPECT_EQ(status_rows().size(), std::size(kernels));
}

TEST(IaaStatus, RowsAreDistinctAndOnlySuccessIsTaken) {
    std::set<int> seen;
    std::set<std::string> names;
    for (const StatusRow& row : status_rows()) {
        EXPECT_TRUE(seen.insert(row.status).second) << row.name;
        EXPECT_TRUE(names.insert(row.name).second) << row.name;
        EXPECT_EQ(row.recovery == Recovery::accept, row.status == status::success) << row.name;
        EXPECT_EQ(row.cause == Cause::none, row.status == status::success) << row.name;
    }
}

TEST(IaaStatus, AnyOtherByteIsNeverTaken) {
    for (int status = 2; status < 256; ++status) {
        for (const bool compressing : {false, true}) {
            const StatusRow& row = status_row(static_cast<std::uint8_t>(status), 7, compressing);
            if ((status & 0x7f) != status::success) {
                EXPECT_NE(row.recovery, Recovery::accept) << status;
                EXPECT_NE(row.cause, Cause::none) << status;
            }
        }
    }
}

TEST(IaaStatus, OutputThatDoesNotFitIsAnAnswerToCompressionAlone) {
    const std::uint8_t code = error::compressed_overflow;
    EXPECT_EQ(status_row(status::analytics_error, code, true).recovery, Recovery::incompressible);
    EXPECT_EQ(status_row(status::analytics_error, code, false).recovery, Recovery::software);
    EXPECT_EQ(status_row(status::page_fault | status::fault_was_write, 0, false).recovery, Recovery::touch);
}

TEST(IaaStatus, EveryCauseHasAName) {
    std::set<std::string> names;
    for (unsigned cause = 0; cause <= causes; ++cause) names.insert(name_of(static_cast<Cause>(cause)));
    EXPECT_EQ(names.size(), causes + 1);
}

}  // namespace
}  // namespace pnode::compress::iaa
