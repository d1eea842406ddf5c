#include "bench/redis/dataset.h"

#include <limits>
#include <random>
#include <stdexcept>

namespace pnode::bench {

Dataset::Dataset(Catalogue catalogue, std::uint64_t repeat, std::uint64_t bytes)
    : catalogue_(std::move(catalogue)) {
    const std::uint64_t records = catalogue_.records.size();
    const std::uint64_t keys_max = std::numeric_limits<std::uint32_t>::max();
    for (std::uint64_t i = 0; repeat ? i < repeat * records : value_bytes_ < bytes; ++i) {
        if (i == keys_max) throw std::runtime_error("the dataset would have more than 4294967295 keys");
        value_bytes_ += catalogue_.records[i % records].text.size();
        size_ = static_cast<std::uint32_t>(i + 1);
    }
}

std::string Dataset::key(std::uint32_t number) const {
    const std::size_t records = catalogue_.records.size();
    const std::string& name = catalogue_.records[number % records].name;
    return number < records ? name : name + "#" + std::to_string(number / records);
}

std::string_view Dataset::value(std::uint32_t number) const {
    return catalogue_.records[number % catalogue_.records.size()].text;
}

const char* name_of(Workload workload) {
    switch (workload) {
        case Workload::get_uniform:
            return "get-uniform";
        case Workload::get_zipf:
            return "get-zipf-0.99";
        case Workload::get_set_uniform:
            return "get-set-50-50";
    }
    return "";
}

RequestSource::RequestSource(std::uint32_t keys) : keys_(keys), popular_(keys) {}

std::vector<Request> RequestSource::make(Workload workload, std::uint64_t requests,
                                         std::uint64_t seed) const {
    std::mt19937_64 random(seed);
    std::uniform_int_distribution<std::uint32_t> uniform(0, keys_ - 1);
    std::vector<Request> sequence(requests);
    for (Request& request : sequence) {
        request.key = workload == Workload::get_zipf ? popular_.pick(random) : uniform(random);
        request.is_set = workload == Workload::get_set_uniform && (random() & 1);
    }
    return sequence;
}

std::vector<Request> RequestSource::load() const {
    std::vector<Request> sequence(keys_);
    for (std::uint32_t key = 0; key < keys_; ++key) sequence[key] = {key, true};
    return sequence;
}

}  // namespace pnode::bench
