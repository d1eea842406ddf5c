// pnode-bench-redis: a real Redis with more data than its near limit, side by side with a plain one and with
// kernel zram. docs/performance.md says how it measures.
#include <cstdio>
#include <exception>

#include "bench/common/interrupt.h"
#include "bench/redis/options.h"
#include "bench/redis/report.h"
#include "bench/redis/suite.h"

int main(int count, char** arguments) {
    using namespace pnode::bench;
    RedisOptions options;
    int exit_code = 0;
    if (!parse_redis_options(count, arguments, &options, &exit_code)) return exit_code;
    catch_interrupts();
    try {
        const RedisReport report = run_redis_suite(options);
        if (options.json)
            report.print_json(options);
        else
            report.print_tables();
        return 0;
    } catch (const Interrupted& interrupt) {
        fprintf(stderr, "pnode-bench-redis: %s\n", interrupt.what());
        return 128 + interrupt.signal_number;
    } catch (const std::exception& error) {
        fprintf(stderr, "pnode-bench-redis: %s\n", error.what());
        return 1;
    }
}
