// pnode-bench-codec, which is `pnode bench codec`: which codec this machine should use for some data.
// docs/performance.md says how it measures.
#include "bench/codec/options.h"
#include "bench/codec/report.h"
#include "bench/codec/suite.h"
#include "bench/common/interrupt.h"

int main(int count, char** arguments) {
    using namespace pnode::bench;
    CodecOptions options;
    int exit_code = 0;
    if (!parse_codec_options(count, arguments, &options, &exit_code)) return exit_code;
    return run_driver("pnode-bench-codec", [&] { run_codec_suite(options, CodecReport(options)); });
}
