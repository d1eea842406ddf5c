// What a completion says, and what to do then: one row per status.
//
// Thread rule: constants.
#pragma once

#include <cstdint>
#include <span>

namespace pnode::compress::iaa {

// Why an operation was done in software instead. Each is counted.
#define PNODE_IAA_CAUSES(X)                                                   \
    X(no_queue, "no queue was found, or all were retired")                    \
    X(no_slot, "every staging slot is in use or waits for a late completion") \
    X(busy, "the queue took no more")                                         \
    X(queue_lost, "the queue answered a submission with an error")            \
    X(slow, "a promotion would have waited longer than software takes")       \
    X(time_out, "no completion within the limit")                             \
    X(page_fault, "pages kept faulting after they were touched")              \
    X(analytics, "the data could not be processed")                           \
    X(overflow, "more output than there is room for")                         \
    X(refused, "the device called the descriptor wrong")                      \
    X(hardware, "a hardware error")                                           \
    X(translation, "an address was not mapped")                               \
    X(page_request, "a page request was not answered")                        \
    X(watchdog, "the device's watchdog expired")                              \
    X(unknown_status, "a status that no document names")                      \
    X(wrong, "the answer did not pass verification")

enum class Cause : std::uint8_t {
#define PNODE_IAA_CAUSE(name, sentence) name,
    PNODE_IAA_CAUSES(PNODE_IAA_CAUSE)
#undef PNODE_IAA_CAUSE
        none
};
inline constexpr unsigned causes = static_cast<unsigned>(Cause::none);
const char* name_of(Cause cause) noexcept;

enum class Recovery : std::uint8_t {
    accept,         // take the output
    touch,          // touch the faulting page and submit the whole operation again, a bounded number of times
    again,          // submit again once
    software,       // this operation in software; the queue is not to blame
    incompressible  // did not fit, and that is the answer
};

enum class Blame : std::uint8_t {
    nobody,
    device,    // three in a row retire the queue
    ourselves  // a descriptor that the device calls wrong: more of them would be, the queue is retired at
               // once
};

struct StatusRow {
    std::uint8_t status;
    const char* name;
    Recovery recovery;
    Cause cause;  // counted when software has to do it after all
    Blame blame;
};

// Of a completion's status (bit 7, "the fault was a write", is ignored) and error code; `compressing` says
// which operation it was. A status without a row of its own gets the last one.
const StatusRow& status_row(std::uint8_t status, std::uint8_t error_code, bool compressing) noexcept;
// Every row that names a status.
std::span<const StatusRow> status_rows() noexcept;

namespace status {
inline constexpr std::uint8_t in_progress = 0x00, success = 0x01, page_fault = 0x03, analytics_error = 0x0a,
                              output_overflow = 0x0b, bad_opcode = 0x10, invalid_flags = 0x11,
                              nonzero_reserved = 0x12, invalid_size = 0x13, overlap = 0x16,
                              record_alignment = 0x1b, address_alignment = 0x1c, hardware_error = 0x20,
                              translation_failure = 0x22, page_request_time_out = 0x23, watchdog = 0x24,
                              bad_operation_flags = 0x30;
inline constexpr std::uint8_t fault_was_write = 0x80;
}  // namespace status

// Under status::analytics_error.
namespace error {
inline constexpr std::uint8_t code_lengths = 2, block_type = 13, stored_length = 14, end_of_block = 15,
                              bad_length = 16, bad_distance = 17, before_start = 18, no_progress = 19,
                              bad_aecs = 22, compressed_overflow = 25, invalid_code = 30;
}  // namespace error

}  // namespace pnode::compress::iaa
