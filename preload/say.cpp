#include "preload/say.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cstring>

#include "pnode/pnode.h"

namespace pnode::preload {
namespace {

iovec piece(const char* text) noexcept {
    return {const_cast<char*>(text), std::strlen(text)};
}

}  // namespace

// One writev, so that lines of several processes do not mix. Where it cannot be written there is nobody to
// tell.
void say(const char* line) noexcept {
    const iovec pieces[] = {piece("pnode: "), piece(line), piece("\n")};
    [[maybe_unused]] const ssize_t written = writev(STDERR_FILENO, pieces, 3);
}

void say_unmanaged(int error) noexcept {
    const char* message = pn_last_message();
    const iovec pieces[] = {piece("pnode: this program runs unmanaged: "),
                            piece(*message != '\0' ? message : pn_strerror(error)), piece("\n")};
    [[maybe_unused]] const ssize_t written = writev(STDERR_FILENO, pieces, 3);
}

}  // namespace pnode::preload
