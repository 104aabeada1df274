/* Samples and their records. A record is read field by field through one bounds-checked cursor with
 * a sticky error, so the reading code is a straight list as the writing code is. */
#include "sample.h"

#include "error.h"

#include <stdlib.h>
#include <string.h>

static const uint32_t RECORD_MAGIC = 0x314c5053; /* "SPL1" */

static void *allocate(size_t n, size_t size)
{
    if (n == 0)
        return NULL;
    void *memory = calloc(n, size);
    CHECK(memory, "out of memory for %zu x %zu bytes of samples", n, size);
    return memory;
}

static void *copied(const void *from, size_t n, size_t size)
{
    void *memory = allocate(n, size);
    if (memory)
        memcpy(memory, from, n * size);
    return memory;
}

static void drop_arrays(struct sample *s)
{
    for (int i = 0; i < SAMPLE_ARRAYS; i++) {
        free(s->array[i]);
        s->array[i] = NULL;
    }
}

void sample_free(struct sample *s)
{
    drop_arrays(s);
    free(s->prompt);
    free(s->response);
    free(s->part);
    text_free(&s->prompt_text);
    text_free(&s->response_text);
    *s = (struct sample){0};
}

void sample_set_prompt(struct sample *s, const int32_t *ids, int32_t n)
{
    free(s->prompt);
    s->prompt = copied(ids, (size_t)n, sizeof *ids);
    s->n_prompt = n;
}

void sample_set_response(struct sample *s, const int32_t *ids, int32_t n)
{
    drop_arrays(s);
    free(s->response);
    s->response = copied(ids, (size_t)n, sizeof *ids);
    s->n_response = n;
}

float *sample_array(struct sample *s, enum sample_array which)
{
    if (!s->array[which])
        s->array[which] = allocate((size_t)s->n_response, sizeof(float));
    return s->array[which];
}

void sample_set_parts(struct sample *s, const double *part, int32_t n)
{
    free(s->part);
    s->part = copied(part, (size_t)n, sizeof *part);
    s->n_parts = n;
}

/* What stands at the start of a record. Its lengths are all that is needed to know the record's
 * size. */
struct header {
    uint32_t magic, arrays; /* arrays: bit i for array[i] */
    int64_t index, source;
    int32_t n_prompt, n_response, n_parts, finished;
    uint64_t prompt_bytes, response_bytes;
    double raw_score, score;
};

void sample_write(struct text *out, const struct sample *s)
{
    struct header h = {
        .magic = RECORD_MAGIC,
        .index = s->index,
        .source = s->source,
        .n_prompt = s->n_prompt,
        .n_response = s->n_response,
        .n_parts = s->n_parts,
        .finished = s->finished,
        .prompt_bytes = s->prompt_text.n,
        .response_bytes = s->response_text.n,
        .raw_score = s->raw_score,
        .score = s->score,
    };
    for (int i = 0; i < SAMPLE_ARRAYS; i++)
        h.arrays |= s->array[i] ? 1u << i : 0;
    text_add(out, &h, sizeof h);
    text_add(out, s->prompt, (size_t)s->n_prompt * sizeof *s->prompt);
    text_add(out, s->response, (size_t)s->n_response * sizeof *s->response);
    text_add(out, s->prompt_text.bytes, s->prompt_text.n);
    text_add(out, s->response_text.bytes, s->response_text.n);
    text_add(out, s->part, (size_t)s->n_parts * sizeof *s->part);
    for (int i = 0; i < SAMPLE_ARRAYS; i++)
        if (s->array[i])
            text_add(out, s->array[i], (size_t)s->n_response * sizeof(float));
}

/* What is left of a record. short_of names the first field that did not fit. */
struct cursor {
    const unsigned char *at;
    size_t left;
    const char *short_of;
};

static const void *take(struct cursor *c, uint64_t n, size_t size, const char *field)
{
    if (c->short_of || n > c->left / size) {
        if (!c->short_of)
            c->short_of = field;
        return NULL;
    }
    const void *found = c->at;
    c->at += n * size;
    c->left -= n * size;
    return found;
}

static void *take_copy(struct cursor *c, int32_t n, size_t size, const char *field)
{
    if (n < 0 && !c->short_of)
        c->short_of = field;
    const void *found = n < 0 ? NULL : take(c, (uint64_t)n, size, field);
    return found ? copied(found, (size_t)n, size) : NULL;
}

static void take_text(struct text *out, struct cursor *c, uint64_t n, const char *field)
{
    const void *found = take(c, n, 1, field);
    if (found && n)
        text_add(out, found, n);
}

int sample_read(struct sample *s, const void *bytes, size_t n)
{
    struct cursor c = {.at = bytes, .left = n};
    struct header h = {0};
    const void *head = take(&c, 1, sizeof h, "header");
    *s = (struct sample){0};
    if (!head)
        return error_set(ERR_RUN, "a sample's record of %zu bytes is too short for its header", n);
    memcpy(&h, head, sizeof h);
    if (h.magic != RECORD_MAGIC || h.arrays >> SAMPLE_ARRAYS ||
        (h.finished != 0 && h.finished != 1))
        return error_set(ERR_RUN, "a sample's record does not start as one (%08x)",
                         (unsigned)h.magic);
    s->prompt = take_copy(&c, h.n_prompt, sizeof *s->prompt, "prompt ids");
    s->response = take_copy(&c, h.n_response, sizeof *s->response, "response ids");
    take_text(&s->prompt_text, &c, h.prompt_bytes, "prompt text");
    take_text(&s->response_text, &c, h.response_bytes, "response text");
    s->part = take_copy(&c, h.n_parts, sizeof *s->part, "parts of the score");
    for (int i = 0; i < SAMPLE_ARRAYS; i++)
        if (h.arrays >> i & 1)
            s->array[i] = take_copy(&c, h.n_response, sizeof(float), "per-token numbers");
    if (c.short_of || c.left) {
        sample_free(s);
        return c.short_of ? error_set(ERR_RUN, "the record of sample %lld is cut short in its %s",
                                      (long long)h.index, c.short_of)
                          : error_set(ERR_RUN, "the record of sample %lld has %zu bytes too many",
                                      (long long)h.index, c.left);
    }
    s->index = h.index;
    s->source = h.source;
    s->n_prompt = h.n_prompt;
    s->n_response = h.n_response;
    s->n_parts = h.n_parts;
    s->finished = h.finished;
    s->raw_score = h.raw_score;
    s->score = h.score;
    return 0;
}

struct sample *sample_list_add(struct sample_list *list)
{
    if (list->n == list->room) {
        list->room = list->room ? 2 * list->room : 64;
        list->sample = realloc(list->sample, (size_t)list->room * sizeof *list->sample);
        CHECK(list->sample, "out of memory for %lld samples", (long long)list->room);
    }
    struct sample *s = &list->sample[list->n++];
    *s = (struct sample){0};
    return s;
}

static int by_index(const void *a, const void *b)
{
    const int64_t i = ((const struct sample *)a)->index, j = ((const struct sample *)b)->index;
    return (i > j) - (i < j);
}

void sample_list_sort(struct sample_list *list)
{
    if (list->n > 1)
        qsort(list->sample, (size_t)list->n, sizeof *list->sample, by_index);
}

int64_t sample_list_tokens(const struct sample_list *list)
{
    int64_t n = 0;
    for (int64_t i = 0; i < list->n; i++)
        n += list->sample[i].n_response;
    return n;
}

void sample_list_clear(struct sample_list *list)
{
    for (int64_t i = 0; i < list->n; i++)
        sample_free(&list->sample[i]);
    list->n = 0;
}

void sample_list_free(struct sample_list *list)
{
    sample_list_clear(list);
    free(list->sample);
    *list = (struct sample_list){0};
}
