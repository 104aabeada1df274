/* rlhf-hpc: options, ranks, settings, then the task. The only place that turns an error into an exit code. */
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

#include <stdio.h>

static void print_version(void)
{
    printf("rlhf-hpc %s (%s)\ncompiler %s, CUDA toolkit at build: %s, NCCL: %s\n", PACKAGE_VERSION, GIT_REVISION, __VERSION__,
           BUILD_CUDA, BUILD_NCCL);
}

/* Rank 0 reads input.cfg; all get the same text. */
static int read_input(struct comm *comm, struct text *input, const char *path)
{
    int rc = comm_rank(comm) == 0 ? file_read(input, path) : 0;
    TRY(comm_agree(comm, rc));
    comm_broadcast_text(comm, input);
    return 0;
}

static int run_input(struct comm *comm, const struct options *o)
{
    struct text input = {0};
    struct settings settings;
    int rc = read_input(comm, &input, o->input);
    if (!rc) {
        rc = comm_agree(comm, settings_load(&settings, o->input, text_string(&input), input.n, o->set, o->n_set));
        const struct task *task = rc ? NULL : task_find(settings.task);
        rc = task ? task->run(&settings, comm, o) : -1;
        settings_free(&settings);
    }
    text_free(&input);
    return rc;
}

static int run(int argc, char **argv)
{
    struct options o;
    struct comm *comm = NULL;
    int rc = options_parse(&o, argc, argv);
    if (!rc && o.help) {
        struct text help = {0};
        options_help(&help);
        fputs(text_string(&help), stdout);
        text_free(&help);
    } else if (!rc && o.version) {
        print_version();
    } else if (!rc && o.n_report) {
        log_init(true);
        rc = o.n_report == 1 ? report_write(o.report[0]) : scaling_write(o.report, o.n_report);
    } else if (!rc && o.bench) {
        rc = error_set(ERR_INPUT, "--bench is not built yet");
    } else {
        /* a bad command line is bad on all ranks: the agreement makes them say so once */
        if (comm_open(&comm, &argc, &argv) == 0) {
            log_init(comm_rank(comm) == 0);
            rc = comm_agree(comm, rc);
            if (!rc)
                rc = run_input(comm, &o);
        } else {
            rc = -1;
        }
        if (rc && (!comm || comm_rank(comm) == 0))
            fprintf(stderr, "rlhf-hpc: %s\n", error_message());
        options_free(&o);
        comm_close(comm);
        return rc ? error_exit_code() : 0;
    }
    if (rc)
        fprintf(stderr, "rlhf-hpc: %s\n", error_message());
    options_free(&o);
    return rc ? error_exit_code() : 0;
}

int main(int argc, char **argv)
{
    return run(argc, argv);
}
