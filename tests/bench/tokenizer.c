/* Encoding speed: tests/bench/tokenizer MEGABYTES TOKENIZER TEXT... prints MB/s of processor time over the texts repeated
 * to that size, each text an input of its own (a .jsonl file gives the "text" of each line), and over all as one input. */
#include "tokenizer.h"
#include "error.h"
#include "file.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct corpus {
    struct text all;
    size_t *end; /* of each text in all */
    size_t n;
};

static double cpu_sec(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* one thread; others may share the core */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void add_text(struct corpus *c, const char *bytes, size_t n)
{
    text_add(&c->all, bytes, n);
    c->end = realloc(c->end, (c->n + 1) * sizeof *c->end);
    CHECK(c->end, "out of memory");
    c->end[c->n++] = c->all.n;
}

static int read_corpus(struct corpus *c, const char *path)
{
    struct text file = {0};
    TRY(file_read(&file, path));
    size_t n = strlen(path);
    if (n < 6 || strcmp(path + n - 6, ".jsonl")) {
        add_text(c, file.bytes, file.n);
    } else {
        for (char *line = file.bytes, *end; line && (end = strchr(line, '\n')); line = end + 1) {
            json_t *row = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL);
            const json_t *text = json_object_get(row, "text");
            if (json_is_string(text))
                add_text(c, json_string_value(text), json_string_length(text));
            json_decref(row);
        }
    }
    text_free(&file);
    return 0;
}

static int time_texts(const struct tokenizer *t, const struct corpus *c, const char *name)
{
    struct token_list ids = {0};
    double begin = cpu_sec();
    for (size_t i = 0, start = 0; i < c->n; start = c->end[i++])
        TRY(tokenizer_encode(t, &ids, c->all.bytes + start, c->end[i] - start, false));
    double sec = cpu_sec() - begin;
    printf("%s: %zu texts, %.1f MB, %lld tokens, %.3f s, %.1f MB/s\n", name, c->n,
           1e-6 * (double)c->all.n, (long long)ids.n, sec, 1e-6 * (double)c->all.n / sec);
    token_list_free(&ids);
    return 0;
}

static int run(int argc, char **argv)
{
    struct corpus c = {0};
    struct tokenizer *t;
    double begin = cpu_sec();
    TRY(tokenizer_open(&t, argv[2]));
    printf("opened in %.3f s\n", cpu_sec() - begin);
    for (size_t want = 1000000 * (size_t)atoi(argv[1]); c.all.n < want;)
        for (int i = 3; i < argc; i++)
            TRY(read_corpus(&c, argv[i]));
    TRY(time_texts(t, &c, "separate"));
    c.end[0] = c.all.n;
    c.n = 1;
    TRY(time_texts(t, &c, "joined"));
    tokenizer_close(t);
    text_free(&c.all);
    free(c.end);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s MEGABYTES TOKENIZER TEXT...\n", argv[0]);
        return 2;
    }
    if (run(argc, argv))
        fprintf(stderr, "%s\n", error_message());
    return error_exit_code();
}
