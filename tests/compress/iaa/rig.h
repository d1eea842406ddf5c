// An accelerator on each of the things that may be behind it: nothing (software), the model behind a portal,
// the model as a process behind a socket, the device.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "compress/iaa/accelerator.h"
#include "compress/iaa/model/transports.h"
#include "tests/compress/blocks.h"

namespace pnode::compress::iaa::testing {

using namespace pnode::compress::testing;
using model::Fault;
using model::Misdeed;
using model::Plan;

enum class Backend { software, model_portal, model_write, device };

inline std::string name_of(Backend backend) {
    constexpr const char* names[] = {"software", "model_portal", "model_write", "device"};
    return names[static_cast<int>(backend)];
}

inline void PrintTo(Backend backend, std::ostream* out) {
    *out << name_of(backend);
}

inline constexpr std::uint64_t self_test_requests = 7;        // that a plan spares
inline constexpr std::uint64_t for_ever_ns = 60'000'000'000;  // no test waits that long: it would be a bug
inline constexpr std::uint64_t not_long_ns = 2'000'000;       // for what never comes

class Rig {
  public:
    Rig() {
        ::signal(SIGPIPE, SIG_IGN);  // of a model that vanished
        // Yama lets a process look only into its descendants' memory unless it is told to.
        ::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    }
    ~Rig() {
        if (portal_) portal_->stop();
        if (engine_thread_.joinable()) engine_thread_.join();
        accelerator.close();
        if (process_ > 0) ::waitpid(process_, nullptr, 0);
    }
    Rig(const Rig&) = delete;
    Rig& operator=(const Rig&) = delete;

    // "" or why not.
    std::string start(Backend backend, const Accelerator::Config& config, const Plan& plan = {}) {
        EXPECT_EQ(accelerator.open(config, scratch()), 0);
        std::string message;
        switch (backend) {
            case Backend::software:
                break;
            case Backend::model_portal:
                add_portal(plan, &message);
                break;
            case Backend::model_write:
                add_process(plan, &message);
                break;
            case Backend::device:
                accelerator.add_devices("", scratch(), &message);
                if (accelerator.has_queue()) message.clear();
                break;
        }
        return message;
    }

    MutableBytes scratch() const { return scratch_.span(); }
    std::uint64_t software(Cause cause) const {
        return accelerator.counters().software[static_cast<unsigned>(cause)];
    }

    Accelerator accelerator;

  private:
    void add_portal(const Plan& plan, std::string* message) {
        portal_ = std::make_unique<model::Portal>(plan);
        ASSERT_EQ(portal_->open(), 0);
        engine_thread_ = std::thread([this] { model::Portal::main(portal_.get()); });
        WorkQueue* const queue = accelerator.new_queue();
        queue->open_model_portal(portal_->address(), model::Portal::places);
        accelerator.add(queue, scratch(), message);
    }
    void add_process(const Plan& plan, std::string* message) {
        int ends[2];
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
        ::fcntl(ends[0], F_SETFL, O_NONBLOCK);
        const int few = 1;  // packets: the kernel's minimum, so that "busy" is within reach
        ::setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &few, sizeof few);
        int ready[2];
        ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        // Onto themselves: they stay open in the child.
        for (const int end : {ends[1], ready[1]}) ::posix_spawn_file_actions_adddup2(&actions, end, end);
        std::string program = PNODE_MODEL_PROCESS, socket_end = std::to_string(ends[1]),
                    ready_end = std::to_string(ready[1]), text = plan.text();
        char* arguments[] = {program.data(), socket_end.data(), ready_end.data(), text.data(), nullptr};
        ASSERT_EQ(::posix_spawn(&process_, program.c_str(), &actions, nullptr, arguments, environ), 0);
        ::posix_spawn_file_actions_destroy(&actions);
        for (const int end : {ends[1], ready[1]}) ::close(end);
        // What the self test waits for is the model, not the start of its process, which alone takes longer
        // than a short limit with ThreadSanitizer on a slow machine. An end of file: it has begun, or has
        // ended.
        char none;
        ASSERT_EQ(::read(ready[0], &none, 1), 0);
        ::close(ready[0]);
        WorkQueue* const queue = accelerator.new_queue();
        queue->open_model_socket(ends[0]);
        accelerator.add(queue, scratch(), message);
    }

    GuardedBuffer scratch_{codec_by_name("deflate")->scratch_bytes(0)};
    std::unique_ptr<model::Portal> portal_;
    std::thread engine_thread_;
    pid_t process_ = -1;
};

inline constexpr Pattern compressible[] = {Pattern::word, Pattern::text, Pattern::json,
                                           Pattern::one_odd_byte};

// Blocks of a page each, compressed as one call, and what came of it proven by software.
class Pages {
  public:
    Pages(Random& random, std::size_t count, std::span<const Pattern> patterns = all_patterns) {
        for (std::size_t i = 0; i < count; ++i)
            plain_.push_back(make_block(patterns[random() % patterns.size()], page_bytes, random));
    }
    void compress_and_check(Accelerator& accelerator, MutableBytes scratch, std::size_t room = 3584) {
        std::vector<GuardedBuffer> rooms;
        std::vector<CompressJob> jobs;
        for (const Block& block : plain_) {
            rooms.emplace_back(room);
            jobs.push_back({block, rooms.back().span(), 0});
        }
        accelerator.compress(jobs, scratch);
        for (std::size_t i = 0; i < jobs.size(); ++i) {
            ASSERT_TRUE(rooms[i].intact());
            ASSERT_LE(jobs[i].bytes_written, room);
            if (jobs[i].bytes_written == 0) continue;  // did not fit
            ++fitted_;
            GuardedBuffer back(page_bytes);
            ASSERT_TRUE(codec_by_name("deflate")->decompress(rooms[i].span().first(jobs[i].bytes_written),
                                                             back.span(), scratch))
                << i;
            ASSERT_TRUE(std::ranges::equal(back.span(), plain_[i])) << i;
        }
    }
    std::size_t fitted() const { return fitted_; }

  private:
    std::vector<Block> plain_;
    std::size_t fitted_ = 0;
};

}  // namespace pnode::compress::iaa::testing
