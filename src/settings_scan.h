/* A look at input.cfg before libconfig: what libconfig 1.5 gets wrong without saying so. */
#ifndef RLHF_SRC_SETTINGS_SCAN_H
#define RLHF_SRC_SETTINGS_SCAN_H

#include "text.h"

enum { SETTINGS_DEPTH_MAX = 16 };

/* Appends to out the text[n] that libconfig may read: same lines, integers beyond 32 bits marked with L.
 * Returns 0; or -1 with the line (from 1) and what is wrong in *line, *what (static string): NUL bytes, @include, strings
 * and comments without an end, integers beyond 64 bits, nesting beyond SETTINGS_DEPTH_MAX. */
int settings_scan(struct text *out, const char *text, size_t n, int *line, const char **what);

#endif
