/* A mutation driver for the targets: the same inputs on every machine, in seconds, without a fuzzing engine.
 *
 *   fuzz [TARGET|all] [COUNT] [FIRST]    COUNT inputs of each target, numbered from FIRST (all, 300, 0)
 *   fuzz TARGET < FILE                   with COUNT 0: one input from standard input
 *
 * An input is a seed file with some of its bytes or words changed. A crash leaves it behind in the folder that is named when
 * its target begins. libfuzzer.c feeds the same targets to an engine that looks for coverage.
 */
#include "targets.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "error.h"
#include "file.h"
#include "log.h"
#include "rng.h"
#include "text.h"

enum { CHANGES_MAX = 6, CHUNK_MAX = 64 };

static const char *const words[] = {"0", "-1", "1", "2147483648", "99999999999999999999", "1e999", "-0.0", "null", "true", "\"\"", "[]", "{}",
                                    "[[[[[[[[", "{\"a\":", "\"\\u0000\"", "\"\\ud800\"", "\n", ",", "\xff", "\xe2\x96\x81", "\xcc\x81\xcc\x81",
                                    "%s", "../", "/", "\"type\": \"Sequence\"", "1.5", "0x7fffffffffffffff", "(", "\"", "\r\n"};

struct dice {
    struct rng_key key;
    uint32_t n;
};

static uint32_t draw(struct dice *d, uint32_t below)
{
    uint32_t w[4];
    rng_draw(w, d->key, d->n++, 0, 0, 0);
    return below ? w[0] % below : 0;
}

static void splice(struct text *t, size_t at, size_t drop, const char *bytes, size_t n)
{
    struct text out = {0};
    drop = drop < t->n - at ? drop : t->n - at;
    text_add(&out, t->bytes, at);
    text_add(&out, bytes, n);
    text_add(&out, t->bytes + at + drop, t->n - at - drop);
    text_free(t);
    *t = out;
}

/* Length of the number or name at a place, at least 1 where bytes are left. */
static size_t word_length(const struct text *t, size_t at)
{
    size_t n = strspn(t->bytes + at, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.-+");
    return n ? n : at < t->n;
}

static void change(struct text *t, struct dice *d)
{
    size_t at = t->n ? draw(d, (uint32_t)t->n) : 0, n = draw(d, CHUNK_MAX);
    const char *word = words[draw(d, sizeof words / sizeof *words)];
    char chunk[CHUNK_MAX], byte = (char)draw(d, 256);
    size_t from = t->n ? draw(d, (uint32_t)t->n) : 0, n_chunk = n < t->n - from ? n : t->n - from;
    if (n_chunk)
        memcpy(chunk, t->bytes + from, n_chunk);
    switch (draw(d, 8)) {
    case 0: /* another byte */
        splice(t, at, 1, &byte, 1);
        break;
    case 1: /* a byte more */
        splice(t, at, 0, &byte, 1);
        break;
    case 2: /* a piece less */
        splice(t, at, n, "", 0);
        break;
    case 3: /* cut short */
        splice(t, at, t->n, "", 0);
        break;
    case 4: /* a piece of it over another, or once more */
        splice(t, at, byte & 1 ? n_chunk : 0, chunk, n_chunk);
        break;
    case 5:
        splice(t, at, 0, word, strlen(word));
        break;
    default: /* a number or name becomes another: keeps the syntax most often */
        splice(t, at, word_length(t, at), word, strlen(word));
        break;
    }
}

static void make_input(struct text *out, const struct text *seed, int n_seeds, uint32_t number)
{
    struct dice d = {.key = rng_key(number, RNG_TEST, 0, 0)};
    const struct text *from = &seed[draw(&d, (uint32_t)n_seeds)];
    text_clear(out);
    text_add(out, from->bytes, from->n);
    for (uint32_t i = 0, n = 1 + draw(&d, CHANGES_MAX); i < n; i++)
        change(out, &d);
}

static void fuzz(const struct fuzz_target *t, const char *folder, uint32_t first, uint32_t count)
{
    struct text seed[FUZZ_SEEDS] = {0}, input = {0};
    int n_seeds = 0;
    for (; n_seeds < FUZZ_SEEDS && t->seeds[n_seeds]; n_seeds++) {
        char *path = fuzz_source(t->seeds[n_seeds]);
        CHECK(file_read(&seed[n_seeds], path) == 0, "%s", error_message());
        fuzz_target_run(t, folder, seed[n_seeds].bytes, seed[n_seeds].n);
        CHECK(!*error_message(), "%s: the seed itself is refused: %s", t->name, error_message());
        free(path);
    }
    int refusals = 0;
    printf("%s: in %s\n", t->name, folder);
    for (uint32_t i = first; i < first + count; i++) {
        make_input(&input, seed, n_seeds, i);
        fuzz_target_run(t, folder, text_string(&input), input.n);
        refusals += *error_message() != 0;
    }
    printf("%s: %u inputs, %d refused\n", t->name, (unsigned)count, refusals);
    text_free(&input);
    for (int i = 0; i < n_seeds; i++)
        text_free(&seed[i]);
}

static void run_standard_input(const struct fuzz_target *t, const char *folder)
{
    struct text input = {0};
    char buffer[4096];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, stdin)) > 0;)
        text_add(&input, buffer, n);
    fuzz_target_run(t, folder, text_string(&input), input.n);
    printf("%s: %s\n", t->name, *error_message() ? error_message() : "taken");
    text_free(&input);
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "all";
    const uint32_t count = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 300;
    const uint32_t first = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0;
    int done = 0;
    log_init(false);
    for (int i = 0; i < fuzz_n_targets; i++) {
        const struct fuzz_target *t = &fuzz_targets[i];
        if (strcmp(name, "all") && strcmp(name, t->name))
            continue;
        char folder[] = "/tmp/rlhf-hpc-fuzz.XXXXXX";
        CHECK(mkdtemp(folder), "cannot make a folder in /tmp");
        fuzz_target_prepare(t, folder);
        if (count)
            fuzz(t, folder, first, count);
        else
            run_standard_input(t, folder);
        file_remove_tree(folder);
        done++;
    }
    if (!done)
        fprintf(stderr, "no target %s\n", name);
    return !done;
}
