#include "bench/churn/subject.h"

#include <stdexcept>

#include "bench/churn/floor_subject.h"
#include "bench/common/anonymous_memory.h"
#include "pnode/pnode.h"

namespace pnode::bench {
namespace {

void must(int error, const char* what) {
    if (error == 0) return;
    const std::string cure = pn_last_message();
    throw std::runtime_error(std::string(what) + ": " + pn_strerror(error) +
                             (cure.empty() ? "" : " (" + cure + ")"));
}

class HeapSubject final : public Subject {
  public:
    HeapSubject(const std::string& name, std::size_t bytes) {
        pn_heap_options options;
        pn_heap_options_init(&options);
        options.near_bytes_max = 0;
        options.far_bytes_max = name.ends_with('+') ? bytes : 0;
        options.flags = name.ends_with('*') ? PN_HEAP_PINNED_IO : 0;
        options.activation_bytes = 0;
        options.codec = "lz4";
        options.engine = name.starts_with("thread") ? PN_ENGINE_THREAD : PN_ENGINE_INLINE;
        must(pn_heap_open(&options, &heap_), "pn_heap_open");
        void* buffer = nullptr;
        const int error = pn_buffer_alloc(heap_, bytes, 0, &buffer);
        if (error != 0) pn_heap_close(heap_);
        must(error, "pn_buffer_alloc");
        buffer_ = static_cast<std::byte*>(buffer);
    }
    ~HeapSubject() override { pn_heap_close(heap_); }
    HeapSubject(const HeapSubject&) = delete;
    HeapSubject& operator=(const HeapSubject&) = delete;

    std::byte* memory() const override { return buffer_; }
    void set_limits(const Limits& limits) override {
        must(pn_heap_set_near_limit(heap_, limits.near_bytes), "pn_heap_set_near_limit");
        must(pn_heap_set_total_limit(heap_, limits.total_bytes), "pn_heap_set_total_limit");
    }
    Usage usage() const override {
        pn_stats_t statistics = {};
        statistics.struct_bytes = sizeof statistics;
        statistics.version = PN_VERSION;
        must(pn_stats(heap_, &statistics), "pn_stats");
        return {statistics.near_bytes, statistics.far_bytes};
    }

  private:
    pn_heap* heap_ = nullptr;
    std::byte* buffer_ = nullptr;
};

class KernelSubject final : public Subject {
  public:
    explicit KernelSubject(std::size_t bytes) : memory_(bytes) {}
    std::byte* memory() const override { return memory_.data(); }
    void set_limits(const Limits&) override {}
    Usage usage() const override { return {}; }

  private:
    AnonymousMemory memory_;
};

}  // namespace

std::unique_ptr<Subject> make_subject(const std::string& engine, std::size_t bytes) {
    if (engine == "zram") return std::make_unique<KernelSubject>(bytes);
    if (engine == floor_of_reads)
        return std::make_unique<FloorSubject>(bytes, FloorSubject::Pages::only_read, "-");
    if (engine == floor_with_codec)
        return std::make_unique<FloorSubject>(bytes, FloorSubject::Pages::only_read, "lz4");
    if (engine == floor_of_writes)
        return std::make_unique<FloorSubject>(bytes, FloorSubject::Pages::written_to, "-");
    return std::make_unique<HeapSubject>(engine, bytes);
}

}  // namespace pnode::bench
