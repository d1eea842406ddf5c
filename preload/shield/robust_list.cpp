#include "preload/shield/robust_list.h"

#include <linux/futex.h>

#include "preload/shield/held_call.h"
#include "preload/shield/keep_near.h"

namespace pnode::preload {
namespace {

__thread std::uint64_t list_head __attribute__((tls_model("initial-exec"))) = 0;

}  // namespace

void note_robust_list(std::uint64_t head) noexcept {
    list_head = head;
}

void promote_robust_list() noexcept {
    robust_list_head head{};
    if (list_head == 0 || !peek(&head, list_head, sizeof head)) return;
    auto at = reinterpret_cast<std::uint64_t>(head.list.next);
    for (int length = 0; at != list_head && length < ROBUST_LIST_LIMIT; ++length) {
        at &= ~std::uint64_t{1};  // the lowest bit says that it is a priority-inheriting one
        const std::uint64_t word = at + static_cast<std::uint64_t>(head.futex_offset);
        keep_near(at, 2 * sizeof(std::uint64_t));
        keep_near(word, sizeof(int));
        std::uint64_t next = 0;
        if (!peek(&next, at, sizeof next)) return;
        at = next;
    }
}

}  // namespace pnode::preload
