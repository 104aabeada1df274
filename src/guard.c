/* What no update is made from. */
#include "guard.h"

#include "error.h"
#include "log.h"

#include <math.h>
#include <stdio.h>

static int refuse(enum on_nan on_nan, int64_t step, const char *what)
{
    if (on_nan == ON_NAN_SKIP) {
        log_line("step %lld: update skipped: %s", (long long)step, what);
        return 1;
    }
    return error_set(ERR_RUN, "step %lld: %s; the last checkpoint is intact (run.on_nan = \"skip\" would skip the update)",
                     (long long)step, what);
}

int guard_update(const struct gradient *g, double loss, enum on_nan on_nan, int64_t step)
{
    char what[256];
    if (!isfinite(loss))
        return refuse(on_nan, step, "the loss is not finite");
    const char *tensor = gradient_overflow(g);
    if (!tensor)
        return 0;
    snprintf(what, sizeof what, "the gradient of %s is not finite or too large", tensor);
    return refuse(on_nan, step, what);
}
