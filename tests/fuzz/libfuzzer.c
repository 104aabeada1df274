/* The targets under clang's libFuzzer: FUZZ_TARGET=config ./libfuzzer CORPUS. Built by `make fuzzers` where CC is clang. */
#include "targets.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "error.h"
#include "log.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static const struct fuzz_target *target;
static char folder[] = "/tmp/rlhf-hpc-fuzz.XXXXXX";

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    const char *name = getenv("FUZZ_TARGET");
    log_init(false);
    target = name ? fuzz_target_find(name) : NULL;
    CHECK(target, "FUZZ_TARGET is none of the targets");
    CHECK(mkdtemp(folder), "cannot make a folder in /tmp");
    fuzz_target_prepare(target, folder);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    fuzz_target_run(target, folder, n ? (const char *)bytes : "", n);
    return 0;
}
