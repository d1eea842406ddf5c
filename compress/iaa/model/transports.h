// The two ways in which descriptors reach a model: a page of memory that stands for a portal, and a socket
// that stands for the character device.
#pragma once

#include <atomic>

#include "compress/iaa/model/engine.h"

namespace pnode::compress::iaa::model {

// A dedicated queue's portal: 64 places of 64 bytes, each full while its completion_addr is not zero. main()
// is the engine, for a thread that the caller starts and, after stop(), joins.
//
// Thread rule: open, stop and close by one thread; main by one other.
class Portal {
  public:
    static constexpr unsigned places = portal_bytes / sizeof(Descriptor);

    explicit Portal(Plan plan);
    ~Portal() { close(); }
    Portal(const Portal&) = delete;
    Portal& operator=(const Portal&) = delete;

    // 0 or an errno. Not inherited by children.
    int open() noexcept;
    void* address() const noexcept { return page_; }
    static void* main(void* portal) noexcept;
    // main() does what it still finds in the portal, and returns.
    void stop() noexcept { stop_.store(true, std::memory_order_release); }
    // When main() has returned.
    void close() noexcept;
    void forget() noexcept { page_ = nullptr; }

  private:
    bool serve_place(Descriptor* place) noexcept;
    unsigned serve_all() noexcept;

    Engine engine_;
    Descriptor* page_ = nullptr;
    bool gone_ = false;
    std::atomic<bool> stop_{false};
};

// Serves one end of a SEQPACKET socket whose other end is `process`'s, until that is shut; each packet is a
// descriptor. Closes its end when everything is done.
void serve_socket(int fd, pid_t process, Plan plan);

}  // namespace pnode::compress::iaa::model
