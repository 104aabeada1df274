/* The command line, through getopt_long. */
#include "options.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "nearest.h"
#include "settings.h"

enum { OPT_REPORT = 256, OPT_BENCH };

static const struct option long_options[] = {
    {"set", required_argument, NULL, 's'},   {"plan", no_argument, NULL, 'p'},
    {"resume", no_argument, NULL, 'r'},      {"report", no_argument, NULL, OPT_REPORT},
    {"bench", no_argument, NULL, OPT_BENCH}, {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},     {NULL, 0, NULL, 0},
};

static int unknown_option(const char *argument, int letter)
{
    if (strncmp(argument, "--", 2) != 0)
        return error_set(ERR_INPUT, "unknown option -%c (see --help)", letter);
    char name[64] = "";
    size_t n = strcspn(argument + 2, "=");
    strncat(name, argument + 2, n < sizeof name ? n : sizeof name - 1);
    int best = -1, best_distance = 1000, starts = 0;
    for (int i = 0; long_options[i].name; i++) {
        int d = nearest_distance(name, long_options[i].name);
        starts += strncmp(name, long_options[i].name, n) == 0;
        if (strcmp(name, long_options[i].name) == 0)
            return error_set(ERR_INPUT, "option --%s takes no value", name);
        if (d < best_distance) {
            best_distance = d;
            best = i;
        }
    }
    if (starts > 1)
        return error_set(ERR_INPUT, "option --%s is ambiguous (see --help)", name);
    if (nearest_is_near(best_distance, (int)strlen(name)))
        return error_set(ERR_INPUT, "unknown option --%s; did you mean --%s?", name,
                         long_options[best].name);
    return error_set(ERR_INPUT, "unknown option --%s (see --help)", name);
}

static int take_set(struct options *o, const char *value)
{
    const char *equals = strchr(value, '=');
    if (!equals || equals == value)
        return error_set(ERR_INPUT, "--set %s: must be KEY=VALUE, as in --set ppo.batch_size=64",
                         value);
    o->set[o->n_set++] = value;
    return 0;
}

static int take_positionals(struct options *o, int n, char **argument, bool report)
{
    if (o->help || o->version)
        return 0;
    if (report) {
        if (o->plan || o->resume || o->bench || o->n_set)
            return error_set(ERR_INPUT,
                             "--report reads finished runs: it goes with no other option");
        if (n == 0)
            return error_set(ERR_INPUT, "--report needs the folder of a run, or of several");
        for (int i = 0; i < n; i++)
            o->report[o->n_report++] = argument[i];
        return 0;
    }
    if (o->resume && o->bench)
        return error_set(ERR_INPUT, "--resume and --bench exclude each other");
    if (n == 0)
        return error_set(ERR_INPUT, "no input.cfg given (see --help)");
    if (n > 1)
        return error_set(ERR_INPUT, "one input.cfg at a time: \"%s\" and \"%s\" were given%s",
                         argument[0], argument[1],
                         strchr(argument[1], '=') ? " (settings go behind --set)" : "");
    o->input = argument[0];
    return 0;
}

int options_parse(struct options *o, int argc, char **argv)
{
    *o = (struct options){0};
    o->set = calloc((size_t)argc + 1, sizeof *o->set);
    o->report = calloc((size_t)argc + 1, sizeof *o->report);
    CHECK(o->set && o->report, "out of memory");
    bool report = false;
    opterr = 0;
    optind = 0; /* GNU: start anew */
    for (;;) {
        int before = optind ? optind : 1;
        int c = getopt_long(argc, argv, ":s:prhV", long_options, NULL);
        if (c == -1)
            break;
        switch (c) {
        case 's':
            TRY(take_set(o, optarg));
            break;
        case 'p':
            o->plan = true;
            break;
        case 'r':
            o->resume = true;
            break;
        case OPT_REPORT:
            report = true;
            break;
        case OPT_BENCH:
            o->bench = true;
            break;
        case 'h':
            o->help = true;
            break;
        case 'V':
            o->version = true;
            break;
        case ':':
            return error_set(ERR_INPUT, "option %s needs KEY=VALUE, as in --set ppo.batch_size=64",
                             argv[optind - 1]);
        default: /* in a cluster of letters optind stays until the last one */
            return unknown_option(argv[optind > before ? optind - 1 : before], optopt);
        }
    }
    return take_positionals(o, argc - optind, argv + optind, report);
}

void options_free(struct options *o)
{
    free(o->set);
    free(o->report);
    *o = (struct options){0};
}

void options_help(struct text *out)
{
    text_add_string(out, "Usage: mpirun -np N rlhf-hpc [options] input.cfg\n"
                         "       rlhf-hpc --report DIR...\n"
                         "\n"
                         "Fine-tunes a language model with reinforcement learning from human "
                         "feedback, one rank a device.\n"
                         "\n"
                         "  -s, --set KEY=VALUE   override one setting, as in --set "
                         "optim.learning_rate=1e-5 (repeatable)\n"
                         "  -p, --plan            print the memory and work plan for this input "
                         "and exit (no weights are read)\n"
                         "  -r, --resume          continue from the newest valid checkpoint in "
                         "run.output_dir; start afresh where\n"
                         "                        there is none (without it an output_dir that "
                         "holds a run is refused)\n"
                         "      --report DIR...   read a run and write DIR/report.md, report.csv, "
                         "phases.csv; of several,\n"
                         "                        scaling.md and scaling.csv beside the first\n"
                         "      --bench           time the phases of this input (ppo) and its "
                         "communication on synthetic weights\n"
                         "                        and prompts; only config.json is read, nothing is "
                         "written\n"
                         "  -h, --help            print this\n"
                         "  -V, --version         print the version and what it was built with\n"
                         "\n"
                         "Tasks (task = \"..\" in input.cfg):");
    for (int i = 0; settings_task_names[i]; i++)
        text_format(out, " %s", settings_task_names[i]);
    text_add_string(out, "\n"
                         "Every setting is documented in input/reference.cfg.\n"
                         "\n"
                         "Exit codes: 0 done; 1 error; 2 usage or invalid input.cfg; 75 stopped "
                         "early after a checkpoint:\n"
                         "run again with --resume.\n");
}
