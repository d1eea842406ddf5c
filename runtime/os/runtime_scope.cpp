#include "runtime/os/runtime_scope.h"

namespace pnode::os {
thread_local int inside_runtime __attribute__((tls_model("initial-exec"))) = 0;
}
