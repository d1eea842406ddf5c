// A redis-server of our own: a child process with its own port and folder, gone when its object is.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace pnode::demo {

// A new folder under $TMPDIR or /tmp, removed with everything in it.
class TemporaryFolder {
  public:
    TemporaryFolder();
    ~TemporaryFolder();
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;

    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

// The full path of an executable file: `name` itself if it has a slash, else found through PATH. Empty when
// there is none.
std::string find_program(const std::string& name);

// Used by the thread that made it, which must outlive it: the child is killed by the kernel should that
// thread die first.
class Server {
  public:
    // Runs `command` (a redis-server, or what ends in exec of one) with Redis options for a free port of
    // 127.0.0.1 added, and returns when it answers there. `label` names it in messages, and its log in
    // `folder`. Throws Failure.
    Server(std::string label, std::vector<std::string> command, std::string folder);
    ~Server();
    Server(const Server&) = delete;
    Server& operator=(const Server&) = delete;

    pid_t pid() const { return pid_; }
    int port() const { return port_; }

    // Why a connection broke: how the process ended, if it did, and the last lines of its log.
    std::string autopsy();

  private:
    void start();
    void wait_until_ready();
    bool answers();
    bool ended_within(int milliseconds);
    void stop();
    std::string log_path() const { return folder_ + "/" + label_ + ".log"; }

    std::string label_;
    std::vector<std::string> command_;
    std::string folder_;
    int port_ = 0;
    pid_t pid_ = -1;
    int pidfd_ = -1;
    int exit_status_ = -1;  // as waitpid tells it, once pid_ is -1 again
};

}  // namespace pnode::demo
