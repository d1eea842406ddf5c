// The public C API of nodes: arguments are checked here, once; everything behind trusts them.

#include <cerrno>
#include <cstdio>
#include <string>

#include "cxl/sizes.h"
#include "cxl/topology.h"
#include "pnode/pnode.h"
#include "runtime/handles.h"
#include "runtime/os/descriptors.h"
#include "runtime/os/runtime_scope.h"
#include "runtime/os/signals_blocked.h"

namespace {

using pnode::fail_with;
using pnode::guarded;
using pnode::cxl::Node;
using pnode::os::RuntimeScope;
using pnode::os::SignalsBlocked;
namespace service = pnode::cxl::service;

static_assert(PN_NODE_DEMOTE == service::demote && PN_NODE_DIRECT == service::direct &&
              PN_NODE_RECOMPRESS == service::recompress && PN_NODE_SPILL == service::spill &&
              PN_NODE_PREFETCH == service::prefetch && PN_NODE_PIN == service::pin &&
              PN_NODE_SHARE == service::share && PN_NODE_DEFAULT == service::by_default);
static_assert(PN_GATE_PRESSURE == static_cast<int>(pnode::cxl::GateReason::closed_by_user) &&
              PN_GATE_CONVERGING == static_cast<int>(pnode::cxl::GateReason::converging) &&
              PN_GATE_TEARDOWN == static_cast<int>(pnode::cxl::GateReason::teardown) &&
              PN_GATE_FULL == static_cast<int>(pnode::cxl::GateReason::full));
static_assert(PN_PRESSURE_MAX == Node::pressure_max);

// What changes a node is its owner's: a forked child has a copy of the handle, and no say.
template <class Body>
int on_own_node(pn_node* node, Body body) noexcept {
    if (node == nullptr) return EINVAL;
    if (!node->node->region().is_owner()) return fail_with(EPERM, "the node is the parent's");
    const RuntimeScope scope;
    const SignalsBlocked signals;
    return body(*node->node);
}

void tell_failed(void* context, std::uint64_t excess_bytes) {
    auto* const node = static_cast<pn_node*>(context);
    if (node->failed != nullptr) return node->failed(node, excess_bytes, node->context);
    pnode::report(
        "node %s holds %llu bytes more than its device can, and DRAM has no room for them: "
        "raise the near limit or free memory; the node takes nothing until then",
        node->node->spec().c_str(), static_cast<unsigned long long>(excess_bytes));
}

// All of one moment, so that sums hold. A forked child's copy may have been locked for good.
pnode::cxl::StoreCounters stored_on(Node& node) noexcept {
    if (!node.region().is_owner()) return node.store().counters();
    const SignalsBlocked signals;
    node.store().lock_all();
    const pnode::cxl::StoreCounters stored = node.store().counters();
    node.store().unlock_all();
    return stored;
}

void describe(pn_node_info* info, const char* kind, const std::string& spec, std::uint64_t bytes,
              const pnode::cxl::Performance& performance, int numa_node) {
    *info = {};
    info->align_bytes = PN_PAGE_BYTES;
    info->kind = kind;
    std::snprintf(info->spec, sizeof info->spec, "%s", spec.c_str());
    info->bytes = bytes;
    info->read_latency_ns = performance.read_latency_ns;
    info->write_latency_ns = performance.write_latency_ns;
    info->read_bandwidth_mbps = performance.read_bandwidth_mbps;
    info->write_bandwidth_mbps = performance.write_bandwidth_mbps;
    info->numa_node = numa_node;
}

}  // namespace

extern "C" {

void pn_node_options_init(pn_node_options* options) noexcept {
    if (options == nullptr) return;
    *options = pn_node_options{};
    options->struct_bytes = sizeof *options;
    options->version = PN_VERSION;
    options->services = PN_NODE_DEFAULT;
}

int pn_node_open(const char* spec, const pn_node_options* options, pn_node** out) noexcept {
    if (spec == nullptr || out == nullptr) return fail_with(EINVAL, "spec and out must not be NULL");
    if (options != nullptr && (options->struct_bytes != sizeof *options || options->version != PN_VERSION))
        return fail_with(EINVAL, "pn_node_options of another version: call pn_node_options_init()");
    return guarded([&] {
        auto opened = std::make_unique<pn_node>();
        std::string message;
        const std::uint32_t services = options != nullptr ? options->services : service::by_default;
        if (const int error = Node::open(spec, services, &opened->node, &message))
            return fail_with(error, message);
        if (options != nullptr) {
            opened->failed = options->failed;
            opened->context = options->context;
        }
        opened->node->set_failed(tell_failed, opened.get());
        pnode::os::adopt_descriptor(opened->node->region().descriptor());
        *out = opened.release();
        return 0;
    });
}

int pn_node_close(pn_node* node) noexcept {
    if (node == nullptr) return 0;
    return guarded([&] {
        Node& closing = *node->node;
        if (closing.store().direct_buffers() != 0 && closing.region().is_owner())
            return fail_with(EBUSY, "direct buffers are in use: free them with pn_node_free()");
        std::string why;
        closing.gate().shut(pnode::cxl::GateReason::teardown);
        if (const int error = pnode::evacuate_node(closing, &why)) {
            closing.gate().open(pnode::cxl::GateReason::teardown);
            return fail_with(error, why);
        }
        pnode::os::disown_descriptor(closing.region().descriptor());
        delete node;
        return 0;
    });
}

int pn_node_foreach(pn_node_visit visit, void* context) noexcept {
    if (visit == nullptr) return EINVAL;
    return guarded([&] {
        pn_node_info info;
        for (const auto& device : pnode::cxl::dax_devices()) {
            if (device.is_system_ram) continue;
            describe(&info, "dax", "dax:" + device.path(), device.size_bytes, device.performance,
                     device.target_node);
            info.align_bytes = device.align_bytes;
            info.resource = device.resource;
            if (const int stop = visit(&info, context)) return stop;
        }
        for (const auto& node : pnode::cxl::numa_nodes()) {
            if (node.has_cpus || node.memory_bytes == 0) continue;
            describe(&info, "numa", "numa:" + std::to_string(node.number), node.memory_bytes,
                     node.performance, node.number);
            if (const int stop = visit(&info, context)) return stop;
        }
        describe(&info, "memory", "memory:SIZE", pnode::physical_memory_bytes(), {}, -1);
        return visit(&info, context);
    });
}

const char* pn_node_notice(pn_node* node) noexcept {
    return node != nullptr ? node->node->region().notice().c_str() : "";
}

int pn_node_set_pressure(pn_node* node, std::uint32_t permille) noexcept {
    return on_own_node(node, [&](Node& owned) { return owned.set_pressure(permille); });
}

int pn_node_set_ratio(pn_node* node, std::uint64_t current, std::uint64_t promised) noexcept {
    return on_own_node(node, [&](Node& owned) { return owned.set_ratio(current, promised); });
}

int pn_node_events(pn_node* node, int* fd) noexcept {
    if (fd == nullptr) return EINVAL;
    return on_own_node(node, [&](Node& owned) {
        const int found = owned.event_descriptor();
        if (found < 0) return errno;
        pnode::os::adopt_descriptor(found);
        *fd = found;
        return 0;
    });
}

int pn_node_stats(pn_node* node, pn_node_stats_t* out) noexcept {
    if (node == nullptr || out == nullptr || out->struct_bytes != sizeof *out || out->version != PN_VERSION)
        return EINVAL;
    Node& told = *node->node;
    const pnode::cxl::StoreCounters stored = stored_on(told);
    const auto count = [](const std::atomic<std::uint64_t>& counter) {
        return counter.load(std::memory_order_relaxed);
    };
    pnode::cxl::SimulatedDevice* const device = told.region().device();
    *out = pn_node_stats_t{};
    out->struct_bytes = sizeof *out;
    out->version = PN_VERSION;
    out->size_bytes = told.perceived_bytes();
    out->effective_bytes = told.effective_bytes();
    out->placeable_bytes = told.placeable_bytes();
    out->used_bytes = stored.physical_bytes;
    out->blobs = stored.blobs;
    out->blob_bytes = stored.blob_bytes;
    out->direct_bytes = told.store().direct_bytes();
    out->direct_buffers = told.store().direct_buffers();
    out->direct_fallbacks = count(told.counters.direct_fallbacks);
    out->quarantined_bytes = told.store().quarantined_bytes();
    out->pressure = told.pressure();
    out->gate = told.gate().reasons();
    out->heaps = told.users();
    out->placements = count(told.counters.placements);
    out->refused_gated = count(told.counters.refused_gated);
    out->refused_full = count(told.counters.refused_full);
    out->refused_service = count(told.counters.refused_service);
    out->evacuated_pages = count(told.counters.evacuated_pages);
    out->bad_ranges = count(told.counters.bad_ranges);
    out->ladder_failures = count(told.counters.ladder_failures);
    out->events = count(told.counters.events);
    out->device_questions = count(told.counters.questions);
    out->device_disbelieved = count(told.counters.answers_disbelieved);
    out->device_used_bytes = device != nullptr ? device->used_bytes() : 0;
    out->device_bytes = device != nullptr ? device->physical_bytes() : 0;
    return 0;
}

int pn_node_alloc(pn_node* node, std::uint64_t bytes, std::uint32_t flags, void** out) noexcept {
    constexpr std::uint32_t known = PN_DIRECT | PN_THISNODE;
    if (out == nullptr || bytes == 0 || (flags & ~known) != 0 || (flags & PN_DIRECT) == 0) return EINVAL;
    return on_own_node(
        node, [&](Node& owned) { return owned.take_direct(bytes, (flags & PN_THISNODE) != 0, out); });
}

int pn_node_free(pn_node* node, void* address) noexcept {
    return on_own_node(node, [&](Node& owned) { return owned.give_direct(address); });
}

}  // extern "C"
