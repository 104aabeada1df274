/* reward_program: programs that answer, lie, hang, die and leave children; large batches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "reward_program.h"

enum { MANY = 10000 };

static void *open_program(const char *command, double timeout_sec)
{
    void *p;
    if (reward_program_open(
            &p, &(struct reward_spec){.command = command, .timeout_sec = timeout_sec}) != 0)
        fail_msg("%s", error_message());
    if (reward_program_load(p) != 0)
        fail_msg("%s", error_message());
    return p;
}

static int score_n(void *p, int n, const char *response, double *score)
{
    struct reward_text *texts = calloc((size_t)n, sizeof *texts);
    for (int i = 0; i < n; i++)
        texts[i] = (struct reward_text){.index = 100 + i, .prompt = "the prompt", .response = response, .prompt_bytes = 10,
                                        .response_bytes = strlen(response)};
    const int rc = reward_program_score(p, texts, n, score);
    free(texts);
    return rc;
}

static void fails(const char *command, double timeout_sec, int n, const char *message)
{
    double score[64];
    void *p = open_program(command, timeout_sec);
    assert_int_equal(score_n(p, n, "text", score), -1);
    assert_int_equal(error_kind(), ERR_RUN);
    if (!strstr(error_message(), message))
        fail_msg("\"%s\" is not in \"%s\"", message, error_message());
    reward_program_close(p);
}

static void test_lines_are_what_the_header_says(void **state)
{
    (void)state;
    static const char line[] = "{\"index\":7,\"prompt\":\"a\\nb\",\"response\":\"say "
                               "\\\"\xc3\xb6\\\" \\u0000\xef\xbf\xbd\"}";
    char command[512];
    double score;
    snprintf(command, sizeof command,
             "while IFS= read -r line; do [ \"$line\" = '%s' ] && echo 1.5 || echo -1; done", line);
    void *p = open_program(command, 20);
    const struct reward_text text = {7, "a\nb", "say \"\xc3\xb6\" \0\xff", 3, 11, NULL, 0};
    assert_int_equal(reward_program_score(p, &text, 1, &score), 0);
    assert_true(score == 1.5);
    reward_program_close(p);
}

static void test_many_lines_in_several_batches(void **state)
{
    (void)state;
    double *score = calloc(MANY, sizeof *score);
    void *p =
        open_program("while read -r line; do line=${line#*:}; echo ${line%%,*}.125; done", 60);
    for (int batch = 0; batch < 2; batch++) {
        memset(score, 0, MANY * sizeof *score);
        assert_int_equal(score_n(p, MANY, "x", score), 0);
        for (int i = 0; i < MANY; i++)
            assert_true(score[i] == 100 + i + 0.125);
    }
    reward_program_close(p);
    free(score);
}

/* Reads all it is sent before it answers, then answers more than a pipe holds; and the other way
 * round, long lines. */
static void test_full_pipes_do_not_block(void **state)
{
    (void)state;
    double *score = calloc(MANY, sizeof *score);
    char *response = malloc(5001);
    memset(response, 'y', 5000);
    response[5000] = 0;
    void *p = open_program(
        "head -n 10000 > /dev/null; seq -f %032.2f 0.25 1 9999.25; cat > /dev/null", 60);
    assert_int_equal(score_n(p, MANY, response, score), 0);
    assert_true(score[0] == 0.25 && score[MANY - 1] == MANY - 1 + 0.25);
    reward_program_close(p);
    free(response);
    free(score);
}

static void test_program_that_ends(void **state)
{
    (void)state;
    fails("exit 3", 20, 4, "exit code 3 after 0 of 4 answers: exit 3");
    fails("read a; echo 1; read a; echo 2; exit 0", 20, 5, "exit code 0 after 2 of 5 answers");
    fails("read a; kill -9 $$", 20, 4, "signal 9 (Killed) after 0 of 4 answers");
    fails("/no/such/program 2>/dev/null", 20, 4, "exit code 127 after 0 of 4");
    fails("exec >&-; sleep 30", 20, 4, "closed its input or output after 0 of 4");
}

static void test_program_that_hangs(void **state)
{
    (void)state;
    fails("sleep 60", 0.3, 4, "took and gave nothing for 0.3 s after 0 of 4 answers");
    fails("read a; echo 1; sleep 60", 0.3, 4, "after 1 of 4 answers");
    fails("cat > /dev/null; echo 1", 0.3, 4, "without buffering");
    fails("read a; printf 1.5; sleep 60", 0.3, 4,
          "after 0 of 4"); /* a line without its end is no answer */
}

static void test_program_that_answers_nonsense(void **state)
{
    (void)state;
    fails("while read a; do echo great; done", 20, 2,
          "answer to sample 100 is not one finite number: \"great\"");
    fails("while read a; do echo; done", 20, 2, "sample 100 is not one finite number: \"\"");
    fails("while read a; do echo nan; done", 20, 2, "finite number: \"nan\"");
    fails("while read a; do echo 1e999; done", 20, 2, "finite number: \"1e999\"");
    fails("while read a; do echo 1 2; done", 20, 2, "finite number: \"1 2\"");
    fails("while read a; do echo 0x10; done", 20, 2, "finite number: \"0x10\"");
    fails("read a; echo 1; read a; printf '2\\033[31m\\n'; cat", 20, 3,
          "sample 101 is not one finite number: \"2?[31m\"");
    fails("read a; awk 'BEGIN { for (i = 0; i < 9000; i++) printf \"7\"; fflush(); system(\"sleep "
          "60\") }'",
          20, 2, "a line without end: \"7777");
    fails("echo hello; cat > /dev/null", 20, 2, "hello\"");
}

static void test_unasked_line_is_seen(void **state)
{
    (void)state;
    double score[2];
    void *p = open_program("read a; echo 1; echo 2; cat > /dev/null", 5);
    int rc = score_n(p, 1, "x",
                     score); /* the second line comes with the first, or before the next question */
    if (rc == 0) {
        const struct timespec pause = {0, 300000000};
        nanosleep(&pause, NULL);
        rc = score_n(p, 1, "x", score);
    }
    assert_int_equal(rc, -1);
    assert_non_null(strstr(error_message(), "more than it was asked: \"2\""));
    reward_program_close(p);
}

/* SIGPIPE kills by default: writing to a dead program must not, and the disposition must be as
 * before. */
static void test_sigpipe_is_ours_again(void **state)
{
    (void)state;
    static char response[20001]; /* 64 of them do not fit in a pipe */
    struct sigaction now;
    double score[64];
    memset(response, 'y', sizeof response - 1);
    signal(SIGPIPE, SIG_DFL);
    void *p = open_program("exec <&-; sleep 0.2; exit 4", 20);
    assert_int_equal(score_n(p, 64, response, score), -1);
    assert_non_null(strstr(error_message(), "exit code 4 after 0 of 64"));
    reward_program_close(p);
    sigaction(SIGPIPE, NULL, &now);
    assert_true(now.sa_handler == SIG_DFL);
}

/* A child of the program, in its group, is gone after close: its end of this pipe is. */
static void test_close_ends_the_group(void **state)
{
    (void)state;
    int pipes[2];
    char command[128], byte;
    double score;
    assert_int_equal(pipe(pipes), 0);
    snprintf(command, sizeof command,
             "trap '' TERM; sleep 600 <&- >&- & while read a; do echo 1; done; sleep 600");
    void *p = open_program(command, 20);
    close(pipes[1]);
    assert_int_equal(score_n(p, 1, "x", &score), 0);
    reward_program_close(p);
    assert_int_equal(read(pipes[0], &byte, 1), 0); /* would block while either sleep lives */
    close(pipes[0]);
}

static void test_close_is_quick_when_the_program_ends_at_eof(void **state)
{
    (void)state;
    struct timespec before, after;
    double score;
    void *p = open_program("while read a; do echo 1; done", 20);
    assert_int_equal(score_n(p, 1, "x", &score), 0);
    clock_gettime(CLOCK_MONOTONIC, &before);
    reward_program_close(p);
    clock_gettime(CLOCK_MONOTONIC, &after);
    assert_true(after.tv_sec - before.tv_sec <= 1);
    reward_program_close(NULL);
}

int main(void)
{
    alarm(120); /* a deadlock ends the test, not the day */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_are_what_the_header_says),
        cmocka_unit_test(test_many_lines_in_several_batches),
        cmocka_unit_test(test_full_pipes_do_not_block),
        cmocka_unit_test(test_program_that_ends),
        cmocka_unit_test(test_program_that_hangs),
        cmocka_unit_test(test_program_that_answers_nonsense),
        cmocka_unit_test(test_unasked_line_is_seen),
        cmocka_unit_test(test_sigpipe_is_ours_again),
        cmocka_unit_test(test_close_ends_the_group),
        cmocka_unit_test(test_close_is_quick_when_the_program_ends_at_eof),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
