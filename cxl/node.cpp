#include "cxl/node.h"

#include <cerrno>
#include <new>
#include <utility>

#include "cxl/sizes.h"

namespace pnode::cxl {

Node::Node(std::string spec, std::unique_ptr<Region> region)
    : spec_(std::move(spec)), region_(std::move(region)), store_(*region_) {}

int Node::open(const std::string& spec, std::unique_ptr<Node>* out, std::string* message) {
    std::unique_ptr<Region> region;
    if (const int error = open_region(spec, &region, message)) return error;
    if (region->size_bytes() < BlobStore::region_bytes_min) {
        if (message != nullptr) {
            *message = "\"" + spec + "\" is too small to hold a blob: name at least " +
                       format_size(BlobStore::region_bytes_min);
        }
        return EINVAL;
    }
    try {
        out->reset(new Node(spec, std::move(region)));
    } catch (const std::bad_alloc&) {
        if (message != nullptr) *message = "\"" + spec + "\": no memory for its tables: name a smaller size";
        return ENOMEM;
    }
    return 0;
}

}  // namespace pnode::cxl
