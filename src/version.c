/* The version, from the parts that know. */
#include "version.h"

#include "backend.h"
#include "checkpoint.h"
#include "comm.h"

#ifdef __clang__
#define COMPILER __VERSION__
#else
#define COMPILER "gcc " __VERSION__
#endif

void version_describe(struct text *out)
{
    text_format(out, "rlhf-hpc %s (%s)\n", PACKAGE_VERSION, GIT_REVISION);
    text_format(out, "compiler  %s\n", COMPILER);
    text_add_string(out, "MPI       ");
    comm_describe_library(out);
    text_add_string(out, "\nHDF5      ");
    checkpoint_describe_library(out);
    text_format(out, "\nCUDA      %s\nNCCL      %s\nCPU       ", BUILD_CUDA, BUILD_NCCL);
    cpu_describe(out);
    text_add_string(out, "\n");
}
