// pnode-bench-fault: what one fault costs, and what sending a page away costs, side by side with the kernel.
// docs/performance.md says how it measures.

#include "bench/common/interrupt.h"
#include "bench/fault/options.h"
#include "bench/fault/report.h"
#include "bench/fault/suite.h"

int main(int count, char** arguments) {
    using namespace pnode::bench;
    FaultOptions options;
    int exit_code = 0;
    if (!parse_fault_options(count, arguments, &options, &exit_code)) return exit_code;
    return run_driver("pnode-bench-fault", [&] {
        FaultReport report;
        run_fault_suite(options, report);
        if (options.json)
            report.print_json(options);
        else
            report.print_table();
    });
}
