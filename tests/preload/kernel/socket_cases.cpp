// Sockets: data, addresses, control messages, options. Receiving never blocks, so that a datagram that was
// lost is an answer and no hang.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <sys/un.h>

#include <algorithm>

#include "tests/preload/kernel/tools.h"

namespace kernel_access {
namespace {

sockaddr_in loopback(std::uint16_t port = 0) {
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return address;
}

const sockaddr* generic(const sockaddr_in* address) {
    return reinterpret_cast<const sockaddr*>(address);
}
sockaddr* generic(sockaddr_in* address) {
    return reinterpret_cast<sockaddr*>(address);
}

// Bound to a port of its own.
Fd new_datagram_socket(sockaddr_in* bound) {
    Fd socket_fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    sockaddr_in address = loopback();
    socklen_t bytes = sizeof(address);
    if (bind(socket_fd, generic(&address), bytes) != 0 ||
        getsockname(socket_fd, generic(&address), &bytes) != 0)
        std::abort();
    *bound = address;
    return socket_fd;
}

Fd new_listener(sockaddr_in* bound) {
    Fd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = loopback();
    socklen_t bytes = sizeof(address);
    if (bind(listener, generic(&address), bytes) != 0 || listen(listener, 5) != 0 ||
        getsockname(listener, generic(&address), &bytes) != 0)
        std::abort();
    *bound = address;
    return listener;
}

// A pair over the loopback device.
Ends new_connection() {
    sockaddr_in address;
    const Fd listener = new_listener(&address);
    Fd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(client, generic(&address), sizeof(address)) != 0) std::abort();
    return {Fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC)), std::move(client)};
}

std::size_t datagram_bytes(const Memory& memory) {
    return std::min<std::size_t>(memory.data_bytes(), 60000);
}

// All of it, in as many pieces as it takes, while the other side sends.
void stream_case(Memory& memory, Outcome& outcome, const Ends& ends) {
    const std::byte* const from = memory.data(3);
    std::byte* const to = memory.room(memory.data_bytes());
    std::size_t sent = 0;
    std::size_t received = 0;
    while (received < memory.data_bytes()) {
        memory.away();
        if (sent < memory.data_bytes()) {
            const ssize_t moved = send(ends.in, from + sent, memory.data_bytes() - sent, MSG_DONTWAIT);
            if (moved < 0 && errno != EAGAIN) {
                outcome.ok("send", moved);
                return;
            }
            sent += static_cast<std::size_t>(std::max<ssize_t>(moved, 0));
        }
        memory.away();
        const ssize_t moved = recv(ends.out, to + received, sent - received, 0);
        if (moved <= 0) {
            outcome.ok("recv", moved);
            return;
        }
        received += static_cast<std::size_t>(moved);
    }
    outcome.check("all arrived", std::memcmp(from, to, memory.data_bytes()) == 0);
}

void unix_stream_case(Memory& memory, Outcome& outcome) {
    stream_case(memory, outcome, new_socketpair(SOCK_STREAM));
}

void tcp_case(Memory& memory, Outcome& outcome) {
    stream_case(memory, outcome, new_connection());
}

void packets_case(Memory& memory, Outcome& outcome) {
    for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
        const Ends ends = new_socketpair(type | SOCK_NONBLOCK);
        const std::byte* const from = memory.data(3, datagram_bytes(memory));
        std::byte* const to = memory.room(datagram_bytes(memory));
        memory.away();
        outcome.ok("send", send(ends.in, from, datagram_bytes(memory), 0));
        memory.away();
        outcome.ok("peek", recv(ends.out, to, datagram_bytes(memory), MSG_PEEK));
        memory.away();
        outcome.ok("recv", recv(ends.out, to, datagram_bytes(memory), 0));
        memory.away();
        outcome.note("nothing left", recv(ends.out, to, datagram_bytes(memory), 0));
    }
}

void sendto_case(Memory& memory, Outcome& outcome) {
    sockaddr_in here;
    sockaddr_in there;
    const Fd left = new_datagram_socket(&here);
    const Fd right = new_datagram_socket(&there);
    const std::byte* const from = memory.data(3, datagram_bytes(memory));
    std::byte* const to = memory.room(datagram_bytes(memory));
    const sockaddr_in* const target = memory.put(there);
    auto* const source = memory.put<sockaddr_in>();
    auto* const source_bytes = memory.put<socklen_t>(sizeof(sockaddr_in));
    memory.away();
    outcome.ok("sendto", sendto(left, from, datagram_bytes(memory), 0, generic(target), sizeof(*target)));
    memory.away();
    outcome.ok("recvfrom", recvfrom(right, to, datagram_bytes(memory), 0, generic(source), source_bytes));
    outcome.check("source", source->sin_port == here.sin_port);
    outcome.note("its length", *source_bytes);
    memory.forget(target);
    memory.forget(source);
}

void addresses_case(Memory& memory, Outcome& outcome) {
    auto* const address = memory.put(loopback());
    auto* const bytes = memory.put<socklen_t>(sizeof(sockaddr_in));
    const Fd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    memory.away();
    outcome.ok("bind", bind(listener, generic(address), sizeof(*address)));
    outcome.ok("listen", listen(listener, 5));
    memory.away();
    outcome.ok("getsockname", getsockname(listener, generic(address), bytes));
    const Fd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    memory.away();
    outcome.ok("connect", connect(client, generic(address), sizeof(*address)));
    memory.away();
    const Fd accepted(accept(listener, generic(address), bytes));
    outcome.check("accept", accepted >= 0 && address->sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    memory.away();
    outcome.ok("getpeername", getpeername(accepted, generic(address), bytes));
    outcome.check("peer", address->sin_family == AF_INET && address->sin_port != 0);
    memory.forget(address);
}

void accept_case(Memory& memory, Outcome& outcome) {
    sockaddr_in there;
    const Fd listener = new_listener(&there);
    const Fd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    auto* const address = memory.put<sockaddr_in>();
    auto* const bytes = memory.put<socklen_t>(sizeof(sockaddr_in));
    memory.away();
    const Fd accepted(while_asleep(
        memory, [&] { return accept4(listener, generic(address), bytes, SOCK_CLOEXEC); },
        [&] { outcome.ok("connect", connect(client, generic(&there), sizeof(there))); }));
    outcome.check("accept4", accepted >= 0 && address->sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    memory.forget(address);
}

void recv_that_waits_case(Memory& memory, Outcome& outcome) {
    for (const int type : {SOCK_STREAM, SOCK_DGRAM}) {
        const Ends ends = new_socketpair(type);
        const std::string text(datagram_bytes(memory), 's');
        std::byte* const to = memory.room(text.size());
        const int flags = type == SOCK_STREAM ? MSG_WAITALL : 0;
        memory.away();
        outcome.ok("recv", while_asleep(
                               memory, [&] { return recv(ends.out, to, text.size(), flags); },
                               [&] { outcome.ok("send", send(ends.in, text.data(), text.size(), 0)); }));
    }
}

// Everything a message consists of: the header, the vectors, the data, a name, a control message with a
// descriptor.
void message_case(Memory& memory, Outcome& outcome) {
    const Ends ends = new_socketpair(SOCK_DGRAM | SOCK_NONBLOCK);
    const Fd passed = text_file(10);
    const std::size_t bytes = datagram_bytes(memory);
    const std::byte* const from = memory.data(3, bytes);
    std::byte* const to = memory.room(bytes);
    auto* const vectors =
        memory.put_all<iovec, 2>({iovec{const_cast<std::byte*>(from), bytes / 2},
                                  iovec{const_cast<std::byte*>(from) + bytes / 2, bytes - bytes / 2}});
    constexpr std::size_t control_bytes = CMSG_SPACE(sizeof(int));
    std::byte* const control = memory.room(control_bytes, alignof(cmsghdr));
    auto* const message = memory.put<msghdr>();
    message->msg_iov = vectors;
    message->msg_iovlen = 2;
    message->msg_control = control;
    message->msg_controllen = control_bytes;
    cmsghdr* const header = CMSG_FIRSTHDR(message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    const int passed_fd = passed;
    std::memcpy(CMSG_DATA(header), &passed_fd, sizeof(int));
    memory.away();
    outcome.ok("sendmsg", sendmsg(ends.in, message, 0));

    vectors[0].iov_base = to;
    vectors[1].iov_base = to + bytes / 2;
    std::memset(control, 0, control_bytes);
    memory.away();
    outcome.ok("recvmsg", recvmsg(ends.out, message, MSG_CMSG_CLOEXEC));
    outcome.note("flags", message->msg_flags);
    outcome.note("control", static_cast<long>(message->msg_controllen));
    int got = -1;
    if (message->msg_controllen >= CMSG_LEN(sizeof(int)))
        std::memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(message)), sizeof(int));
    const Fd received(got);
    char text[20] = {};
    outcome.ok("what was passed", pread(received, text, sizeof(text), 0));
    outcome.check("arrived", std::memcmp(from, to, bytes) == 0);
    for (const void* object :
         {static_cast<void*>(vectors), static_cast<void*>(control), static_cast<void*>(message)})
        memory.forget(object);
}

void message_name_case(Memory& memory, Outcome& outcome) {
    sockaddr_in here;
    sockaddr_in there;
    const Fd left = new_datagram_socket(&here);
    const Fd right = new_datagram_socket(&there);
    auto* const name = memory.put(there);
    auto* const data = memory.text("datagram");
    auto* const vector = memory.put<iovec>({data, 8});
    auto* const message = memory.put<msghdr>();
    message->msg_name = name;
    message->msg_namelen = sizeof(*name);
    message->msg_iov = vector;
    message->msg_iovlen = 1;
    memory.away();
    outcome.ok("sendmsg", sendmsg(left, message, 0));
    std::memset(data, 0, 8);
    std::memset(static_cast<void*>(name), 0, sizeof(*name));
    memory.away();
    outcome.ok("recvmsg", recvmsg(right, message, 0));
    outcome.check("name", name->sin_port == here.sin_port);
    for (const void* object :
         {static_cast<void*>(vector), static_cast<void*>(name), static_cast<void*>(message)})
        memory.forget(object);
}

void many_messages_case(Memory& memory, Outcome& outcome) {
    constexpr std::size_t count = 3;
    const Ends ends = new_socketpair(SOCK_DGRAM | SOCK_NONBLOCK);
    auto* const messages = memory.put_all<mmsghdr, count>({});
    auto* const timeout = memory.put<timespec>({1, 0});
    std::array<iovec*, count> vectors;
    for (std::size_t i = 0; i < count; ++i) {
        const std::size_t bytes = std::min<std::size_t>(memory.data_bytes(), 20000) + i;
        vectors[i] = memory.put<iovec>();
        *vectors[i] = {memory.data(static_cast<unsigned>(3 + i), bytes), bytes};
        messages[i].msg_hdr.msg_iov = vectors[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    memory.away();
    outcome.ok("sendmmsg", sendmmsg(ends.in, messages, count, 0));
    for (std::size_t i = 0; i < count; ++i) {
        outcome.note("sent", messages[i].msg_len);
        std::memset(vectors[i]->iov_base, 0, vectors[i]->iov_len);
    }
    memory.away();
    outcome.ok("recvmmsg", recvmmsg(ends.out, messages, count, 0, timeout));
    for (std::size_t i = 0; i < count; ++i) {
        outcome.note("received", messages[i].msg_len);
        memory.forget(vectors[i]);
    }
    memory.forget(messages);
    memory.forget(timeout);
}

void socket_options_case(Memory& memory, Outcome& outcome) {
    const Ends ends = new_connection();
    auto* const linger_on = memory.put<linger>({1, 7});
    auto* const bytes = memory.put<socklen_t>(sizeof(linger));
    memory.away();
    outcome.ok("SO_LINGER", setsockopt(ends.in, SOL_SOCKET, SO_LINGER, linger_on, sizeof(linger)));
    *linger_on = {};
    memory.away();
    outcome.ok("getsockopt", getsockopt(ends.in, SOL_SOCKET, SO_LINGER, linger_on, bytes));
    int* const one = memory.put(1);
    memory.away();
    outcome.ok("TCP_NODELAY", setsockopt(ends.in, IPPROTO_TCP, TCP_NODELAY, one, sizeof(int)));
    auto* const info = memory.put<tcp_info>();
    *bytes = sizeof(tcp_info);
    memory.away();
    outcome.ok("TCP_INFO", getsockopt(ends.in, IPPROTO_TCP, TCP_INFO, info, bytes));
    outcome.note("state", info->tcpi_state);
    memory.forget(info);
    int* const waiting = memory.put(-1);
    outcome.ok("send", send(ends.in, "123", 3, 0));
    memory.away();
    outcome.ok("FIONREAD", ioctl(ends.out, FIONREAD, waiting));
    memory.forget(waiting);
}

// The pages are pinned until the kernel says that it is done; they may be asked to leave meanwhile.
void zerocopy_case(Memory& memory, Outcome& outcome) {
    const Ends ends = new_connection();
    const int one = 1;
    outcome.ok("SO_ZEROCOPY", setsockopt(ends.in, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)));
    const std::byte* const from = memory.data(3);
    std::string taken(memory.data_bytes(), '\0');
    std::size_t sent = 0;
    std::size_t received = 0;
    while (received < taken.size()) {
        memory.away();
        if (sent < taken.size()) {
            const ssize_t moved =
                send(ends.in, from + sent, taken.size() - sent, MSG_ZEROCOPY | MSG_DONTWAIT);
            if (moved < 0 && errno != EAGAIN) {
                outcome.ok("send", moved);
                return;
            }
            sent += static_cast<std::size_t>(std::max<ssize_t>(moved, 0));
        }
        memory.nudge();
        const ssize_t moved = recv(ends.out, taken.data() + received, sent - received, 0);
        if (moved <= 0) {
            outcome.ok("recv", moved);
            return;
        }
        received += static_cast<std::size_t>(moved);
    }
    outcome.check("arrived", std::memcmp(from, taken.data(), taken.size()) == 0);
}

void descriptors_case(Memory& memory, Outcome& outcome) {
    auto* const pair = memory.put_all<int, 2>({-1, -1});
    memory.away();
    outcome.ok("pipe2", pipe2(pair, O_CLOEXEC));
    {
        const Fd out(pair[0]);
        const Fd in(pair[1]);
        outcome.ok("write", write(in, "x", 1));
    }
    memory.away();
    outcome.ok("socketpair", socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
    const Fd left(pair[0]);
    const Fd right(pair[1]);
    outcome.ok("send", send(left, "x", 1, 0));
    memory.forget(pair);
}

void unix_name_case(Memory& memory, Outcome& outcome) {
    sockaddr_un named = {};
    named.sun_family = AF_UNIX;
    const std::string path = scratch_folder() + "/socket";
    std::memcpy(named.sun_path, path.c_str(), path.size() + 1);
    auto* const address = memory.put(named);
    const Fd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const Fd client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const auto* const generic_address = reinterpret_cast<const sockaddr*>(address);
    memory.away();
    outcome.ok("bind", bind(listener, generic_address, sizeof(*address)));
    outcome.ok("listen", listen(listener, 1));
    memory.away();
    outcome.ok("connect", connect(client, generic_address, sizeof(*address)));
    unlink(path.c_str());
}

constexpr Case cases[] = {
    {"UnixStream", Access::synchronous, unix_stream_case},
    {"Tcp", Access::synchronous, tcp_case},
    {"Packets", Access::synchronous, packets_case},
    {"SendtoAndRecvfrom", Access::synchronous, sendto_case},
    {"Addresses", Access::synchronous, addresses_case, false},
    {"UnixAddress", Access::synchronous, unix_name_case, false},
    {"AcceptThatWaits", Access::asleep, accept_case, false},
    {"RecvThatWaits", Access::asleep, recv_that_waits_case},
    {"Message", Access::synchronous, message_case},
    {"MessageName", Access::synchronous, message_name_case, false},
    {"ManyMessages", Access::synchronous, many_messages_case},
    {"SocketOptions", Access::synchronous, socket_options_case, false},
    {"SendZerocopy", Access::deferred, zerocopy_case},
    {"DescriptorPairs", Access::synchronous, descriptors_case, false},
};

}  // namespace

std::span<const Case> socket_cases() {
    return cases;
}

}  // namespace kernel_access
