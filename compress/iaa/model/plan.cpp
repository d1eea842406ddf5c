#include "compress/iaa/model/plan.h"

#include <sstream>

namespace pnode::compress::iaa::model {

std::string Plan::text() const {
    std::ostringstream out;
    out << seed_ << ' ' << spared_ << ' ' << per_mille_;
    for (const Fault& fault : faults_)
        out << ' ' << static_cast<int>(fault.misdeed) << ' ' << static_cast<int>(fault.status) << ' '
            << static_cast<int>(fault.error_code) << ' ' << fault.number;
    return out.str();
}

Plan Plan::parse(const std::string& text) {
    std::istringstream in(text);
    std::uint64_t seed = 0, spared = 0;
    unsigned per_mille = 0;
    in >> seed >> spared >> per_mille;
    std::vector<Fault> faults;
    for (int misdeed = 0, status = 0, error_code = 0, number = 0;
         in >> misdeed >> status >> error_code >> number;)
        faults.push_back({static_cast<Misdeed>(misdeed), static_cast<std::uint8_t>(status),
                          static_cast<std::uint8_t>(error_code), static_cast<std::int16_t>(number)});
    return {seed, spared, per_mille, std::move(faults)};
}

}  // namespace pnode::compress::iaa::model
