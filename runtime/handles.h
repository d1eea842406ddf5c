// What the public handles are.
#pragma once

#include <cerrno>
#include <exception>
#include <memory>
#include <new>
#include <string>

#include "cxl/node.h"
#include "pnode/pnode.h"
#include "runtime/heap.h"
#include "runtime/os/runtime_scope.h"

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

// No exception leaves the library: what can throw is allocation.
template <class Body>
int guarded(Body body) noexcept {
    const os::RuntimeScope scope;
    try {
        return body();
    } catch (const std::bad_alloc&) {
        return fail_with(ENOMEM, "no memory for it: free some");
    } catch (const std::exception& error) {
        return fail_with(EINVAL, error.what());
    }
}

}  // namespace pnode
