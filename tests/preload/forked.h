// What became of a forked child. For programs that run under the preload library.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

namespace preload_test {

// The exit code of a child that runs `body` and ends without anybody's destructors; 1000 + n when signal n
// ended it.
template <typename Body>
int exit_code_of_child(Body&& body) {
    const pid_t child = fork();
    if (child == 0) _exit(body());
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) return -1;
    return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace preload_test
