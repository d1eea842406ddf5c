// pnode-bench-redis: a real Redis with more data than its near limit, side by side with a plain one and with
// kernel zram. docs/performance.md says how it measures.

#include "bench/common/interrupt.h"
#include "bench/redis/options.h"
#include "bench/redis/report.h"
#include "bench/redis/suite.h"

int main(int count, char** arguments) {
    using namespace pnode::bench;
    RedisOptions options;
    int exit_code = 0;
    if (!parse_redis_options(count, arguments, &options, &exit_code)) return exit_code;
    return run_driver("pnode-bench-redis", [&] {
        const RedisReport report = run_redis_suite(options);
        if (options.json)
            report.print_json(options);
        else
            report.print_tables();
    });
}
