/* Errors: one slot for the message, set where the facts are, printed by main alone.
 *
 * A function that can fail returns 0 or -1 and leaves one line in the slot. Callers pass it on with TRY
 * or clean up with goto. CHECK is for broken invariants (our bugs): it ends the whole run.
 */
#ifndef RLHF_SRC_ERROR_H
#define RLHF_SRC_ERROR_H

enum error {
    ERR_NONE,
    ERR_INPUT,  /* usage or input.cfg: exit code 2 */
    ERR_FILE,   /* a file or folder from outside: exit code 1 */
    ERR_SYSTEM, /* memory, processes, devices: exit code 1 */
    ERR_RUN,    /* the run itself (non-finite loss, dead reward program): exit code 1 */
    ERR_STOP    /* stopped early after a checkpoint: exit code 75 */
};

/* Puts a printf-style message of a kind in the slot, replacing what is there; control characters become '?', but for the
 * newlines of ERR_INPUT. Returns -1. */
int error_set(enum error kind, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Prefixes the message in the slot with "context: ". Returns -1. */
int error_context(const char *format, ...) __attribute__((format(printf, 1, 2)));

const char *error_message(void); /* the message, "" when none; borrowed, until the next error_set */
enum error error_kind(void);
int error_exit_code(void); /* 0, 1, 2 or 75, by the kind in the slot */
void error_clear(void);

/* Where CHECK ends: hands its line to the hook, which does not return (comm_abort: one line, and all ranks end). Without a
 * hook: writes it on stderr, then abort(). */
void error_broken(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4), noreturn));
void error_set_abort_hook(void (*hook)(const char *line));

#define TRY(call)                                                                                  \
    do {                                                                                           \
        if ((call) != 0)                                                                           \
            return -1;                                                                             \
    } while (0)

#define CHECK(condition, ...)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            error_broken(__FILE__, __LINE__, __VA_ARGS__);                                         \
    } while (0)

#endif
