/* The best adapter, written under a temporary name first. */
#include "best.h"

#include "error.h"
#include "file.h"
#include "log.h"
#include "lora.h"

#include <math.h>
#include <stdlib.h>

static int write_folder(const struct model *m, const struct peft_config *config, const char *output_dir)
{
    char *path = file_join(output_dir, "adapter-best"), *temporary = file_join(output_dir, ".tmp-adapter-best"),
         *old = file_join(output_dir, ".old-adapter-best");
    int rc = file_remove_tree(temporary);
    if (!rc)
        rc = lora_write(m, config, temporary);
    if (!rc)
        rc = file_publish(output_dir, temporary, path, old);
    free(old);
    free(temporary);
    free(path);
    return rc;
}

int best_consider(struct best *b, double score, int64_t step, struct comm *comm, const struct model *m,
                  const struct peft_config *config, const char *output_dir)
{
    if (!isfinite(score) || (b->found && score <= b->score))
        return 0;
    *b = (struct best){true, score, step};
    TRY(comm_agree(comm, comm_rank(comm) == 0 ? write_folder(m, config, output_dir) : 0));
    log_line("the best adapter so far: %s/adapter-best", output_dir);
    return 0;
}
