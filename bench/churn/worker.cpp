#include "bench/churn/worker.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <system_error>
#include <vector>

#include "bench/common/interrupt.h"
#include "bench/common/together.h"

namespace pnode::bench {
namespace {

constexpr std::size_t page_bytes = 4096;

std::uint64_t cpu_ns(clockid_t clock) {
    timespec now;
    clock_gettime(clock, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

// The child's side.
class Performer {
  public:
    Performer(const std::string& engine, std::size_t pages, const std::string& text)
        : subject_(make_subject(engine, pages * page_bytes)), source_(pages), contents_(text, pages) {}

    Answer perform(const Order& order) {
        Answer answer;
        if (order.kind == Order::fill) contents_.fill(subject_->memory());
        if (order.kind == Order::limit) subject_->set_limits(order.limits);
        if (order.kind == Order::verify) contents_.verify(subject_->memory());
        if (order.kind == Order::run) run(order, answer);
        answer.usage = subject_->usage();
        return answer;
    }

  private:
    void run(const Order& order, Answer& answer) {
        sequence_.resize(order.accesses);
        // A tenth stays free: the evictor's watermarks are below the limit.
        const std::size_t fits = order.limits.near_bytes / page_bytes * 9 / 10;
        source_.make(order.mix, order.seed, fits, sequence_);
        std::atomic<std::uint64_t> accessing_cpu_ns{0}, repeated{0};
        const std::uint64_t cpu_before = cpu_ns(CLOCK_PROCESS_CPUTIME_ID), wall_before = now_ns();
        answer.round = run_together(sequence_.size(), order.threads, sequence_.size(),
                                    [&](Share share, std::vector<std::uint32_t>& latencies) {
                                        const std::uint64_t before = cpu_ns(CLOCK_THREAD_CPUTIME_ID);
                                        do {
                                            latencies.clear();
                                            access(share, latencies);
                                            repeated.fetch_add(latencies.size(), std::memory_order_relaxed);
                                        } while (now_ns() - wall_before < order.wall_ns_min);
                                        accessing_cpu_ns.fetch_add(cpu_ns(CLOCK_THREAD_CPUTIME_ID) - before,
                                                                   std::memory_order_relaxed);
                                    });
        const auto wall = static_cast<double>(now_ns() - wall_before);
        const std::uint64_t cpu = cpu_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu_before;
        const auto accesses = static_cast<double>(repeated.load());
        if (order.wall_ns_min != 0) answer.round.per_s = accesses * 1e9 / wall;
        answer.cpu_ns = static_cast<double>(cpu) / accesses;
        answer.background_cpu_percent = 100 * static_cast<double>(cpu - accessing_cpu_ns.load()) / wall;
        contents_.note(sequence_);
    }

    void access(Share share, std::vector<std::uint32_t>& latencies) {
        std::uint64_t before = now_ns();
        for (std::size_t i = share.begin; i < share.end; ++i) {
            access_page(subject_->memory(), sequence_[i]);
            const std::uint64_t after = now_ns();
            latencies.push_back(clamp_ns(after - before));
            before = after;
            throw_if_interrupted();
        }
    }

    std::unique_ptr<Subject> subject_;
    AccessSource source_;
    Contents contents_;
    std::vector<Access> sequence_;  // kept: its pages are charged once
};

Answer failure(const char* reason) {
    Answer answer;
    answer.failed = true;
    strncpy(answer.message, reason, sizeof answer.message - 1);
    return answer;
}

// Never returns an exception to the parent's frames: they would tear down what is the parent's.
[[noreturn]] void be_worker(int socket, const std::string& engine, std::size_t pages,
                            const std::string& text) {
    std::unique_ptr<Performer> performer;
    for (Order order; recv(socket, &order, sizeof order, 0) == sizeof order;) {
        Answer answer;
        try {
            if (!performer) performer = std::make_unique<Performer>(engine, pages, text);
            answer = performer->perform(order);
        } catch (const std::exception& error) {
            answer = failure(error.what());
        }
        if (send(socket, &answer, sizeof answer, MSG_NOSIGNAL) != sizeof answer) break;
    }
    performer.reset();
    _exit(0);
}

}  // namespace

Worker::Worker(const std::string& engine, std::size_t pages, const std::string& text) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
        throw std::system_error(errno, std::generic_category(), "socketpair");
    child_ = fork();
    if (child_ == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        // Nothing but its own socket: copies of the others' would keep those workers from seeing their end.
        const int socket = dup2(ends[1], 3);
        close_range(4, ~0u, 0);
        be_worker(socket, engine, pages, text);
    }
    close(ends[1]);
    if (child_ < 0) {
        close(ends[0]);
        throw std::system_error(errno, std::generic_category(), "fork");
    }
    socket_ = ends[0];
}

Worker::~Worker() {
    close(socket_);  // the child's next recv() ends it
    if (child_ > 0) how_it_ended();
}

Answer Worker::obey(const Order& order) {
    Answer answer;
    if (send(socket_, &order, sizeof order, MSG_NOSIGNAL) != sizeof order) throw WorkerEnded(how_it_ended());
    ssize_t got = -1;
    while ((got = recv(socket_, &answer, sizeof answer, 0)) < 0 && errno == EINTR) throw_if_interrupted();
    if (got != sizeof answer) throw WorkerEnded(how_it_ended());
    if (answer.failed) {
        throw_if_interrupted();
        throw std::runtime_error(answer.message);
    }
    return answer;
}

// Called once the child has no reason to live.
std::string Worker::how_it_ended() {
    int status = 0;
    if (child_ <= 0) return "its process has ended";
    while (waitpid(child_, &status, 0) < 0 && errno == EINTR) {
    }
    child_ = -1;
    if (!WIFSIGNALED(status)) return "its process ended early";
    return "its process was ended by signal " + std::to_string(WTERMSIG(status)) +
           (WTERMSIG(status) == SIGKILL ? " (the out-of-memory killer, as a rule)" : "");
}

}  // namespace pnode::bench
