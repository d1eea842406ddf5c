#include "compress/iaa/model/engine.h"

#include <fcntl.h>
#include <libdeflate.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "compress/iaa/model/deflate_model.h"
#include "compress/iaa/status.h"

namespace pnode::compress::iaa::model {
namespace {

bool overlap(std::uint64_t a, std::uint64_t a_bytes, std::uint64_t b, std::uint64_t b_bytes) noexcept {
    return a < b + b_bytes && b < a + a_bytes;
}

bool read_memory(pid_t process, std::uint64_t from, MutableBytes to) noexcept {
    const iovec local = {to.data(), to.size()};
    const iovec remote = {reinterpret_cast<void*>(from), to.size()};
    return ::process_vm_readv(process, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(to.size());
}

bool write_memory(pid_t process, Bytes from, std::uint64_t to) noexcept {
    const iovec local = {const_cast<std::byte*>(from.data()), from.size()};
    const iovec remote = {reinterpret_cast<void*>(to), from.size()};
    return ::process_vm_writev(process, &local, 1, &remote, 1, 0) == static_cast<ssize_t>(from.size());
}

constexpr std::uint32_t flags_of_all = flag::block_on_fault | flag::completion_address_valid |
                                       flag::request_completion_record | flag::cache_control;

std::uint8_t check_sizes(const Descriptor& d, std::size_t source_max) noexcept {
    if (d.source1_bytes == 0 || d.source1_bytes > source_max) return status::invalid_size;
    if (d.destination_bytes_max == 0 || d.destination_bytes_max > Engine::transfer_bytes_max)
        return status::invalid_size;
    return status::in_progress;
}

std::uint8_t check_compress(const Descriptor& d) noexcept {
    constexpr std::uint16_t known =
        compress_flag::statistics | compress_flag::flush_output | compress_flag::append_end_of_block;
    if ((d.flags() & ~(flags_of_all | flag::read_source2_aecs)) != 0) return status::invalid_flags;
    if ((d.flags() & flag::read_source2_aecs) == 0) return status::invalid_flags;
    if ((d.operation_flags & ~known) != 0) return status::bad_operation_flags;
    if (d.source2_addr % alignof(CompressAecs) != 0) return status::address_alignment;
    if (d.source2_bytes != sizeof(CompressAecs)) return status::invalid_size;
    if (overlap(d.source1_addr, d.source1_bytes, d.destination_addr, d.destination_bytes_max))
        return status::overlap;
    return check_sizes(d, Engine::transfer_bytes_max);
}

std::uint8_t check_decompress(const Descriptor& d) noexcept {
    constexpr std::uint16_t known = decompress_flag::whole_page | decompress_flag::suppress_output;
    if ((d.flags() & ~flags_of_all) != 0) return status::invalid_flags;
    if ((d.operation_flags & ~known) != 0 || (d.operation_flags & decompress_flag::enable) == 0)
        return status::bad_operation_flags;
    if (d.source2_addr != 0 || d.source2_bytes != 0) return status::nonzero_reserved;
    if ((d.operation_flags & decompress_flag::suppress_output) == 0 &&
        overlap(d.source1_addr, d.source1_bytes, d.destination_addr, d.destination_bytes_max))
        return status::overlap;
    return check_sizes(d, Engine::transfer_bytes_max);
}

void nap_ms(long ms) noexcept {
    const timespec nap = {ms / 1000, ms % 1000 * 1'000'000};
    ::nanosleep(&nap, nullptr);
}

}  // namespace

// Status 0: nothing is wrong with it.
std::uint8_t Engine::check(const Descriptor& d) const noexcept {
    if (d.pasid != 0 || d.filter_flags != 0 || d.input_count != 0) return status::nonzero_reserved;
    if (d.interrupt_handle != 0) return 0x19;
    if ((d.flags() & flag::block_on_fault) != 0 && !queue_blocks_on_fault_) return status::invalid_flags;
    if ((d.flags() & flag::request_completion_record) == 0) return status::invalid_flags;
    switch (d.opcode()) {
        case Opcode::noop:
            return (d.flags() & ~flags_of_all) != 0 ? status::invalid_flags : status::in_progress;
        case Opcode::compress:
            return check_compress(d);
        case Opcode::decompress:
            return check_decompress(d);
    }
    return status::bad_opcode;
}

// pagemap(5): bit 63 says present. Where it cannot be read, memory is taken to be there.
bool Engine::is_present(std::uint64_t address, std::size_t bytes, bool blocks,
                        std::uint64_t* absent) const noexcept {
    if (blocks) return true;
    char path[32];
    std::snprintf(path, sizeof path, "/proc/%d/pagemap", process_);
    const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
    bool present = true;
    for (std::uint64_t page = address / page_bytes;
         present && fd >= 0 && page <= (address + bytes - 1) / page_bytes; ++page) {
        std::uint64_t entry = 0;
        const auto offset = static_cast<off_t>(page * sizeof entry);
        if (::pread(fd, &entry, sizeof entry, offset) == sizeof entry) present = (entry >> 63) != 0;
        if (!present) *absent = std::max(address, page * page_bytes);
    }
    if (fd >= 0) ::close(fd);
    return present;
}

bool Engine::fetch(std::uint64_t from, MutableBytes to, Completion& record) noexcept {
    if (!is_present(from, to.size(), blocks_, &record.fault_addr)) {
        record.status = status::page_fault;
    } else if (!read_memory(process_, from, to)) {
        record.status = status::translation_failure;
    } else {
        return true;
    }
    return false;
}

bool Engine::deliver(Bytes from, std::uint64_t to, Completion& record) noexcept {
    if (from.empty()) return true;
    if (!is_present(to, from.size(), blocks_, &record.fault_addr)) {
        record.status = status::page_fault | status::fault_was_write;
    } else if (!write_memory(process_, from, to)) {
        record.status = status::translation_failure;
    } else {
        return true;
    }
    return false;
}

// What the operation itself does; leaves the status in `record`.
void Engine::work(const Descriptor& d, Completion& record) noexcept {
    record.status = status::success;
    if (d.opcode() == Opcode::noop) return;
    const bool compressing = d.opcode() == Opcode::compress;
    const MutableBytes source = std::span(source_).first(d.source1_bytes);
    const MutableBytes room = std::span(destination_).first(d.destination_bytes_max);
    if (!fetch(d.source1_addr, source, record)) return;
    if (compressing && !fetch(d.source2_addr, std::as_writable_bytes(std::span(&aecs_, 1)), record)) return;
    if (compressing && aecs_.accumulated_bits > 8 * sizeof aecs_.accumulated) {
        record.status = status::analytics_error;
        record.error_code = error::bad_aecs;
        return;
    }
    const Coded coded = compressing ? encode(aecs_, source, room,
                                             (d.operation_flags & compress_flag::append_end_of_block) != 0)
                                    : decode(source, room);
    if (coded.error != 0 || (coded.overflow && compressing)) {
        record.status = status::analytics_error;
        record.error_code = coded.error != 0 ? coded.error : error::compressed_overflow;
        return;
    }
    if (coded.overflow) {
        record.status = status::output_overflow;
        return;
    }
    const MutableBytes output = room.first(coded.bytes);
    const Bytes plain = compressing ? Bytes(source) : Bytes(output);
    record.output_bytes = static_cast<std::uint32_t>(coded.bytes);
    record.bytes_completed = d.source1_bytes;
    record.crc = libdeflate_crc32(compressing ? aecs_.crc_seed : 0, plain.data(), plain.size());
    if (fault_.misdeed == Misdeed::flip_byte && !output.empty()) output[output.size() / 2] ^= std::byte{0x40};
    if (compressing || (d.operation_flags & decompress_flag::suppress_output) == 0)
        deliver(output, d.destination_addr, record);
}

// The status goes last and alone: whoever sees it sees the rest.
void Engine::complete(const Descriptor& d, const Completion& record) noexcept {
    const Bytes bytes = std::as_bytes(std::span(&record, 1));
    write_memory(process_, bytes.subspan(1), d.completion_addr + 1);
    write_memory(process_, bytes.first(1), d.completion_addr);
}

void Engine::execute_with(const Descriptor& d, const Fault& fault) noexcept {
    // Without an address there is nowhere to say it: a software error of the device's, no completion.
    if ((d.flags() & flag::completion_address_valid) == 0 || d.completion_addr % alignof(Completion) != 0)
        return;
    Completion record{};
    fault_ = fault;
    blocks_ = (d.flags() & flag::block_on_fault) != 0;
    record.status = check(d);
    if (fault.misdeed == Misdeed::status) {
        record.status = fault.status;
        record.error_code = fault.error_code;
    } else if (fault.misdeed == Misdeed::page_fault) {
        const std::uint64_t pages[] = {d.source1_addr, d.source2_addr, d.destination_addr};
        record.fault_addr = pages[fault.number % 3];
        record.status =
            fault.number % 3 == 2 ? status::page_fault | status::fault_was_write : status::page_fault;
    }
    if (record.status == status::in_progress) work(d, record);
    if (fault.misdeed == Misdeed::wrong_size) record.output_bytes += static_cast<std::uint32_t>(fault.number);
    if (fault.misdeed == Misdeed::wrong_crc) record.crc ^= 1;
    complete(d, record);
}

void Engine::postpone(const Descriptor& d, int requests) noexcept {
    auto* const place = std::ranges::find_if(late_, [](const Late& late) { return late.requests_left < 0; });
    if (place != late_.end()) *place = {d, requests};  // else it hangs
}

void Engine::pass_time() noexcept {
    for (Late& late : late_)
        if (late.requests_left >= 0 && late.requests_left-- == 0) execute_with(late.descriptor, {});
}

void Engine::drain() noexcept {
    for (Late& late : late_) {
        if (late.requests_left >= 0) execute_with(late.descriptor, {});
        late.requests_left = -1;
    }
}

bool Engine::execute(const Descriptor& d) noexcept {
    const Fault fault = plan_.draw();
    switch (fault.misdeed) {
        case Misdeed::vanish:
            return false;
        case Misdeed::hang:
            break;
        case Misdeed::late:
            postpone(d, fault.number);
            return true;  // this request is not one of those it waits for
        case Misdeed::stall:
            nap_ms(fault.number);
            [[fallthrough]];
        default:
            execute_with(d, fault);
    }
    pass_time();
    return true;
}

}  // namespace pnode::compress::iaa::model
