/* rlhf-hpc: options, ranks, settings, then the task. The only place that turns an error into an exit code. */
#include "bench.h"
#include "comm.h"
#include "error.h"
#include "file.h"
#include "log.h"
#include "options.h"
#include "report.h"
#include "scaling.h"
#include "settings.h"
#include "task.h"
#include "text.h"
#include "version.h"

#include <stdio.h>

/* What needs neither ranks nor an input.cfg. */
static int answer(const struct options *o)
{
    if (o->n_report) {
        log_init(true);
        return o->n_report == 1 ? report_write(o->report[0]) : scaling_write(o->report, o->n_report);
    }
    struct text said = {0};
    if (o->help)
        options_help(&said);
    else
        version_describe(&said);
    fputs(text_string(&said), stdout);
    text_free(&said);
    return 0;
}

/* Rank 0 reads input.cfg; all get the same text. */
static int read_input(struct comm *comm, struct text *input, const char *path)
{
    int rc = comm_rank(comm) == 0 ? file_read(input, path) : 0;
    TRY(comm_agree(comm, rc));
    comm_broadcast_text(comm, input);
    return 0;
}

static int run_task(const struct settings *s, struct comm *comm, const struct options *o)
{
    if (o->bench)
        return bench_run(s, comm, o->plan);
    const struct task *task = task_find(s->task);
    return task ? task->run(s, comm, o) : -1;
}

static int run_input(struct comm *comm, const struct options *o)
{
    struct text input = {0};
    struct settings settings = {0};
    int rc = read_input(comm, &input, o->input);
    if (!rc)
        rc = comm_agree(comm, settings_load(&settings, o->input, text_string(&input), input.n, o->set, o->n_set));
    if (!rc)
        rc = run_task(&settings, comm, o);
    settings_free(&settings);
    text_free(&input);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o;
    struct comm *comm = NULL;
    int rc = options_parse(&o, argc, argv);
    if (!rc && (o.help || o.version || o.n_report)) {
        rc = answer(&o);
    } else if (comm_open(&comm, &argc, &argv) != 0) {
        rc = -1;
    } else {
        log_init(comm_rank(comm) == 0);
        rc = comm_agree(comm, rc); /* a bad command line is bad on all ranks: now they say so once */
        if (!rc)
            rc = run_input(comm, &o);
    }
    if (rc && (!comm || comm_rank(comm) == 0))
        fprintf(stderr, "rlhf-hpc: %s\n", error_message());
    options_free(&o);
    comm_close(comm);
    return rc ? error_exit_code() : 0;
}
