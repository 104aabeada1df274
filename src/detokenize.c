/* Steps pass on a list of strings, as spans of one buffer: most look at each string, some join neighbours. */
#include "detokenize.h"

#include "error.h"
#include "unicode.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 64, MAX_NESTING = 16 };

struct detokenizer_step {
    int (*run)(const struct detokenizer_step *s, struct detokenizer_work *w, struct strings *out, const struct strings *in);
    struct pattern pattern; /* Replace */
    struct text
        content; /* Replace: by what; Strip, Metaspace, BPEDecoder: the character or suffix; WordPiece: the prefix */
    int64_t start, stop; /* Strip */
    bool keep_first;     /* Metaspace: the first space stays */
    bool cleanup;        /* WordPiece */
};

static void reserve_strings(struct spans *l, size_t n)
{
    size_t room = l->room ? 2 * l->room : 64;
    if (n <= l->room)
        return;
    l->room = room > n ? room : n;
    l->at = realloc(l->at, l->room * sizeof *l->at);
    CHECK(l->at, "out of memory for %zu strings", l->room);
}

/* Unlike spans_add, an empty one counts. */
static void begin_string(struct strings *s)
{
    struct spans *l = &s->list;
    reserve_strings(l, l->n + 1);
    l->at[l->n++] = (struct span){s->bytes.n, 0};
}

static void end_string(struct strings *s)
{
    struct span *last = &s->list.at[s->list.n - 1];
    last->n = s->bytes.n - last->start;
}

static void add_string(struct strings *s, const char *bytes, size_t n)
{
    begin_string(s);
    text_add(&s->bytes, bytes, n);
    end_string(s);
}

static const char *string_at(const struct strings *s, size_t i, size_t *n)
{
    *n = s->list.at[i].n;
    return text_string(&s->bytes) + s->list.at[i].start;
}

/* Appends the bytes that the characters stand for, or the token as it is where one stands for none. */
static void add_token_bytes(struct text *out, const char *token, size_t n)
{
    size_t before = out->n;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += (size_t)utf8_decode(&c, token + i);
        int byte = byte_level_byte(c);
        if (byte < 0) {
            out->n = before;
            text_add(out, token, n);
            return;
        }
        char b = (char)byte;
        text_add(out, &b, 1);
    }
}

static int run_byte_level(const struct detokenizer_step *s, struct detokenizer_work *w, struct strings *out,
                          const struct strings *in)
{
    (void)s;
    text_clear(&w->bytes);
    for (size_t i = 0; i < in->list.n; i++) {
        size_t n;
        const char *token = string_at(in, i, &n);
        add_token_bytes(&w->bytes, token, n);
    }
    begin_string(out);
    utf8_repair(&out->bytes, text_string(&w->bytes), w->bytes.n);
    end_string(out);
    return 0;
}

static int run_replace(const struct detokenizer_step *s, struct detokenizer_work *w, struct strings *out,
                       const struct strings *in)
{
    int rc = 0;
    for (size_t i = 0; i < in->list.n && !rc; i++) {
        size_t n;
        const char *token = string_at(in, i, &n);
        begin_string(out);
        rc = pattern_replace(&s->pattern, &w->pattern, &out->bytes, token, n, text_string(&s->content),
                             s->content.n);
        end_string(out);
    }
    return rc;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* The byte of <0xHH>, or -1. */
static int fallback_byte(const char *token, size_t n)
{
    if (n != 6 || memcmp(token, "<0x", 3) || token[5] != '>')
        return -1;
    int high = hex_digit(token[3]), low = hex_digit(token[4]);
    return high < 0 || low < 0 ? -1 : high * 16 + low;
}

/* A run of bytes: its text, or one U+FFFD for each byte. */
static void add_bytes(struct strings *out, struct text *bytes)
{
    if (!bytes->n)
        return;
    if (utf8_check(bytes->bytes, bytes->n) == bytes->n)
        add_string(out, bytes->bytes, bytes->n);
    else
        for (size_t i = 0; i < bytes->n; i++)
            add_string(out, "\xef\xbf\xbd", 3);
    text_clear(bytes);
}

static int run_byte_fallback(const struct detokenizer_step *s, struct detokenizer_work *w, struct strings *out,
                             const struct strings *in)
{
    (void)s;
    text_clear(&w->bytes);
    for (size_t i = 0; i < in->list.n; i++) {
        size_t n;
        const char *token = string_at(in, i, &n);
        int byte = fallback_byte(token, n);
        if (byte >= 0) {
            char b = (char)byte;
            text_add(&w->bytes, &b, 1);
            continue;
        }
        add_bytes(out, &w->bytes);
        add_string(out, token, n);
    }
    add_bytes(out, &w->bytes);
    return 0;
}

static int run_fuse(const struct detokenizer_step *s, struct detokenizer_work *w, struct strings *out,
                    const struct strings *in)
{
    (void)s;
    (void)w;
    begin_string(out);
    for (size_t i = 0; i < in->list.n; i++) {
        size_t n;
        const char *token = string_at(in, i, &n);
        text_add(&out->bytes, token, n);
    }
    end_string(out);
    return 0;
}

static int run_strip(const struct detokenizer_step *s, struct detokenizer_work *w, struct strings *out,
                     const struct strings *in)
{
    (void)w;
    const char *cut = text_string(&s->content);
    size_t length = s->content.n;
    for (size_t i = 0; i < in->list.n; i++) {
        size_t n;
        const char *token = string_at(in, i, &n);
        for (int64_t k = 0; k < s->start && n >= length && !memcmp(token, cut, length); k++) {
            token += length;
            n -= length;
        }
        for (int64_t k = 0; k < s->stop && n >= length && !memcmp(token + n - length, cut, length);
             k++)
            n -= length;
        add_string(out, token, n);
    }
    return 0;
}

static int run_metaspace(const struct detokenizer_step *s, struct detokenizer_work *w, struct strings *out,
                         const struct strings *in)
{
    (void)w;
    for (size_t i = 0; i < in->list.n; i++) {
        size_t n, length = s->content.n;
        const char *token = string_at(in, i, &n);
        begin_string(out);
        for (size_t k = 0; k < n;) {
            if (n - k >= length && !memcmp(token + k, s->content.bytes, length)) {
                if (i > 0 || s->keep_first)
                    text_add(&out->bytes, " ", 1);
                k += length;
            } else {
                text_add(&out->bytes, token + k, 1);
                k++;
            }
        }
        end_string(out);
    }
    return 0;
}

static int run_bpe(const struct detokenizer_step *s, struct detokenizer_work *w, struct strings *out,
                   const struct strings *in)
{
    int rc = 0;
    for (size_t i = 0; i < in->list.n && !rc; i++) {
        size_t n;
        const char *token = string_at(in, i, &n);
        begin_string(out);
        rc = pattern_replace(&s->pattern, &w->pattern, &out->bytes, token, n, " ",
                             i + 1 < in->list.n ? 1 : 0);
        end_string(out);
    }
    return rc;
}

/* Spaces that a list of words has and a text has not: each rule runs over the token before the next one does. */
static const struct {
    const char *from, *to;
} CLEANUP[] = {{" .", "."},   {" ?", "?"},   {" !", "!"},          {" ,", ","},   {" ' ", "'"},  {" n't", "n't"},
               {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
enum { N_CLEANUP = sizeof CLEANUP / sizeof *CLEANUP };

/* Shortens a token in place; no rule makes it longer. Returns its new length. */
static size_t clean_up(char *token, size_t n)
{
    for (int i = 0; i < N_CLEANUP; i++) {
        const size_t from_n = strlen(CLEANUP[i].from), to_n = strlen(CLEANUP[i].to);
        size_t kept = 0;
        for (size_t k = 0; k < n;) {
            if (n - k >= from_n && !memcmp(token + k, CLEANUP[i].from, from_n)) {
                memcpy(token + kept, CLEANUP[i].to, to_n);
                kept += to_n;
                k += from_n;
            } else {
                token[kept++] = token[k++];
            }
        }
        n = kept;
    }
    return n;
}

static int run_wordpiece(const struct detokenizer_step *s, struct detokenizer_work *w, struct strings *out,
                         const struct strings *in)
{
    (void)w;
    for (size_t i = 0; i < in->list.n; i++) {
        size_t n, start = out->bytes.n, prefix = s->content.n;
        const char *token = string_at(in, i, &n);
        const bool continues = i && n >= prefix && !memcmp(token, text_string(&s->content), prefix);
        begin_string(out);
        if (i && !continues)
            text_add(&out->bytes, " ", 1);
        text_add(&out->bytes, token + (continues ? prefix : 0), n - (continues ? prefix : 0));
        if (s->cleanup && out->bytes.n > start)
            out->bytes.n = start + clean_up(out->bytes.bytes + start, out->bytes.n - start);
        end_string(out);
    }
    return 0;
}

/* Reading the file */

static int read_content(struct text *out, const json_t *spec, const char *key, bool one_character)
{
    const json_t *value = json_object_get(spec, key);
    if (!json_is_string(value))
        return error_set(ERR_FILE, "decoder: \"%s\" must be a string", key);
    text_add(out, json_string_value(value), json_string_length(value));
    if (one_character && (!out->n || (size_t)utf8_length(out->bytes[0]) != out->n))
        return error_set(ERR_FILE, "decoder: \"%s\" must be one character", key);
    return 0;
}

static int read_count(int64_t *out, const json_t *spec, const char *key)
{
    const json_t *value = json_object_get(spec, key);
    *out = json_integer_value(value);
    if (!json_is_integer(value) || *out < 0)
        return error_set(ERR_FILE, "decoder: \"%s\" must be a count", key);
    return 0;
}

static int open_step(struct detokenizer_step *s, const json_t *spec, const char *type)
{
    if (!strcmp(type, "ByteLevel")) {
        s->run = run_byte_level;
    } else if (!strcmp(type, "ByteFallback")) {
        s->run = run_byte_fallback;
    } else if (!strcmp(type, "Fuse")) {
        s->run = run_fuse;
    } else if (!strcmp(type, "Replace")) {
        s->run = run_replace;
        TRY(read_content(&s->content, spec, "content", false));
        TRY(pattern_open(&s->pattern, json_object_get(spec, "pattern")));
    } else if (!strcmp(type, "Strip")) {
        s->run = run_strip;
        TRY(read_content(&s->content, spec, "content", true));
        TRY(read_count(&s->start, spec, "start"));
        TRY(read_count(&s->stop, spec, "stop"));
    } else if (!strcmp(type, "Metaspace")) {
        const char *scheme = json_string_value(json_object_get(spec, "prepend_scheme"));
        s->run = run_metaspace;
        s->keep_first = scheme ? !strcmp(scheme, "never")
                               : json_is_false(json_object_get(spec, "add_prefix_space"));
        TRY(read_content(&s->content, spec, "replacement", true));
    } else if (!strcmp(type, "BPEDecoder")) {
        s->run = run_bpe;
        TRY(read_content(&s->content, spec, "suffix", false));
        TRY(pattern_open_literal(&s->pattern, text_string(&s->content), s->content.n));
    } else if (!strcmp(type, "WordPiece")) {
        const json_t *cleanup = json_object_get(spec, "cleanup");
        s->run = run_wordpiece;
        s->cleanup = json_is_true(cleanup);
        TRY(read_content(&s->content, spec, "prefix", false));
        if (!json_is_boolean(cleanup))
            return error_set(ERR_FILE, "decoder: \"cleanup\" must be true or false");
    } else {
        return error_set(ERR_FILE,
                         "decoder type \"%.60s\" is not supported (ByteLevel, ByteFallback, Fuse, "
                         "Replace, Strip, Metaspace, BPEDecoder, WordPiece, Sequence are)",
                         type);
    }
    return 0;
}

static int open_steps(struct detokenizer *d, const json_t *spec, int nesting)
{
    const char *type = json_string_value(json_object_get(spec, "type"));
    if (!type)
        return error_set(ERR_FILE, "decoder: \"type\" must be a string");
    if (strcmp(type, "Sequence")) {
        if (d->n_steps == MAX_STEPS)
            return error_set(ERR_FILE, "decoder: more than %d steps", MAX_STEPS);
        TRY(open_step(&d->step[d->n_steps++], spec, type));
        return 0;
    }
    const json_t *list = json_object_get(spec, "decoders");
    if (!json_is_array(list) || nesting == MAX_NESTING)
        return error_set(ERR_FILE, "decoder: \"decoders\" must be an array, nested at most %d deep",
                         MAX_NESTING);
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(open_steps(d, json_array_get(list, i), nesting + 1));
    return 0;
}

int detokenizer_open(struct detokenizer *d, const json_t *spec)
{
    *d = (struct detokenizer){0};
    if (!spec || json_is_null(spec))
        return 0;
    d->step = calloc(MAX_STEPS, sizeof *d->step);
    CHECK(d->step, "out of memory for a decoder");
    return open_steps(d, spec, 0);
}

void detokenizer_close(struct detokenizer *d)
{
    for (int i = 0; i < d->n_steps; i++) {
        pattern_close(&d->step[i].pattern);
        text_free(&d->step[i].content);
    }
    free(d->step);
    *d = (struct detokenizer){0};
}

size_t detokenizer_growth(const struct detokenizer *d)
{
    size_t growth = 1;
    for (int i = 0; i < d->n_steps; i++) {
        const struct detokenizer_step *s = &d->step[i];
        if (s->run == run_byte_level)
            growth *= 2; /* a character of 2 bytes is a byte, and that byte may become a U+FFFD of 3 */
        else if (s->run == run_replace && s->content.n > s->pattern.n)
            growth *= 1 + s->content.n; /* a regex may match the empty string at each byte */
    }
    return growth;
}

void detokenizer_work_reserve(struct detokenizer_work *w, size_t n, size_t bytes)
{
    for (int i = 0; i < 2; i++) {
        text_reserve(&w->list[i].bytes, bytes);
        reserve_strings(&w->list[i].list, n);
    }
    text_reserve(&w->bytes, bytes);
}

void detokenizer_work_free(struct detokenizer_work *w)
{
    for (int i = 0; i < 2; i++) {
        text_free(&w->list[i].bytes);
        free(w->list[i].list.at);
    }
    text_free(&w->bytes);
    pattern_work_free(&w->pattern);
    *w = (struct detokenizer_work){0};
}

static void clear_strings(struct strings *s)
{
    text_clear(&s->bytes);
    s->list.n = 0;
}

int detokenize(const struct detokenizer *d, struct detokenizer_work *w, struct text *out,
               const struct vocab_entry *const *tokens, size_t n)
{
    struct strings *now = &w->list[0], *next = &w->list[1];
    clear_strings(now);
    for (size_t i = 0; i < n; i++)
        add_string(now, tokens[i]->content, tokens[i]->n);
    for (int i = 0; i < d->n_steps; i++) {
        clear_strings(next);
        TRY(d->step[i].run(&d->step[i], w, next, now));
        struct strings *done = now;
        now = next;
        next = done;
    }
    for (size_t i = 0; i < now->list.n; i++) {
        size_t length;
        const char *string = string_at(now, i, &length);
        if (i && !d->step)
            text_add(out, " ", 1);
        text_add(out, string, length);
    }
    return 0;
}
