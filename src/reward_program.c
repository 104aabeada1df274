/* A child with two pipes, served by one poll loop.
 *
 * What is hard: neither side may block on a full pipe while the other waits (both ends here are
 * non-blocking, and questions are made as the pipe takes them); a dead child must not kill us by
 * SIGPIPE (ignored while we write, restored after); and nothing of the child's may outlive us (its
 * own process group, ended as a whole before its leader is reaped, while the group's number cannot
 * be anybody else's).
 */
#include "reward_program.h"

#include "error.h"
#include "jsonl.h"
#include "progress.h"
#include "text.h"
#include "timing.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <utf8proc.h>

enum { ANSWER_MAX = 4096, QUOTE_MAX = 80, READ_BYTES = 16384 };

static const double GRACE_SEC = 0.5; /* for the program to end by itself */

struct program {
    char *command;
    pid_t pid;    /* also the process group; 0: none */
    int to, from; /* our ends of its standard input and output; -1: closed */
    double timeout_sec;
    struct progress *progress;
    struct text answer;   /* bytes read that make no whole line yet */
    struct text question; /* bytes made, of which some have gone */
};

extern char **environ;

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* --- start and end --- */

/* The child gets the pipes as 0 and 1, default signals, an empty mask and its own group. */
static int spawn(pid_t *pid, const char *command, int input, int output)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t how;
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
    posix_spawnattr_init(&how);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF |
                                       POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setpgroup(&how, 0);
    posix_spawnattr_setsigdefault(&how, &all);
    posix_spawnattr_setsigmask(&how, &none);
    char *const arguments[] = {"sh", "-c", (char *)command, NULL};
    const int failure = posix_spawn(pid, "/bin/sh", &files, &how, arguments, environ);
    posix_spawnattr_destroy(&how);
    posix_spawn_file_actions_destroy(&files);
    return failure;
}

static int start(struct program *p)
{
    int input[2] = {-1, -1}, output[2] = {-1, -1}, rc = -1;
    if (pipe2(input, O_CLOEXEC) != 0 || pipe2(output, O_CLOEXEC) != 0) {
        error_set(ERR_SYSTEM, "cannot make a pipe: %s", strerror(errno));
        goto done;
    }
    const int failure = spawn(&p->pid, p->command, input[0], output[1]);
    if (failure) {
        p->pid = 0;
        error_set(ERR_SYSTEM, "cannot start /bin/sh: %s", strerror(failure));
        goto done;
    }
    fcntl(input[1], F_SETFL, O_NONBLOCK);
    fcntl(output[0], F_SETFL, O_NONBLOCK);
    p->to = input[1];
    p->from = output[0];
    input[1] = output[0] = -1;
    rc = 0;
done:
    for (int i = 0; i < 2; i++) {
        close_fd(&input[i]);
        close_fd(&output[i]);
    }
    return rc;
}

/* Waits up to a time for the program to end, without reaping it. */
static bool has_ended(const struct program *p, siginfo_t *info, double wait_sec)
{
    const double until = timing_now() + wait_sec;
    for (;;) {
        memset(info, 0, sizeof *info);
        if (waitid(P_PID, (id_t)p->pid, info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            info->si_pid == p->pid)
            return true;
        if (timing_now() >= until)
            return false;
        const struct timespec pause = {0, 2000000};
        nanosleep(&pause, NULL);
    }
}

int reward_program_open(void **state, const struct reward_spec *spec)
{
    *state = NULL;
    if (!spec->command || !*spec->command)
        return error_set(ERR_INPUT, "command is missing: what to run");
    if (!(spec->timeout_sec >= 0.0 && spec->timeout_sec <= 1e6))
        return error_set(ERR_INPUT, "timeout_sec = %g is not between 0 and 1e6", spec->timeout_sec);
    struct program *p = calloc(1, sizeof *p);
    CHECK(p, "out of memory");
    p->to = p->from = -1;
    p->timeout_sec = spec->timeout_sec > 0.0 ? spec->timeout_sec : REWARD_TIMEOUT_SEC;
    p->progress = spec->progress;
    p->command = strdup(spec->command);
    CHECK(p->command, "out of memory");
    text_reserve(&p->answer, ANSWER_MAX + READ_BYTES);
    text_reserve(&p->question, 2 * 6 * spec->text_bytes + 256); /* prompt and response, each byte as \uXXXX at worst */
    *state = p;
    return 0;
}

int reward_program_load(void *state)
{
    return start(state);
}

void reward_program_close(void *state)
{
    struct program *p = state;
    if (!p)
        return;
    close_fd(&p->to);
    close_fd(&p->from);
    if (p->pid > 0) {
        siginfo_t info;
        if (!has_ended(p, &info, GRACE_SEC)) {
            kill(-p->pid, SIGTERM);
            has_ended(p, &info, GRACE_SEC);
        }
        kill(-p->pid, SIGKILL);
        while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    text_free(&p->answer);
    text_free(&p->question);
    free(p->command);
    free(p);
}

/* --- questions --- */

/* A JSON string; bytes that are no UTF-8 become U+FFFD each. */
static json_t *string_of(const char *bytes, size_t n)
{
    json_t *string = json_stringn(n ? bytes : "", n);
    if (string)
        return string;
    struct text good = {0};
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        const size_t window = n - i < 4 ? n - i : 4;
        const utf8proc_ssize_t used =
            utf8proc_iterate((const utf8proc_uint8_t *)bytes + i, (utf8proc_ssize_t)window, &c);
        text_add(&good, used > 0 ? bytes + i : "\xef\xbf\xbd", used > 0 ? (size_t)used : 3);
        i += used > 0 ? (size_t)used : 1;
    }
    string = json_stringn(good.bytes, good.n);
    text_free(&good);
    return string;
}

static void add_question(struct text *out, const struct reward_text *text)
{
    json_t *object = json_object();
    int rc = json_object_set_new(object, "index", json_integer(text->index));
    rc |= json_object_set_new(object, "prompt", string_of(text->prompt, text->prompt_bytes));
    rc |= json_object_set_new(object, "response", string_of(text->response, text->response_bytes));
    CHECK(rc == 0, "out of memory for a line of JSON");
    jsonl_add(out, object, JSON_COMPACT);
    json_decref(object);
}

/* --- answers --- */

/* A line for a message: cut to QUOTE_MAX, unprintable bytes as '?'. */
static const char *quote(char out[QUOTE_MAX + 4], const char *line, size_t n)
{
    const size_t shown = n < QUOTE_MAX ? n : QUOTE_MAX;
    for (size_t i = 0; i < shown; i++)
        out[i] = (unsigned char)line[i] < 0x20 || line[i] == 0x7f ? '?' : line[i];
    strcpy(out + shown, n > shown ? "..." : "");
    return out;
}

static int parse_answer(double *score, const char *line, size_t n, int64_t index)
{
    char digits[ANSWER_MAX + 1], shown[QUOTE_MAX + 4];
    char *end = digits;
    memcpy(digits, line, n);
    digits[n] = 0;
    if (n && strspn(digits, "+-.0123456789eE \t\r") == n) /* keeps out nan, inf, hexadecimal */
        *score = strtod(digits, &end);
    if (end == digits || end[strspn(end, " \t\r")] != 0 || !isfinite(*score))
        return error_set(ERR_RUN, "its answer to sample %lld is not one finite number: \"%s\"",
                         (long long)index, quote(shown, line, n));
    return 0;
}

/* A batch in progress. */
struct exchange {
    const struct reward_text *texts;
    double *score;
    int64_t n, n_made, n_answered; /* samples: all, turned into questions, answered */
    size_t sent;                   /* of the question's bytes */
};

static int parse_answers(struct program *p, struct exchange *x)
{
    size_t at = 0;
    char shown[QUOTE_MAX + 4];
    while (at < p->answer.n) {
        const char *line = p->answer.bytes + at, *end = memchr(line, '\n', p->answer.n - at);
        const size_t n = end ? (size_t)(end - line) : p->answer.n - at;
        if (x->n_answered == x->n_made || n > ANSWER_MAX)
            return error_set(ERR_RUN, "it wrote %s: \"%s\"",
                             n > ANSWER_MAX ? "a line without end" : "more than it was asked",
                             quote(shown, line, n));
        if (!end)
            break;
        TRY(parse_answer(&x->score[x->n_answered], line, n, x->texts[x->n_answered].index));
        x->n_answered++;
        at += n + 1;
    }
    if (at) {
        memmove(p->answer.bytes, p->answer.bytes + at, p->answer.n - at);
        p->answer.n -= at;
    }
    return 0;
}

/* The program is gone, or has closed its end: says how it ended. */
static int dead(const struct program *p, const struct exchange *x)
{
    siginfo_t info;
    const long long answered = x->n_answered, n = x->n;
    if (!has_ended(p, &info, GRACE_SEC))
        return error_set(ERR_RUN,
                         "the program closed its input or output after %lld of %lld answers: %s",
                         answered, n, p->command);
    if (info.si_code != CLD_EXITED)
        return error_set(ERR_RUN,
                         "the program was ended by signal %d (%s) after %lld of %lld answers: %s",
                         info.si_status, strsignal(info.si_status), answered, n, p->command);
    return error_set(ERR_RUN, "the program ended with exit code %d after %lld of %lld answers: %s",
                     info.si_status, answered, n, p->command);
}

/* Reads what is there. */
static int receive_some(struct program *p, struct exchange *x, bool *progress)
{
    char bytes[READ_BYTES];
    for (;;) {
        const ssize_t k = read(p->from, bytes, sizeof bytes);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0 && errno == EAGAIN)
            return 0;
        if (k < 0)
            return error_set(ERR_RUN, "cannot read from the program: %s", strerror(errno));
        if (k == 0)
            return dead(p, x);
        *progress = true;
        text_add(&p->answer, bytes, (size_t)k);
        TRY(parse_answers(p, x));
    }
}

/* Sends what the pipe takes. *progress is set when it took anything. */
static int send_some(struct program *p, struct exchange *x, bool *progress)
{
    for (;;) {
        if (x->sent == p->question.n) {
            text_clear(&p->question);
            x->sent = 0;
            if (x->n_made == x->n)
                return 0;
            add_question(&p->question, &x->texts[x->n_made++]);
        }
        const ssize_t k = write(p->to, p->question.bytes + x->sent, p->question.n - x->sent);
        if (k < 0 && errno == EINTR)
            continue;
        if (k < 0 && errno == EAGAIN)
            return 0;
        if (k < 0 && errno == EPIPE) {
            TRY(receive_some(p, x, progress)); /* what it said last may tell more */
            return dead(p, x);
        }
        if (k < 0)
            return error_set(ERR_RUN, "cannot write to the program: %s", strerror(errno));
        x->sent += (size_t)k;
        *progress = true;
    }
}

static int exchange_all(struct program *p, struct exchange *x)
{
    bool progress;
    TRY(receive_some(p, x, &progress)); /* says something unasked, or is dead already */
    double last = timing_now();
    while (x->n_answered < x->n) {
        const bool sending = x->n_made < x->n || x->sent < p->question.n;
        struct pollfd fds[2] = {{p->from, POLLIN, 0}, {sending ? p->to : -1, POLLOUT, 0}};
        const double left = last + p->timeout_sec - timing_now();
        if (left <= 0.0)
            return error_set(ERR_RUN,
                             "the program took and gave nothing for %g s after %lld of %lld "
                             "answers (does it answer "
                             "each line at once, without buffering?): %s",
                             p->timeout_sec, (long long)x->n_answered, (long long)x->n, p->command);
        const int ready = poll(fds, 2, left > 1000.0 ? 1000000 : (int)(left * 1e3) + 1);
        if (ready < 0 && errno != EINTR)
            return error_set(ERR_SYSTEM, "poll: %s", strerror(errno));
        if (ready <= 0)
            continue;
        progress = false;
        if (fds[0].revents)
            TRY(receive_some(p, x, &progress));
        if (fds[1].revents)
            TRY(send_some(p, x, &progress));
        if (progress) {
            last = timing_now();
            progress_tick(p->progress);
        }
    }
    return 0;
}

int reward_program_score(void *state, const struct reward_text *texts, int64_t n, double *score)
{
    if (n <= 0)
        return 0;
    struct program *p = state;
    struct exchange x = {.texts = texts, .score = score, .n = n};
    text_clear(&p->question); /* after an error, what had not gone */
    struct sigaction ignore = {.sa_handler = SIG_IGN}, before;
    sigaction(SIGPIPE, &ignore, &before);
    const int rc = exchange_all(p, &x);
    sigaction(SIGPIPE, &before, NULL);
    return rc;
}
