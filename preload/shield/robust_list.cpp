#include "preload/shield/robust_list.h"

#include <linux/futex.h>

#include "preload/shield/held_call.h"

namespace pnode::preload {
namespace {

__thread std::uint64_t list_head __attribute__((tls_model("initial-exec"))) = 0;

// The thread ends with it.
union NeverLetGo {
    Hold hold;
    NeverLetGo() noexcept : hold() {}
    ~NeverLetGo() {}
};

}  // namespace

void note_robust_list(std::uint64_t head) noexcept {
    list_head = head;
}

void hold_robust_list() noexcept {
    NeverLetGo never;
    Hold& hold = never.hold;
    robust_list_head head{};
    if (list_head == 0) return;
    hold.add(list_head, sizeof head);
    if (!peek(&head, list_head, sizeof head)) return;
    auto at = reinterpret_cast<std::uint64_t>(head.list.next);
    for (int length = 0; at != list_head && length < ROBUST_LIST_LIMIT; ++length) {
        at &= ~std::uint64_t{1};  // the lowest bit says that it is a priority-inheriting one
        const std::uint64_t word = at + static_cast<std::uint64_t>(head.futex_offset);
        hold.add(at, 2 * sizeof(std::uint64_t));
        hold.add(word, sizeof(int));
        std::uint64_t next = 0;
        if (!peek(&next, at, sizeof next)) return;
        at = next;
    }
}

}  // namespace pnode::preload
