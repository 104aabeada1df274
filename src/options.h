/* The command line. Settings themselves are in input.cfg; --set overrides single ones. */
#ifndef RLHF_SRC_OPTIONS_H
#define RLHF_SRC_OPTIONS_H

#include "text.h"

#include <stdbool.h>

struct options {
    const char *input; /* input.cfg, borrowed from argv; NULL with help, version and report */
    const char **set;  /* [n_set] "KEY=VALUE", owned array of borrowed strings */
    int n_set;
    const char **report; /* [n_report] run folders of --report */
    int n_report;
    bool plan, resume, bench, help, version;
};

/* Fills *o. help and version win over whatever else is given. argv may be reordered.
 * Errors: ERR_INPUT: an unknown option (with the nearest one), a missing argument, no input.cfg or more than one,
 * options that exclude each other. free *o in either case. */
int options_parse(struct options *o, int argc, char **argv);
void options_free(struct options *o);

void options_help(
    struct text *out); /* appends what --help prints: usage, options, tasks, exit codes */

#endif
