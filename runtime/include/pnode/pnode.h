/* pnode.h: a private memory node for one process. Start here.
 *
 * A *node* is a region that holds cold pages compressed; a *heap* is managed address space that shares a near
 * limit, a node and a codec; a *buffer* is a range of a heap. Nothing reaches a node but through its handle.
 *
 * Rules for the whole file
 *   Results     0, or a positive errno value; pn_strerror() has a sentence for each. Outputs are untouched on
 * failure unless said. pn_last_message() has one line, for the calling thread, that names the cure of the
 * last failed open. Units       bytes unless the name says otherwise; a page is 4096 bytes. Threads     every
 * function may be called by any thread at once, except the closes: nobody may be using what is closed.
 *   Signals     none may be called from a signal handler. *Accessing* a buffer is allowed anywhere, handlers
 * included. fork()      a child may use every buffer it inherited, sees its bytes as of the fork, and may
 * call everything here. After vfork() call nothing here. The runtime's descriptors (above 100, close-on-exec)
 * must not be closed by others. Exceptions  none leave this library.
 */
#ifndef PNODE_PNODE_H
#define PNODE_PNODE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define PN_API __attribute__((visibility("default")))
#else
#define PN_API
#endif

#ifdef __cplusplus
#define PN_NOEXCEPT noexcept
extern "C" {
#else
#define PN_NOEXCEPT
#endif

#define PN_PAGE_BYTES 4096u
#define PN_VERSION 1u

typedef struct pn_node pn_node;
typedef struct pn_heap pn_heap;

/* ---- nodes ---- */

/* What a node may be used for: a mask that is given when it is opened, and fixed from then on. Whatever is
 * not in it does not happen on this node, whoever asks.
 *
 * | mask                                            | refused with EINVAL when                      |
 * |-------------------------------------------------|-----------------------------------------------|
 * | any                                             | it has neither DEMOTE nor DIRECT              |
 * | RECOMPRESS, PREFETCH, PIN                       | it lacks DEMOTE                               |
 * | DIRECT                                          | the region compresses by itself ("sim:")      |
 * | SPILL, a bit that is not named here             | always: no such service in this version       | */
enum {
    PN_NODE_DEMOTE = 1,     /* heaps place their cold pages on it */
    PN_NODE_DIRECT = 2,     /* pn_node_alloc(): buffers whose bytes live on it, loaded and stored in place */
    PN_NODE_RECOMPRESS = 4, /* blobs are made smaller in the background, where the heap's codec says so */
    PN_NODE_SPILL = 8,      /* blobs go on to a file */
    PN_NODE_PREFETCH = 16,  /* pn_prefetch() */
    PN_NODE_PIN = 32,       /* pn_pin(), on heaps that use it */
    PN_NODE_SHARE = 64,     /* several heaps at once */
    PN_NODE_DEFAULT = PN_NODE_DEMOTE | PN_NODE_RECOMPRESS | PN_NODE_PREFETCH | PN_NODE_PIN | PN_NODE_SHARE
};

/* The node holds `excess_bytes` more than its device can (pn_node_set_ratio), and the near limits have no
 * room for them: called once until it has settled again, on a thread of the runtime's. It may call anything
 * here but closes; what it can do about it is to raise a near limit, to release or free pages, or to end the
 * process. Until the node has settled it takes nothing, and every page on it can still be read. */
typedef void (*pn_node_failed)(pn_node* node, uint64_t excess_bytes, void* context);

typedef struct pn_node_options {
    uint32_t struct_bytes; /* sizeof(pn_node_options), set by pn_node_options_init() */
    uint32_t version;      /* PN_VERSION */
    uint32_t services;     /* PN_NODE_...; pn_node_options_init() sets PN_NODE_DEFAULT */
    uint32_t reserved;     /* 0 */
    pn_node_failed failed; /* NULL: one line on standard error */
    void* context;         /* handed to it */
} pn_node_options;

PN_API void pn_node_options_init(pn_node_options* options) PN_NOEXCEPT;

/* Opens the node that `spec` names; SIZE with K, M, G, T or % of the memory the process may use.
 * - memory:SIZE: embedded, compressed bytes in DRAM
 * - dax:/dev/daxX.Y[:OFFSET+SIZE]: a devdax device (CXL memory), or a file on a DAX or memory file system;
 * all of it, or a range at multiples of its alignment. Its contents are lost, and it is wiped when the node
 * is closed
 * - numa:N[:SIZE]: memory of the NUMA node N, which must have no CPU. All of SIZE is taken now, and stays
 * there
 * - auto[:SIZE]: the first dax device that can be had whole, else all that such a NUMA node can give, if that
 * is 64 MiB and SIZE or more, else memory:SIZE; pn_node_notice() says which and why
 * - sim:SIZE[,ratio=R][,physical=SIZE]: for tests, a device that compresses by itself and has less than SIZE
 *
 * `options` may be NULL. The caller owns *out until pn_node_close(). dax: and numa: take SIGBUS (what is not
 * theirs goes to the handler that was there), so that memory that goes bad costs the pages on it, not the
 * process. EINVAL malformed, off alignment, a node with CPUs, services that do not go together · ENOENT
 * ENODEV no such device or node · EACCES EPERM no right to it · EBUSY owned by another · ENOMEM larger than
 * physical memory · ENOSPC the NUMA node or the file system has not that much · EIO the device loses what is
 * written · EMFILE no descriptor above 100 is free. */
PN_API int pn_node_open(const char* spec, const pn_node_options* options, pn_node** out) PN_NOEXCEPT;

/* All or nothing: everything on the node is brought near and the heaps that use it go on without one (they
 * demote nothing any more), or EBUSY and everything is as before: a near limit has no room, direct buffers
 * are in use, a forked child still reads from it, pages kept coming back. The call can be repeated. Other
 * threads may go on using the heaps meanwhile, not the node. What would stay on a device is wiped, unless a
 * forked child may need it. NULL is accepted. */
PN_API int pn_node_close(pn_node* node) PN_NOEXCEPT;

/* What there is on this machine that pn_node_open() takes, as it is now: a device may be somebody's already,
 * and a NUMA node full. It is information: nothing can be placed on a node without its handle.
 *
 * Latency and bandwidth are what the platform states (ACPI HMAT, CXL CDAT), from the nearest processors: of
 * the node, where it is online; of a device whose node is not, where it is of a CXL region (Linux 6.9), and
 * otherwise to root alone, who may read the firmware's tables. */
typedef struct pn_node_info {
    const char* kind;         /* "dax", "numa", "memory" */
    char spec[256];           /* "memory:SIZE" is for the caller to complete */
    uint64_t bytes;           /* in all; for "memory" physical memory */
    uint64_t align_bytes;     /* ranges of it begin and end at multiples of this */
    uint64_t resource;        /* a dax device's physical address; 0 is unknown: it is told to root alone */
    uint64_t read_latency_ns; /* 0 is unknown, as in the three below */
    uint64_t write_latency_ns;
    uint64_t read_bandwidth_mbps; /* MB/s */
    uint64_t write_bandwidth_mbps;
    int32_t numa_node; /* the NUMA node it is, or would be (target_node); -1 none */
    int32_t reserved;  /* 0 */
} pn_node_info;

/* Not 0: stop. `info` is the caller's until it returns. */
typedef int (*pn_node_visit)(const pn_node_info* info, void* context);

/* Devices that the kernel uses as ordinary memory and nodes with CPUs are left out. 0 when all were visited,
 * else what `visit` said · EINVAL no `visit` · ENOMEM. */
PN_API int pn_node_foreach(pn_node_visit visit, void* context) PN_NOEXCEPT;

/* What the node's owner should know: why "auto" chose it, who else may use a NUMA node and how to keep them
 * out. "" when there is nothing. Owned by the node. */
PN_API const char* pn_node_notice(pn_node* node) PN_NOEXCEPT;

enum { PN_PRESSURE_MAX = 1000 };

/* How strongly placement on the node is discouraged, 0 to PN_PRESSURE_MAX: the more, the less of the node is
 * used for what is new; at the maximum nothing is placed from now on, at 0 all of it is used again. What is
 * there stays, and can be read. EINVAL above the maximum · EPERM the node is the parent's (as for all that
 * follow). */
PN_API int pn_node_set_pressure(pn_node* node, uint32_t permille) PN_NOEXCEPT;

/* A device that compresses by itself reports: `promised` was promised, it is `current` now (any unit). The
 * node's effective size is its size times current / promised, at most its size. The latest report holds. When
 * more is held than that, placement stops (PN_GATE_CONVERGING) until enough has come near. EINVAL promised is
 * 0. */
PN_API int pn_node_set_ratio(pn_node* node, uint64_t current, uint64_t promised) PN_NOEXCEPT;

/* An eventfd that becomes readable whenever gate, pressure, ratio or health of the node changed: read 8 bytes
 * to arm it again, then ask pn_node_stats(). The node's: not to be closed, gone with it; non-blocking. */
PN_API int pn_node_events(pn_node* node, int* fd) PN_NOEXCEPT;

enum {
    PN_GATE_PRESSURE = 1,   /* pressure is at its maximum */
    PN_GATE_CONVERGING = 2, /* more is held than the ratio allows */
    PN_GATE_TEARDOWN = 4,   /* it is being closed */
    PN_GATE_FULL = 8        /* its device says that it is nearly full */
};

/* As PN_STATS_LIST. */
#define PN_NODE_STATS_LIST(X)                                                                        \
    X(size_bytes, "bytes", "g: the node's size, or the far limit of the heap that opened it")        \
    X(effective_bytes, "bytes", "g: of it, what the last ratio leaves")                              \
    X(placeable_bytes, "bytes", "g: of that, what pressure leaves")                                  \
    X(used_bytes, "bytes", "g: slabs of blobs and direct buffers, whole")                            \
    X(blobs, "blobs", "g: blobs stored")                                                             \
    X(blob_bytes, "bytes", "g: their bytes")                                                         \
    X(direct_bytes, "bytes", "g: direct buffers on the node, part of used_bytes")                    \
    X(direct_buffers, "buffers", "g: how many they are")                                             \
    X(direct_fallbacks, "buffers", "direct buffers that went to DRAM")                               \
    X(quarantined_bytes, "bytes", "g: of used_bytes, free memory that went bad and is not used")     \
    X(pressure, "permille", "g: as set")                                                             \
    X(gate, "bits", "g: PN_GATE_..., the reasons why nothing is placed; 0 is open")                  \
    X(heaps, "heaps", "g: heaps that use it")                                                        \
    X(placements, "blobs", "blobs placed")                                                           \
    X(refused_gated, "blobs", "blobs and buffers refused because the gate was shut")                 \
    X(refused_full, "blobs", "blobs and buffers refused because there was no room")                  \
    X(refused_service, "blobs", "blobs refused because the node was opened without PN_NODE_DEMOTE")  \
    X(evacuated_pages, "pages", "pages that came near because they had to leave")                    \
    X(bad_ranges, "events", "times its memory was found bad")                                        \
    X(ladder_failures, "events", "times too much was held and nothing could leave")                  \
    X(events, "events", "changes told to pn_node_events()")                                          \
    X(device_questions, "events", "times the device was asked for its capacity")                     \
    X(device_disbelieved, "events", "answers of it that could not be true")                          \
    X(device_used_bytes, "bytes", "g: physical bytes that a device which compresses by itself uses") \
    X(device_bytes, "bytes", "g: of how many")

typedef struct pn_node_stats_t {
    uint32_t struct_bytes; /* set by the caller to sizeof(pn_node_stats_t) */
    uint32_t version;      /* set by the caller to PN_VERSION */
#define PN_NODE_STATS_FIELD(name, unit, sentence) uint64_t name;
    PN_NODE_STATS_LIST(PN_NODE_STATS_FIELD)
#undef PN_NODE_STATS_FIELD
} pn_node_stats_t;

/* A snapshot; bytes and blobs are of one moment. EINVAL when struct_bytes or version are not this header's.
 */
PN_API int pn_node_stats(pn_node* node, pn_node_stats_t* out) PN_NOEXCEPT;

/* Two words that are not the same: the handle *permits*; PN_THISNODE *restricts*. */
enum {
    PN_DIRECT = 1,  /* the bytes live on the node, uncompressed, and are loaded and stored in place */
    PN_THISNODE = 2 /* on this node or not at all: ENOSPC at once, nothing is taken from elsewhere */
};

/* A zero-filled buffer on the node, of `bytes` rounded up to 8, 16, 32 or 64 KiB, or to 512 KiB from there
 * on. `flags`: PN_DIRECT, with PN_THISNODE or without: then a node that is full or gated is no error, the
 * buffer is in DRAM. No heap has to do with it: it is never demoted, needs no userfaultfd, and after fork it
 * is shared with the child, as MAP_SHARED memory is. EINVAL no node, no PN_DIRECT, unknown flags, no bytes ·
 * EPERM the node was opened without PN_NODE_DIRECT · ENOSPC only with PN_THISNODE: the node is full or gated,
 * or has never so much · ENOMEM. */
PN_API int pn_node_alloc(pn_node* node, uint64_t bytes, uint32_t flags, void** out) PN_NOEXCEPT;

/* Scrubs the buffer and frees it, whole. NULL is accepted. EINVAL not what pn_node_alloc() gave. */
PN_API int pn_node_free(pn_node* node, void* address) PN_NOEXCEPT;

/* ---- heaps ---- */

typedef struct pn_heap_options {
    uint32_t struct_bytes;      /* sizeof(pn_heap_options), set by pn_heap_options_init() */
    uint32_t version;           /* PN_VERSION */
    uint64_t address_bytes_max; /* address space of all buffers together; 0: four times physical memory. Costs
                                   nothing until used. */
    uint64_t near_bytes_max;    /* near limit: near pages and limbo. 0: no limit (nothing is demoted but by
                                   pn_demote) */
    uint64_t far_bytes_max;     /* far limit: physical bytes in the node. 0: the node's size */
    uint64_t total_bytes_max;   /* near_bytes and far_bytes together: the near limit is what far leaves of it,
                                   a sixteenth at least and at most near_bytes_max; from 1 MiB. 0: no such
                                   limit. Data that do not fit compressed pass it: nothing is lost or killed */
    uint64_t activation_bytes;  /* no thread, userfaultfd or region before the heap's buffers pass this many
                                   bytes */
    const char* node_spec;      /* used when `node` is NULL; NULL: "memory:SIZE" as large as far_bytes_max or
                                   physical memory.      Copied. */
    pn_node* node;              /* borrowed until the heap or the node is closed */
    const char* codec; /* "lz4" (default), "zstd", "zstd:LEVEL", "deflate", "iaa"; "auto": lz4, and what stays
                          cold is made smaller in the background, for 1 % of one CPU ("auto:PERCENT[:LEVEL]");
                          "zstd:LEVEL,dict", "lz4,dict": the same from and with these; ",16K" or ",64K"
                          behind one of the three: neighbours are then compressed together; "device": pages as
                          they are, for a device that compresses. Copied. */
    uint32_t engine;   /* PN_ENGINE_... */
    uint32_t flags;    /* PN_HEAP_... */
} pn_heap_options;

enum {
    PN_ENGINE_AUTO = 0, /* the best that works here for every access, kernel-mode access included: the thread
                           engine. (`pnode run`, which shields system calls, takes the inline one.) */
    PN_ENGINE_THREAD = 1, /* handler threads; needs a full userfaultfd */
    PN_ENGINE_INLINE = 2  /* resolved in the faulting thread; needs no privilege; system calls on far pages
                             return EFAULT: promote  or pin such buffers before the call */
};

enum {
    PN_HEAP_STRICT = 1, /* allocations that cannot be kept within the near limit fail with ENOMEM */
    PN_HEAP_STRESS = 2, /* demote at every chance: for tests. Also set by PNODE_STRESS=1 in the environment */
    PN_HEAP_VERBOSE = 4, /* one line on standard error when the heap becomes active: what was set up */
    /* Written pages leave many at once: up to half faster again where several threads write. The program's
     * promise: nobody writes to the buffers past its own page tables, which a device does, and the kernel for
     * O_DIRECT, io_uring, aio and another process's process_vm_writev(2), but while the pages are pinned
     * (pn_pin). Such a write to a page that is not may be lost. Without this flag it never is: pages pinned
     * for DMA do not leave. */
    PN_HEAP_PINNED_IO = 8
};

PN_API void pn_heap_options_init(pn_heap_options* options) PN_NOEXCEPT;

/* EINVAL a value out of range · EBUSY ENFILE the node is not to be shared, or has 64 heaps already · EPERM no
 * right to a userfaultfd · ENOSYS a kernel without what is needed · ENOMEM · EBUSY */
PN_API int pn_heap_open(const pn_heap_options* options, pn_heap** out) PN_NOEXCEPT;

/* Every buffer of the heap is gone afterwards. NULL is accepted. EBUSY while pages are pinned or a forked
 * child may still need blobs is never returned: a heap can always be closed; a child keeps what it inherited.
 */
PN_API int pn_heap_close(pn_heap* heap) PN_NOEXCEPT;

/* Changes the near limit at once; demotes down to it before it returns, as far as pins and far space allow.
 * EINVAL below 1 MiB. */
PN_API int pn_heap_set_near_limit(pn_heap* heap, uint64_t near_bytes_max) PN_NOEXCEPT;

/* The same of total_bytes_max; 0 ends that limit. EINVAL below 1 MiB. */
PN_API int pn_heap_set_total_limit(pn_heap* heap, uint64_t total_bytes_max) PN_NOEXCEPT;

/* ---- buffers ---- */

/* A buffer of `bytes` (rounded up to pages), zero-filled, aligned to `alignment` (0 or a power of two; at
 * least a page is given). ENOMEM no address space left, or the near limit with PN_HEAP_STRICT · EINVAL zero
 * bytes or a bad alignment. */
PN_API int pn_buffer_alloc(pn_heap* heap, uint64_t bytes, uint64_t alignment, void** out) PN_NOEXCEPT;

/* `address` and `bytes` name a whole buffer, or whole pages of one (the rest stays). EINVAL not a range of
 * this heap's buffers. EBUSY a page in it is pinned; nothing is freed then. */
PN_API int pn_buffer_free(pn_heap* heap, void* address, uint64_t bytes) PN_NOEXCEPT;

/* Drops the contents of whole pages, near or far; they read as zeros. Never compresses. Pinned pages are
 * dropped too, and stay pinned. */
PN_API int pn_release(pn_heap* heap, void* address, uint64_t bytes) PN_NOEXCEPT;

/* The codec of these pages from their next demotion on, whatever the heap's: "lz4", "zstd", "zstd:LEVEL" or
 * "deflate", by software, and nothing is made smaller later; NULL or "": the heap's again, which is also what
 * freed pages go back to. It belongs to the addresses: pn_relocate moves contents, not codecs. EINVAL another
 * codec · ENOSPC the heap has seven others already (one that was set once stays known) · ENOMEM. */
PN_API int pn_buffer_set_codec(pn_heap* heap, void* address, uint64_t bytes, const char* codec) PN_NOEXCEPT;

/* Demote: as many pages of the range as can be; *pages_done (may be NULL) says how many are far or fresh now.
 * What is pinned stays near, and so do pages that the kernel has locked (mlock) or, from Linux 6.8 on, pinned
 * for DMA, and incompressible ones: that is no error. ENOSPC the node is full or gated. */
PN_API int pn_demote(pn_heap* heap, void* address, uint64_t bytes, uint64_t* pages_done) PN_NOEXCEPT;

/* Promote: brings the far pages of the range near, in one go. EIO a page is poisoned. */
PN_API int pn_promote(pn_heap* heap, void* address, uint64_t bytes) PN_NOEXCEPT;

/* Pin: the pages are near when this returns, and stay so until as many unpins. All or nothing. EAGAIN: a page
 * is pinned 255 times already · EIO a page is poisoned · ENOMEM pinned bytes would pass the near limit ·
 * EPERM the node was opened without PN_NODE_PIN. Unpin: EINVAL a page that is not pinned. */
PN_API int pn_pin(pn_heap* heap, void* address, uint64_t bytes) PN_NOEXCEPT;
PN_API int pn_unpin(pn_heap* heap, void* address, uint64_t bytes) PN_NOEXCEPT;

/* A hint: the page at `address` is wanted soon. If it is far it comes near in the background, when the near
 * limit has room and the limit below allows it; at most 1024 hints wait, more are dropped. Any address is
 * taken. EPERM the node was opened without PN_NODE_PREFETCH. */
PN_API int pn_prefetch(pn_heap* heap, const void* address) PN_NOEXCEPT;

/* How much hints may bring near; faults, pn_promote() and closing a node are not limited. 0 is nothing. At
 * first 256 MiB a second. */
PN_API int pn_heap_set_prefetch_limit(pn_heap* heap, uint64_t bytes_per_second) PN_NOEXCEPT;

enum {
    PN_PAGE_FRESH = 0,
    PN_PAGE_NEAR = 1,
    PN_PAGE_LIMBO = 2,
    PN_PAGE_FAR = 3,
    PN_PAGE_POISONED = 4,
    PN_PAGE_BUSY = 5
};

/* One PN_PAGE_... per page of the range into `states`, as of some moment during the call; a fresh page that
 * was touched before the heap took anything out of its neighbourhood may be told as fresh. Never faults. */
PN_API int pn_query(pn_heap* heap, const void* address, uint64_t bytes, uint8_t* states) PN_NOEXCEPT;

/* ---- buffers as mappings: what mmap(2) and its family do to addresses, for those who stand in for them ----
 *
 * Protections are PROT_ bits of mman.h: PROT_NONE, or PROT_READ, PROT_WRITE, PROT_EXEC together. A page that
 * is not both readable and writable stays near where the kernel moves pages; one that is readable can leave.
 */

/* The heap's address space: fixed from open to close. Nothing else of the process is ever mapped in it but
 * what pages were handed out for. */
PN_API int pn_heap_range(pn_heap* heap, void** address, uint64_t* bytes) PN_NOEXCEPT;

enum {
    PN_RESERVED = 1 /* inaccessible, and not charged as near before pn_protect() makes it accessible */
};

/* As pn_buffer_alloc(), reserved. ENOMEM no address space left · EINVAL. */
PN_API int pn_buffer_reserve(pn_heap* heap, uint64_t bytes, uint64_t alignment, void** out) PN_NOEXCEPT;

/* A buffer at these very pages of the heap's range. `flags`: 0 or PN_RESERVED. EEXIST not all of them are
 * free · EINVAL not in the range, or not a page's address · ENOMEM as pn_buffer_alloc(). */
PN_API int pn_buffer_alloc_at(pn_heap* heap, void* address, uint64_t bytes, uint32_t flags) PN_NOEXCEPT;

/* Contents are kept. A freed page keeps its protection until it is allocated again. EINVAL other bits ·
 * ENOMEM vm.max_map_count, or the near limit with PN_HEAP_STRICT where reserved pages become accessible. */
PN_API int pn_protect(pn_heap* heap, void* address, uint64_t bytes, int protection) PN_NOEXCEPT;

/* Moves contents from one range of buffers to another; neither may overlap the other, and both must be
 * readable and writable. What `to` held is dropped; `from` reads as zeros afterwards. Far pages stay far.
 * Other threads may access both: they see pages before or after. A pin of `from` that another thread makes
 * meanwhile may go along, one of `to` may be lost with what was there. EBUSY a page is pinned · ENOMEM
 * vm.max_map_count; some pages may have moved. */
PN_API int pn_relocate(pn_heap* heap, void* from, void* to, uint64_t bytes) PN_NOEXCEPT;

/* Hands pages of buffers out: their contents are dropped, and the heap touches these addresses no more. The
 * caller maps there what it likes (MAP_FIXED), or nothing. Until they are taken back every other call here
 * says EINVAL for them. EBUSY a page is pinned · ENOMEM vm.max_map_count; pages may be handed out by then. */
PN_API int pn_hand_out(pn_heap* heap, void* address, uint64_t bytes) PN_NOEXCEPT;

/* The same, with their contents, as ordinary memory of the kernel's: what was written is there, near, what
 * was never touched is absent. So they may be given to another userfaultfd, or to whoever wants to have pages
 * alone. Other threads may access them meanwhile. They do not count as near any more. EIO a page is poisoned
 * too, and pages before it may be handed out. */
PN_API int pn_hand_out_contents(pn_heap* heap, void* address, uint64_t bytes) PN_NOEXCEPT;

/* Takes handed-out pages back: whatever is mapped there goes, and they are reserved pages of a buffer again.
 * EINVAL a page that is not handed out · ENOMEM: those that are not reserved now stay handed out. */
PN_API int pn_take_back(pn_heap* heap, void* address, uint64_t bytes) PN_NOEXCEPT;

enum {
    PN_EXTENT_FREE = 0,      /* in no buffer */
    PN_EXTENT_BUFFER = 1,    /* in a buffer */
    PN_EXTENT_HANDED_OUT = 2 /* in a buffer, and handed out */
};

typedef struct pn_extent_t {
    uint64_t bytes; /* of the longest range from `address` on, within the range asked about, of one kind */
    uint32_t kind;  /* PN_EXTENT_... */
    int32_t protection; /* of a buffer */
} pn_extent_t;

/* What there is at `address`. EINVAL not whole pages of the heap's range. */
PN_API int pn_extent(pn_heap* heap, const void* address, uint64_t bytes, pn_extent_t* out) PN_NOEXCEPT;

/* ---- statistics ---- */

/* One list feeds the struct, the JSON and the documents: name, unit, sentence. Monotonic counters and gauges
 * (g). */
#define PN_STATS_LIST(X)                                                                                    \
    X(heap_bytes, "bytes", "g: bytes of all buffers")                                                       \
    X(near_bytes, "bytes",                                                                                  \
      "g: near and limbo pages, and fresh pages that may be touched unseen (an upper bound)")               \
    X(near_bytes_peak, "bytes", "highest near_bytes since the heap was opened")                             \
    X(near_bytes_max, "bytes", "g: the near limit, with total_bytes_max what that leaves now; 0 is none")   \
    X(limbo_bytes, "bytes", "g: pages taken out and still uncompressed, part of near_bytes")                \
    X(pinned_bytes, "bytes", "g: pinned pages, part of near_bytes")                                         \
    X(far_logical_bytes, "bytes", "g: uncompressed bytes of the far pages")                                 \
    X(far_bytes, "bytes", "g: physical bytes in the node: blobs, headers, slack, kept blobs; dictionaries") \
    X(far_bytes_max, "bytes", "g: the far limit")                                                           \
    X(total_bytes_max, "bytes", "g: the limit of near_bytes and far_bytes together; 0 is none")             \
    X(kept_blob_bytes, "bytes", "g: blobs of near pages, kept to drop the page when it is unchanged")       \
    X(metadata_bytes, "bytes", "g: page words and tables that are resident at most")                        \
    X(demotions, "pages", "pages that became far")                                                          \
    X(demotions_unchanged, "pages", "of these, dropped because their kept blob still told the truth")       \
    X(demotions_zero, "pages", "pages found all zero and made fresh")                                       \
    X(promotions, "pages", "far pages brought near")                                                        \
    X(promotions_ahead, "pages", "of these, with a neighbour that was wanted, before anybody asked")        \
    X(limbo_returns, "pages", "pages that came back from limbo")                                            \
    X(released_pages, "pages", "pages dropped because the application gave them back")                      \
    X(incompressible, "pages", "pages that did not save enough and stayed near")                            \
    X(refused_pinned, "pages", "pages the kernel or a pin would not let go")                                \
    X(far_full, "events", "blobs not placed because the node was full or gated")                            \
    X(faults, "events", "faults served")                                                                    \
    X(faults_fresh, "events", "of these, first touches of fresh pages")                                     \
    X(faults_redundant, "events", "of these, found already served")                                         \
    X(fault_p50_ns, "ns", "g: median time from a fault's message to its answer")                            \
    X(fault_p99_ns, "ns", "g: the same, 99th percentile")                                                   \
    X(poisoned, "pages", "pages lost and reported")                                                         \
    X(evictions_direct, "events", "batches taken out by a thread that needed room itself")                  \
    X(evictions_in_place, "pages",                                                                          \
      "pages that could not be moved out: read-only, or a kernel without UFFDIO_MOVE")                      \
    X(leases, "events", "g: forked children that may still read blobs of this process")                     \
    X(fork_events, "events", "forks seen")                                                                  \
    X(prefetches, "pages", "pages that pn_prefetch() brought near")                                         \
    X(prefetches_dropped, "events", "hints of pn_prefetch() that there was no room for")                    \
    X(recompressed, "pages", "far pages whose blob was made smaller in the background")                     \
    X(recompression_cpu_ns, "ns", "CPU that this took, training included")                                  \
    X(dictionaries, "dictionaries", "g: versions that blobs need, or that blobs are made with")             \
    X(dictionary_bytes, "bytes", "g: their memory, part of far_bytes")                                      \
    X(dictionaries_trained, "events", "versions made")                                                      \
    X(accelerator_queues, "queues", "g: work queues of an accelerator in use")                              \
    X(accelerator_pages, "pages", "pages compressed or decoded by an accelerator")                          \
    X(accelerator_fallbacks, "events", "operations meant for an accelerator and done in software")          \
    X(blobs_moved, "blobs", "moved to fuller slabs, so that emptier ones could be given back")              \
    X(packing_cpu_ns, "ns", "CPU that this took where no codec recompresses")                               \
    X(blocks_16k, "blocks", "g: of 16 KiB, of which at least one page is still far")                        \
    X(blocks_64k, "blocks", "g: the same of 64 KiB")

typedef struct pn_stats_t {
    uint32_t struct_bytes; /* set by the caller to sizeof(pn_stats_t) */
    uint32_t version;      /* set by the caller to PN_VERSION */
#define PN_STATS_FIELD(name, unit, sentence) uint64_t name;
    PN_STATS_LIST(PN_STATS_FIELD)
#undef PN_STATS_FIELD
} pn_stats_t;

/* A snapshot. EINVAL when struct_bytes or version are not this header's. */
PN_API int pn_stats(pn_heap* heap, pn_stats_t* out) PN_NOEXCEPT;

/* The same as one JSON object, NUL-terminated, with "engine" ("thread", "inline" or "none") and "eviction"
 * ("move" or "write-protect"), and, with an accelerator, its fallbacks by cause. ENOSPC when `capacity` is
 * too small (4096 suffices). */
PN_API int pn_stats_json(pn_heap* heap, char* text, size_t capacity) PN_NOEXCEPT;

/* Writes that JSON to `path` (below 1024 bytes; by rename, so that a reader sees one whole snapshot): now
 * when every_ms is 0, else that often for as long as the heap is active. An errno of open(2), write(2) or
 * rename(2). */
PN_API int pn_stats_file(pn_heap* heap, const char* path, uint32_t every_ms) PN_NOEXCEPT;

/* Checks every structure of an idle heap; NULL when sound, else what is wrong (static text). For tests. */
PN_API const char* pn_heap_validate(pn_heap* heap) PN_NOEXCEPT;

/* ---- what there is on this machine ---- */

/* JSON: kernel, the userfaultfd rung that works and its features, codecs, nodes, limits, and for whatever is
 * missing the command that cures it. ENOSPC when `capacity` is too small (16384 suffices). */
PN_API int pn_probe_json(char* text, size_t capacity) PN_NOEXCEPT;

/* ---- errors ---- */

PN_API const char* pn_strerror(int error) PN_NOEXCEPT;
/* Owned by the library, valid until the thread's next failed call; "" when there is none. */
PN_API const char* pn_last_message(void) PN_NOEXCEPT;

#ifdef __cplusplus
}
#endif
#endif
