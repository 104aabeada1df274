/* Samples and their records. A record is read field by field through one bounds-checked cursor with
 * a sticky error, so the reading code is a straight list as the writing code is. */
#include "sample.h"

#include "error.h"

#include <stdlib.h>
#include <string.h>

static const uint32_t RECORD_MAGIC = 0x314c5053; /* "SPL1" */

/* Copies n bytes, from nowhere if there are none; returns what lies behind them. */
static void *put(void *at, const void *from, size_t n)
{
    if (n)
        memcpy(at, from, n);
    return (unsigned char *)at + n;
}

/* Memory for n items where there was room for fewer; what it held is gone. */
static void *larger(void *memory, int32_t *room, int32_t n, size_t size)
{
    if (n <= *room)
        return memory;
    free(memory);
    memory = malloc((size_t)n * size);
    CHECK(memory, "out of memory for %d x %zu bytes of a sample", n, size);
    *room = n;
    return memory;
}

static void reserve_prompt(struct sample *s, int32_t n)
{
    s->prompt = larger(s->prompt, &s->room.n_prompt, n, sizeof *s->prompt);
}

static void drop_arrays(struct sample *s)
{
    for (int i = 0; i < SAMPLE_ARRAYS; i++) {
        free(s->array[i]);
        s->array[i] = NULL;
    }
}

static void reserve_response(struct sample *s, int32_t n)
{
    if (n > s->room.n_response)
        drop_arrays(s);
    s->response = larger(s->response, &s->room.n_response, n, sizeof *s->response);
}

/* As long as the longest response that there is room for. */
static void reserve_array(struct sample *s, enum sample_array which)
{
    int32_t room = s->array[which] ? s->room.n_response : 0;
    s->array[which] = larger(s->array[which], &room, s->room.n_response, sizeof(float));
}

static void reserve_parts(struct sample *s, int32_t n)
{
    s->part = larger(s->part, &s->room.n_parts, n, sizeof *s->part);
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

void sample_clear(struct sample *s)
{
    struct sample kept = *s;
    *s = (struct sample){.prompt = kept.prompt,
                         .response = kept.response,
                         .part = kept.part,
                         .prompt_text = kept.prompt_text,
                         .response_text = kept.response_text,
                         .room = kept.room};
    memcpy(s->array, kept.array, sizeof s->array);
    text_clear(&s->prompt_text);
    text_clear(&s->response_text);
}

void sample_set_prompt(struct sample *s, const int32_t *ids, int32_t n)
{
    reserve_prompt(s, n);
    s->n_prompt = n;
    put(s->prompt, ids, (size_t)n * sizeof *ids);
}

void sample_set_response(struct sample *s, const int32_t *ids, int32_t n)
{
    reserve_response(s, n);
    s->n_response = n;
    s->arrays = 0;
    put(s->response, ids, (size_t)n * sizeof *ids);
}

float *sample_array(struct sample *s, enum sample_array which)
{
    reserve_array(s, which);
    if (!sample_has(s, which) && s->n_response)
        memset(s->array[which], 0, (size_t)s->n_response * sizeof(float));
    s->arrays |= 1u << which;
    return s->array[which];
}

bool sample_has(const struct sample *s, enum sample_array which)
{
    return s->arrays >> which & 1;
}

void sample_set_parts(struct sample *s, const double *part, int32_t n)
{
    reserve_parts(s, n);
    s->n_parts = n;
    put(s->part, part, (size_t)n * sizeof *part);
}

int32_t sample_ids(int32_t *ids, const struct sample *s)
{
    put(put(ids, s->prompt, (size_t)s->n_prompt * sizeof *ids), s->response, (size_t)s->n_response * sizeof *ids);
    return s->n_prompt + s->n_response;
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

static size_t record_bytes(const struct sample_size *n, int n_arrays)
{
    return sizeof(struct header) + ((size_t)n->n_prompt + (size_t)n->n_response) * sizeof(int32_t) + n->prompt_bytes +
           n->response_bytes + (size_t)n->n_parts * sizeof(double) +
           (size_t)n_arrays * (size_t)n->n_response * sizeof(float);
}

size_t sample_bytes_max(const struct sample_size *size)
{
    return record_bytes(size, SAMPLE_ARRAYS);
}

size_t sample_bytes(const struct sample *s)
{
    struct sample_size n = {s->n_prompt, s->n_response, s->n_parts, s->prompt_text.n, s->response_text.n};
    int n_arrays = 0;
    for (int i = 0; i < SAMPLE_ARRAYS; i++)
        n_arrays += sample_has(s, (enum sample_array)i);
    return record_bytes(&n, n_arrays);
}

void sample_write(void *out, const struct sample *s)
{
    struct header h = {
        .magic = RECORD_MAGIC,
        .arrays = s->arrays,
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
    void *at = put(out, &h, sizeof h);
    at = put(at, s->prompt, (size_t)s->n_prompt * sizeof *s->prompt);
    at = put(at, s->response, (size_t)s->n_response * sizeof *s->response);
    at = put(at, s->prompt_text.bytes, s->prompt_text.n);
    at = put(at, s->response_text.bytes, s->response_text.n);
    at = put(at, s->part, (size_t)s->n_parts * sizeof *s->part);
    for (int i = 0; i < SAMPLE_ARRAYS; i++)
        if (sample_has(s, (enum sample_array)i))
            at = put(at, s->array[i], (size_t)s->n_response * sizeof(float));
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

/* A count of the header; a negative one never fits. */
static const void *take_items(struct cursor *c, int32_t n, size_t size, const char *field)
{
    return take(c, n < 0 ? UINT64_MAX : (uint64_t)n, size, field);
}

static void take_text(struct text *out, struct cursor *c, uint64_t n, const char *field)
{
    const void *found = take(c, n, 1, field);
    if (found)
        text_add(out, found, n);
}

int sample_read(struct sample *s, const void *bytes, size_t n)
{
    struct cursor c = {.at = bytes, .left = n};
    struct header h = {0};
    const void *head = take(&c, 1, sizeof h, "header");
    sample_clear(s);
    if (!head)
        return error_set(ERR_RUN, "a sample's record of %zu bytes is too short for its header", n);
    memcpy(&h, head, sizeof h);
    if (h.magic != RECORD_MAGIC || h.arrays >> SAMPLE_ARRAYS ||
        (h.finished != 0 && h.finished != 1))
        return error_set(ERR_RUN, "a sample's record does not start as one (%08x)",
                         (unsigned)h.magic);
    const void *prompt = take_items(&c, h.n_prompt, sizeof *s->prompt, "prompt ids");
    const void *response = take_items(&c, h.n_response, sizeof *s->response, "response ids");
    if (prompt)
        sample_set_prompt(s, prompt, h.n_prompt);
    if (response)
        sample_set_response(s, response, h.n_response);
    take_text(&s->prompt_text, &c, h.prompt_bytes, "prompt text");
    take_text(&s->response_text, &c, h.response_bytes, "response text");
    const void *part = take_items(&c, h.n_parts, sizeof *s->part, "parts of the score");
    if (part)
        sample_set_parts(s, part, h.n_parts);
    for (int i = 0; i < SAMPLE_ARRAYS; i++) {
        const void *array = h.arrays >> i & 1 ? take_items(&c, h.n_response, sizeof(float), "per-token numbers") : NULL;
        if (array)
            put(sample_array(s, (enum sample_array)i), array, (size_t)h.n_response * sizeof(float));
    }
    if (c.short_of || c.left) {
        sample_clear(s);
        return c.short_of ? error_set(ERR_RUN, "the record of sample %lld is cut short in its %s",
                                      (long long)h.index, c.short_of)
                          : error_set(ERR_RUN, "the record of sample %lld has %zu bytes too many",
                                      (long long)h.index, c.left);
    }
    s->index = h.index;
    s->source = h.source;
    s->finished = h.finished;
    s->raw_score = h.raw_score;
    s->score = h.score;
    return 0;
}

static void list_reserve(struct sample_list *list, int64_t n)
{
    int64_t room = list->room ? 2 * list->room : 64;
    if (n <= list->room)
        return;
    room = room > n ? room : n;
    list->sample = realloc(list->sample, (size_t)room * sizeof *list->sample);
    CHECK(list->sample, "out of memory for %lld samples", (long long)room);
    memset(list->sample + list->room, 0, (size_t)(room - list->room) * sizeof *list->sample);
    list->room = room;
}

void sample_list_reserve(struct sample_list *list, int64_t n, const struct sample_size *size)
{
    list_reserve(list, n);
    for (int64_t i = 0; i < n; i++) {
        struct sample *s = &list->sample[i];
        reserve_prompt(s, size->n_prompt);
        reserve_response(s, size->n_response);
        for (int k = 0; k < SAMPLE_ARRAYS; k++)
            reserve_array(s, (enum sample_array)k);
        reserve_parts(s, size->n_parts);
        text_reserve(&s->prompt_text, size->prompt_bytes);
        text_reserve(&s->response_text, size->response_bytes);
    }
}

struct sample *sample_list_add(struct sample_list *list)
{
    list_reserve(list, list->n + 1);
    struct sample *s = &list->sample[list->n++];
    sample_clear(s);
    return s;
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
    list->n = 0;
}

void sample_list_free(struct sample_list *list)
{
    for (int64_t i = 0; i < list->room; i++)
        sample_free(&list->sample[i]);
    free(list->sample);
    *list = (struct sample_list){0};
}
