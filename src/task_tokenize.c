/* task = "tokenize": ids of each text and the text that they decode to, and statistics of lengths. Needs the tokenizer file only. */
#include "conversation.h"
#include "engine.h"
#include "error.h"
#include "file.h"
#include "jsonl.h"
#include "log.h"
#include "prompts.h"
#include "run.h"
#include "task.h"

#include <jansson.h>
#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void print_statistics(const struct prompt_list *p, int64_t limit)
{
    int64_t *length = malloc((size_t)p->n * sizeof *length), above = 0, total = 0;
    CHECK(length, "out of memory");
    for (int64_t i = 0; i < p->n; i++) {
        length[i] = p->prompt[i].n;
        total += length[i];
        above += limit > 0 && length[i] > limit;
    }
    qsort(length, (size_t)p->n, sizeof *length, ascending);
    log_line("%lld texts, %lld tokens; length min %lld, median %lld, 95 %% %lld, max %lld", (long long)p->n, (long long)total,
             (long long)length[0], (long long)length[p->n / 2], (long long)length[(p->n * 95 - 1) / 100],
             (long long)length[p->n - 1]);
    if (limit > 0)
        log_line("%lld texts (%.1f %%) are longer than %lld tokens", (long long)above, 100.0 * (double)above / (double)p->n,
                 (long long)limit);
    free(length);
}

/* One line a text: its ids, and what they stand for, special tokens too. */
static int format_lines(struct text *out, const struct prompt_list *p, const struct tokenizer *t)
{
    struct text decoded = {0};
    int rc = 0;
    for (int64_t i = 0; i < p->n && !rc; i++) {
        const struct token_list *ids = &p->prompt[i];
        json_t *list = json_array();
        for (int64_t k = 0; k < ids->n; k++)
            json_array_append_new(list, json_integer(ids->ids[k]));
        text_clear(&decoded);
        rc = tokenizer_decode(t, &decoded, ids->ids, ids->n, false);
        json_t *line = json_pack("{so ss%}", "ids", list, "decoded", text_string(&decoded), decoded.n);
        if (!rc)
            jsonl_add(out, line, 0);
        json_decref(line);
    }
    text_free(&decoded);
    return rc;
}

/* The model's limit where a config.json lies beside the tokenizer. */
static int64_t length_limit(const struct settings *s)
{
    struct arch arch;
    char *config = file_join(s->model.path, "config.json");
    int64_t limit = s->data.max_length;
    if (!limit && file_exists(config) && arch_read(&arch, s->model.path, ARCH_BACKBONE) == 0)
        limit = arch.max_positions;
    error_clear();
    free(config);
    return limit;
}

static int tokenize(const struct settings *s, struct run *run)
{
    struct dataset data = {0};
    struct tokenizer *tokenizer = NULL;
    struct prompt_list list = {0};
    struct text out = {0};
    int rc = tokenizer_open(&tokenizer, s->model.path);
    if (!rc)
        rc = dataset_load(&data, &s->data, 0);
    if (!rc)
        rc = conversation_render(&data, s, CONVERSATION_TEXTS);
    if (!rc)
        rc = prompts_encode(&list, &data, tokenizer, &s->data, 0, INT32_MAX);
    if (!rc) {
        char *path = run_path(run, "tokenize.jsonl");
        rc = format_lines(&out, &list, tokenizer);
        if (!rc)
            rc = file_write_atomic(path, out.bytes, out.n);
        if (!rc) {
            print_statistics(&list, length_limit(s));
            log_line("wrote %s", path);
        }
        free(path);
    }
    text_free(&out);
    prompts_free(&list);
    dataset_free(&data);
    tokenizer_close(tokenizer);
    return rc;
}

int task_tokenize(const struct settings *s, struct comm *comm, const struct options *o)
{
    struct run run;
    int rc = run_open(&run, s, comm, o->resume);
    if (!rc)
        rc = comm_agree(comm, comm_rank(comm) == 0 ? tokenize(s, &run) : 0);
    run_close(&run);
    return rc;
}
