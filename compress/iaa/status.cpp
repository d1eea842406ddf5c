#include "compress/iaa/status.h"

#include <algorithm>
#include <iterator>

namespace pnode::compress::iaa {
namespace {

using enum Recovery;

// Statuses are the kernel's (linux/idxd.h); SPDK's header numbers some of them differently.
constexpr StatusRow rows[] = {
    {0x01, "success", accept, Cause::none, Blame::nobody},
    {0x03, "page fault", touch, Cause::page_fault, Blame::nobody},
    {0x04, "page fault, interrupt pending", touch, Cause::page_fault, Blame::nobody},
    {0x0a, "analytics error", software, Cause::analytics, Blame::nobody},
    {0x0b, "output buffer overflow", software, Cause::overflow, Blame::nobody},
    {0x10, "bad opcode", software, Cause::refused, Blame::ourselves},
    {0x11, "invalid flags", software, Cause::refused, Blame::ourselves},
    {0x12, "reserved field not zero", software, Cause::refused, Blame::ourselves},
    {0x13, "invalid size", software, Cause::refused, Blame::ourselves},
    {0x16, "buffers overlap", software, Cause::refused, Blame::ourselves},
    {0x19, "invalid interrupt handle", software, Cause::refused, Blame::ourselves},
    {0x1a, "completion address not mapped", software, Cause::refused, Blame::ourselves},
    {0x1b, "completion address not aligned", software, Cause::refused, Blame::ourselves},
    {0x1c, "address not aligned", software, Cause::refused, Blame::ourselves},
    {0x1d, "bad privilege", software, Cause::refused, Blame::ourselves},
    {0x1e, "traffic class not configured", software, Cause::refused, Blame::ourselves},
    {0x1f, "page fault on the descriptor list", software, Cause::refused, Blame::ourselves},
    {0x20, "hardware error", software, Cause::hardware, Blame::device},
    {0x21, "hardware error on the drain", software, Cause::hardware, Blame::device},
    {0x22, "translation failure", software, Cause::translation, Blame::device},
    {0x23, "page request time-out", again, Cause::page_request, Blame::device},
    {0x24, "watchdog expired", again, Cause::watchdog, Blame::device},
    {0x30, "invalid compression flags", software, Cause::refused, Blame::ourselves},
    {0x31, "invalid filter flags", software, Cause::refused, Blame::ourselves},
    {0x32, "invalid input size", software, Cause::refused, Blame::ourselves},
    {0x33, "invalid number of elements", software, Cause::refused, Blame::ourselves},
    {0x34, "invalid source width", software, Cause::refused, Blame::ourselves},
    {0x35, "invalid inverted output", software, Cause::refused, Blame::ourselves},
};
constexpr StatusRow unknown_row = {0xff, "unknown", software, Cause::unknown_status, Blame::device};
constexpr StatusRow incompressible_row = {0x0a, "did not fit", incompressible, Cause::none, Blame::nobody};

constexpr const char* cause_names[] = {
#define PNODE_IAA_CAUSE(name, sentence) #name,
    PNODE_IAA_CAUSES(PNODE_IAA_CAUSE)
#undef PNODE_IAA_CAUSE
        "none"};

}  // namespace

const char* name_of(Cause cause) noexcept {
    return cause_names[static_cast<unsigned>(cause)];
}

const StatusRow& status_row(std::uint8_t status, std::uint8_t error_code, bool compressing) noexcept {
    const std::uint8_t masked = status & ~status::fault_was_write;
    if (compressing && masked == status::analytics_error && error_code == error::compressed_overflow)
        return incompressible_row;
    const auto* const row = std::ranges::find(rows, masked, &StatusRow::status);
    return row != std::end(rows) ? *row : unknown_row;
}

std::span<const StatusRow> status_rows() noexcept {
    return rows;
}

}  // namespace pnode::compress::iaa
