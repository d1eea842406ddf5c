// pnode-bench-churn: what it costs to work with more pages than may stay near, side by side with kernel zram
// in a memory control group. docs/performance.md says how it measures.

#include "bench/churn/options.h"
#include "bench/churn/report.h"
#include "bench/churn/suite.h"
#include "bench/common/interrupt.h"

int main(int count, char** arguments) {
    using namespace pnode::bench;
    ChurnOptions options;
    int exit_code = 0;
    if (!parse_churn_options(count, arguments, &options, &exit_code)) return exit_code;
    return run_driver("pnode-bench-churn", [&] {
        ChurnReport report;
        run_churn_suite(options, report);
        if (options.json)
            report.print_json(options);
        else
            report.print_table();
    });
}
