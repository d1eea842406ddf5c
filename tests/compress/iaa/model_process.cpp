// The model as a process of its own: model_process SOCKET READY PLAN closes the descriptor READY, which says
// that it has begun, and serves the socket for the process that started it.
#include <unistd.h>

#include <cstdlib>

#include "compress/iaa/model/transports.h"

int main(int argc, char** argv) {
    using namespace pnode::compress::iaa::model;
    if (argc != 4) return 2;
    const Plan plan = Plan::parse(argv[3]);
    ::close(std::atoi(argv[2]));
    serve_socket(std::atoi(argv[1]), ::getppid(), plan);
    return 0;
}
