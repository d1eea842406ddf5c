// Message queues, semaphores and shared memory, of both kinds.
#include <mqueue.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#include <algorithm>

#include "tests/preload/kernel/tools.h"

namespace kernel_access {
namespace {

// One of this process alone, gone with the object.
class Queue {
  public:
    explicit Queue(const mq_attr* attributes) {
        queue_ = mq_open(name_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600, attributes);
        mq_unlink(name_.c_str());
    }
    ~Queue() {
        if (queue_ != -1) mq_close(queue_);
    }
    Queue(const Queue&) = delete;
    Queue& operator=(const Queue&) = delete;
    mqd_t get() const { return queue_; }

  private:
    std::string name_ = "/pnode-" + std::to_string(getpid());
    mqd_t queue_ = -1;
};

void queue_case(Memory& memory, Outcome& outcome) {
    auto* const attributes = memory.put<mq_attr>();
    attributes->mq_maxmsg = 4;
    attributes->mq_msgsize = 8192;
    memory.away();
    const Queue queue(attributes);
    if (outcome.note("mq_open", queue.get() == -1 ? -1 : 0) == -1) return;
    const std::size_t bytes = std::min<std::size_t>(memory.data_bytes(), 8192);
    const std::byte* const from = memory.data(3, bytes);
    std::byte* const to = memory.room(8192);
    auto* const priority = memory.put(0U);
    auto* const deadline = memory.put<timespec>({4'000'000'000, 0});
    memory.away();
    outcome.ok("mq_timedsend",
               mq_timedsend(queue.get(), reinterpret_cast<const char*>(from), bytes, 3, deadline));
    memory.away();
    outcome.ok("mq_getattr", mq_getattr(queue.get(), attributes));
    memory.away();
    outcome.ok("mq_timedreceive",
               mq_timedreceive(queue.get(), reinterpret_cast<char*>(to), 8192, priority, deadline));
    sigevent nothing = {};
    nothing.sigev_notify = SIGEV_NONE;
    auto* const event = memory.put(nothing);
    memory.away();
    outcome.ok("mq_notify", mq_notify(queue.get(), event));
}

// The message has left the queue when the kernel learns that it cannot be told.
void queue_that_waits_case(Memory& memory, Outcome& outcome) {
    mq_attr attributes = {};
    attributes.mq_maxmsg = 4;
    attributes.mq_msgsize = 8192;
    std::byte* const to = memory.room(8192);
    auto* const priority = memory.put(0U);
    auto* const deadline = memory.put<timespec>({4'000'000'000, 0});
    memory.away();
    const Queue queue(&attributes);
    if (outcome.note("mq_open", queue.get() == -1 ? -1 : 0) == -1) return;
    const std::string text(std::min<std::size_t>(memory.data_bytes(), 8192), 'm');
    outcome.ok("receive",
               while_asleep(
                   memory,
                   [&] {
                       return mq_timedreceive(queue.get(), reinterpret_cast<char*>(to), 8192, priority,
                                              deadline);
                   },
                   [&] { outcome.ok("send", mq_send(queue.get(), text.data(), text.size(), 3)); }));
}

struct Message {
    long type;
    char text[4000];
};

void messages_case(Memory& memory, Outcome& outcome) {
    const int id = msgget(IPC_PRIVATE, 0600);
    auto* const message = memory.put<Message>();
    message->type = 5;
    fill_with_text(message->text, sizeof(message->text), 6);
    auto* const state = memory.put<msqid_ds>();
    memory.away();
    outcome.ok("msgsnd", msgsnd(id, message, sizeof(message->text), 0));
    std::memset(static_cast<void*>(message), 0, sizeof(*message));
    memory.away();
    outcome.ok("IPC_STAT", msgctl(id, IPC_STAT, state));
    outcome.note("in the queue", static_cast<long>(state->msg_qnum));
    memory.away();
    outcome.ok("msgrcv", msgrcv(id, message, sizeof(message->text), 0, IPC_NOWAIT));
    memory.away();
    outcome.note("none left", msgrcv(id, message, sizeof(message->text), 0, IPC_NOWAIT));
    outcome.ok("IPC_RMID", msgctl(id, IPC_RMID, nullptr));
    memory.forget(state);
}

void message_that_waits_case(Memory& memory, Outcome& outcome) {
    const int id = msgget(IPC_PRIVATE, 0600);
    auto* const message = memory.put<Message>();
    memory.away();
    outcome.ok("msgrcv", while_asleep(
                             memory, [&] { return msgrcv(id, message, sizeof(message->text), 0, 0); },
                             [&] {
                                 const Message sent = {9, {'h', 'i'}};
                                 outcome.ok("msgsnd", msgsnd(id, &sent, sizeof(sent.text), 0));
                             }));
    outcome.ok("IPC_RMID", msgctl(id, IPC_RMID, nullptr));
}

void semaphores_case(Memory& memory, Outcome& outcome) {
    const int id = semget(IPC_PRIVATE, 2, 0600);
    auto* const values = memory.put_all<unsigned short, 2>({3, 0});
    memory.away();
    outcome.ok("SETALL", semctl(id, 0, SETALL, values));
    auto* const operations = memory.put_all<sembuf, 2>({sembuf{0, -1, 0}, sembuf{1, 2, 0}});
    memory.away();
    outcome.ok("semop", semop(id, operations, 2));
    memory.away();
    outcome.ok("GETALL", semctl(id, 0, GETALL, values));
    auto* const timeout = memory.put<timespec>({0, 1000});
    operations[0].sem_op = -9;
    memory.away();
    outcome.note("semtimedop", semtimedop(id, operations, 1, timeout));
    auto* const state = memory.put<semid_ds>();
    memory.away();
    outcome.ok("IPC_STAT", semctl(id, 0, IPC_STAT, state));
    outcome.note("semaphores", static_cast<long>(state->sem_nsems));
    memory.forget(state);
    outcome.ok("IPC_RMID", semctl(id, 0, IPC_RMID));
}

void shared_memory_case(Memory& memory, Outcome& outcome) {
    const int id = shmget(IPC_PRIVATE, 8192, 0600);
    auto* const state = memory.put<shmid_ds>();
    memory.away();
    outcome.ok("IPC_STAT", shmctl(id, IPC_STAT, state));
    outcome.note("bytes", static_cast<long>(state->shm_segsz));
    outcome.ok("IPC_RMID", shmctl(id, IPC_RMID, nullptr));
    memory.forget(state);
}

constexpr Case cases[] = {
    {"PosixQueue", Access::synchronous, queue_case},
    {"PosixQueueThatWaits", Access::asleep, queue_that_waits_case},
    {"Messages", Access::synchronous, messages_case, false},
    {"MessageThatWaits", Access::asleep, message_that_waits_case, false},
    {"Semaphores", Access::synchronous, semaphores_case, false},
    {"SharedMemoryState", Access::synchronous, shared_memory_case, false},
};

}  // namespace

std::span<const Case> ipc_cases() {
    return cases;
}

}  // namespace kernel_access
