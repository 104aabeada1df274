/* Tries are walked from each position where a string can begin: the cost is bounded by the longest added token. */
#include "added_tokens.h"

#include "error.h"
#include "unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_CONTENT_BYTES = 4096 };

static const char *before_character(const char *text, const char *at)
{
    do
        at--;
    while (at > text && ((unsigned char)*at & 0xc0) == 0x80);
    return at;
}

/* \w of Rust's regex: Alphabetic, M, Nd, Pc, Join_Control; enclosed letters are the symbols that are alphabetic. */
static bool is_word(const char *at)
{
    uint32_t c;
    utf8_decode(&c, at);
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NL) || k == UTF8PROC_CATEGORY_PC ||
           c == 0x200c || c == 0x200d || (c >= 0x24b6 && c <= 0x24e9) ||
           (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
           (c >= 0x1f170 && c <= 0x1f189);
}

/* Where the white space before at begins, not before first. */
static size_t spaces_before(const char *text, size_t first, size_t at)
{
    while (at > first) {
        const char *last = before_character(text, text + at);
        uint32_t c;
        utf8_decode(&c, last);
        if (!unicode_is_space(c))
            break;
        at = (size_t)(last - text);
    }
    return at;
}

static size_t spaces_after(const char *text, size_t at, size_t n)
{
    while (at < n) {
        uint32_t c;
        size_t length = (size_t)utf8_decode(&c, text + at);
        if (!unicode_is_space(c))
            break;
        at += length;
    }
    return at;
}

static void add_part(struct parts *p, int32_t id, size_t start, size_t n)
{
    if (p->n == p->room) {
        p->room = p->room ? 2 * p->room : 64;
        p->at = realloc(p->at, p->room * sizeof *p->at);
        CHECK(p->at, "out of memory for %zu parts of a text", p->room);
    }
    p->at[p->n++] = (struct part){id, start, n};
}

void added_tokens_split(const struct added_tokens *a, const struct trie *trie, struct parts *parts,
                        const char *text, size_t n)
{
    size_t done = 0; /* the text up to here is in parts */
    parts->n = 0;
    for (size_t i = 0; trie->n && i < n;) {
        if (!trie->first[(unsigned char)text[i]]) {
            i++;
            continue;
        }
        int32_t index = 0;
        size_t length = trie_longest(trie, text + i, n - i, &index), start = i, stop = i + length;
        i += length ? length : 1;
        if (!length)
            continue;
        const struct added_token *t = &a->token[index];
        if (t->single_word && ((start > 0 && is_word(before_character(text, text + start))) ||
                               (stop < n && is_word(text + stop))))
            continue;
        if (t->lstrip)
            start = start > done ? spaces_before(text, done, start) : done;
        if (t->rstrip) /* up to done it is white space: a token before this one took it */
            stop = spaces_after(text, stop < done ? done : stop, n);
        if (start > done)
            add_part(parts, -1, done, start - done);
        add_part(parts, t->id, start, stop - start);
        done = stop;
    }
    if (done < n)
        add_part(parts, -1, done, n - done);
}

/* Reading the file */

static int read_flag(bool *out, const json_t *spec, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(spec, key);
    *out = value ? json_is_true(value) : otherwise;
    if (value && !json_is_boolean(value))
        return error_set(ERR_FILE, "added_tokens: \"%s\" must be true or false", key);
    return 0;
}

static int read_token(struct added_tokens *a, const json_t *spec, const struct vocab *model)
{
    const json_t *content = json_object_get(spec, "content"), *id = json_object_get(spec, "id");
    if (!json_is_string(content) || !json_is_integer(id))
        return error_set(ERR_FILE, "added_tokens: an entry without \"content\" and integer \"id\"");
    const char *text = json_string_value(content);
    size_t n = json_string_length(content);
    if (!n || n > MAX_CONTENT_BYTES)
        return error_set(ERR_FILE, "added_tokens: a content of %zu bytes (1 to %d are accepted)", n,
                         MAX_CONTENT_BYTES);
    struct added_token t = {0};
    TRY(read_flag(&t.special, spec, "special", false));
    TRY(read_flag(&t.normalized, spec, "normalized", !t.special));
    TRY(read_flag(&t.single_word, spec, "single_word", false));
    TRY(read_flag(&t.lstrip, spec, "lstrip", false));
    TRY(read_flag(&t.rstrip, spec, "rstrip", false));
    json_int_t number = json_integer_value(id);
    int32_t known = vocab_find(model, text, n);
    if (known >= 0 && known != number)
        return error_set(ERR_FILE, "added_tokens: \"%.100s\" has id %lld, but %d in the model",
                         text, (long long)number, known);
    if (known < 0 && number >= 0 && number < model->n_ids && model->entry[number].content)
        return error_set(ERR_FILE, "added_tokens: \"%.100s\" has id %lld, which is \"%.100s\"",
                         text, (long long)number, model->entry[number].content);
    if (vocab_add(&a->vocab, text, n, number))
        return error_context("added_tokens");
    t.id = (int32_t)number;
    a->token[a->n++] = t;
    return 0;
}

static int fill_tries(struct added_tokens *a, const struct normalizer *nz)
{
    struct normalizer_work work = {0};
    int rc = 0;
    for (int special = 1; special >= 0; special--) /* as Hugging Face orders them */
        for (int32_t i = 0; i < a->n && !rc; i++) {
            const struct added_token *t = &a->token[i];
            if (t->special != special)
                continue;
            const char *content = a->vocab.entry[t->id].content;
            size_t n = a->vocab.entry[t->id].n;
            if (t->normalized)
                rc = normalize(nz, &work, &content, &n);
            trie_add(t->normalized ? &a->normalized : &a->raw, content, n, i);
        }
    normalizer_work_free(&work);
    return rc;
}

int added_tokens_open(struct added_tokens *a, const json_t *list, const struct vocab *model,
                      const struct normalizer *nz)
{
    *a = (struct added_tokens){0};
    if (!list || json_is_null(list))
        return 0;
    if (!json_is_array(list))
        return error_set(ERR_FILE, "\"added_tokens\" must be an array");
    a->token = calloc(json_array_size(list) + 1, sizeof *a->token);
    CHECK(a->token, "out of memory for added tokens");
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(read_token(a, json_array_get(list, i), model));
    a->special = calloc((size_t)a->vocab.n_ids + 1, sizeof *a->special);
    CHECK(a->special, "out of memory for added tokens");
    for (int32_t i = 0; i < a->n; i++)
        a->special[a->token[i].id] = a->token[i].special;
    return fill_tries(a, nz);
}

void added_tokens_close(struct added_tokens *a)
{
    vocab_free(&a->vocab);
    free(a->token);
    free(a->special);
    trie_free(&a->raw);
    trie_free(&a->normalized);
    *a = (struct added_tokens){0};
}

bool added_tokens_special(const struct added_tokens *a, int32_t id)
{
    return id >= 0 && id < a->vocab.n_ids && a->special[id];
}
