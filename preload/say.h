// One line on standard error, without stdio and without allocating.
#pragma once

namespace pnode::preload {

// "pnode: LINE"
void say(const char* line) noexcept;

// That this program runs unmanaged, why, and what cures it: the runtime's last message, or what `error`
// means.
void say_unmanaged(int error) noexcept;

}  // namespace pnode::preload
