// What the public handles are.
#pragma once

#include <memory>
#include <string>

#include "cxl/node.h"
#include "pnode/pnode.h"
#include "runtime/heap.h"

struct pn_node : pnode::cxl::Unmanaged {
    std::unique_ptr<pnode::cxl::Node> node;
    pn_node_failed failed = nullptr;
    void* context = nullptr;
};

struct pn_heap : pnode::cxl::Unmanaged {
    pnode::Heap heap;
};

namespace pnode {

// For pn_last_message(); returns `error`.
int fail_with(int error, const std::string& message) noexcept;

}  // namespace pnode
