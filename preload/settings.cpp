#include "preload/settings.h"

#include <new>

#include "preload/say.h"
#include "runtime/options/options.h"

namespace pnode::preload {
namespace {

// Never destroyed: the heap is used until the process is gone, after all destructors.
alignas(Options) constinit unsigned char options_storage[sizeof(Options)] = {};
constinit Settings read = {};

void warn(const char* line, void*) {
    say(line);
}

}  // namespace

void settings_read() noexcept {
    const auto* options = new (options_storage) Options(Options::from_environment(warn, nullptr));
    pn_heap_options_init(&read.heap);
    read.heap.near_bytes_max = options->near_bytes_max;
    read.heap.far_bytes_max = options->far_bytes_max;
    read.heap.total_bytes_max = options->total_bytes_max;
    read.heap.activation_bytes = options->activation_bytes;
    read.heap.node_spec = options->node.empty() ? nullptr : options->node.c_str();
    read.heap.codec = options->codec.empty() ? nullptr : options->codec.c_str();
    read.heap.engine = options->engine;
    if (options->strict) read.heap.flags |= PN_HEAP_STRICT;
    if (options->stress) read.heap.flags |= PN_HEAP_STRESS;
    if (options->verbose) read.heap.flags |= PN_HEAP_VERBOSE;
    read.captures_malloc = (options->capture & Options::capture_malloc) != 0;
    read.captures_mmap = (options->capture & Options::capture_mmap) != 0;
    read.captures_hints = (options->capture & Options::capture_hints) != 0;
    read.capture_bytes_min = options->capture_bytes_min;
    read.stats_file = options->stats.c_str();
    read.stats_every_ms = static_cast<unsigned>(options->stats_every_ms);  // the table's maximum is an hour
}

const Settings& settings() noexcept {
    return read;
}

}  // namespace pnode::preload
