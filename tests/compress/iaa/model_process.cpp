// The model as a process of its own: model_process DESCRIPTOR PLAN serves the socket for the process that
// started it.
#include <unistd.h>

#include <cstdlib>

#include "compress/iaa/model/transports.h"

int main(int argc, char** argv) {
    using namespace pnode::compress::iaa::model;
    if (argc != 3) return 2;
    serve_socket(std::atoi(argv[1]), ::getppid(), Plan::parse(argv[2]));
    return 0;
}
