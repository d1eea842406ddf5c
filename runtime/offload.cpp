#include "runtime/offload.h"

#include <cstring>

#include "runtime/os/descriptors.h"

namespace pnode {
namespace {

// A device that answers in microseconds has failed after 2 ms; the model is a thread, and waits for a
// processor.
constexpr std::uint64_t device_wait_ns = 2'000'000;
constexpr std::uint64_t model_wait_ns = 1'000'000'000;

}  // namespace

void Offload::open(const compress::CodecChoice& choice, std::span<std::byte> scratch, std::string* why) {
    if (choice.offload == compress::Offload::none) return;
    const bool is_model = choice.offload == compress::Offload::iaa_model;
    if (const int error = accelerator_.open(
            {.wait_ns_max = is_model ? model_wait_ns : device_wait_ns, .verify_pct = choice.verify_pct},
            scratch)) {
        *why = std::string("no staging memory: ") + std::strerror(error);
        return;
    }
    if (is_model)
        add_model(scratch, why);
    else
        accelerator_.add_devices("", scratch, why);
    for (const auto& queue : accelerator_.queues()) os::adopt_descriptor(queue.descriptor());
    is_open_.store(true, std::memory_order_release);
}

void Offload::add_model(std::span<std::byte> scratch, std::string* why) {
    using compress::iaa::model::Portal;
    model_ = std::make_unique<Portal>(compress::iaa::model::Plan());
    int error = model_->open();
    if (error == 0) error = model_engine_.start(&Portal::main, model_.get());
    if (error != 0) {
        *why = std::string("the model cannot be started: ") + std::strerror(error);
        return;
    }
    compress::iaa::WorkQueue* const queue = accelerator_.new_queue();
    queue->open_model_portal(model_->address(), Portal::places);
    accelerator_.add(queue, scratch, why);
}

// The model finishes what it has before the memory goes away that it writes to.
void Offload::close() noexcept {
    if (model_ != nullptr) model_->stop();
    model_engine_.join();
    for (const auto& queue : accelerator_.queues()) os::disown_descriptor(queue.descriptor());
    accelerator_.close();
    model_.reset();
    is_open_.store(false);
}

void Offload::forget() noexcept {
    for (const auto& queue : accelerator_.queues()) os::close_descriptor(queue.descriptor());
    accelerator_.forget();
    model_engine_.forget();
    if (model_ != nullptr) model_->forget();
    model_.reset();
    is_open_.store(false);
}

}  // namespace pnode
