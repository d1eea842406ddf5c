// Starts the variants, asks them the same requests in turns, and checks what they hold.
#pragma once

#include "bench/redis/options.h"
#include "bench/redis/report.h"

namespace pnode::bench {

// Throws std::runtime_error when a value differs or the plain server cannot run, Interrupted on a signal. A
// variant that cannot run here is left out with a note.
RedisReport run_redis_suite(const RedisOptions& options);

}  // namespace pnode::bench
