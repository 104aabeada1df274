/* Lines for people: rank 0 to stdout, line-buffered; warnings to stderr, each text once. */
#ifndef RLHF_SRC_LOG_H
#define RLHF_SRC_LOG_H

#include <stdbool.h>

void log_init(bool speak); /* speak: true on rank 0 */
void log_line(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "rlhf-hpc: warning: ..." on rank 0; the same text is printed once in a run. */
void log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
