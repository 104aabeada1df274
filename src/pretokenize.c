/* A list of steps, each of which takes the words so far and splits each further, or rewrites the text under them.
 *
 * A splitting step turns a word into pieces, each a match or what lies between two, and then one of the five behaviours
 * joins or drops pieces; the order of these two halves is that of Hugging Face's NormalizedString::split. */
#include "pretokenize.h"

#include "categories.h"
#include "error.h"
#include "unicode.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_STEPS = 64, MAX_NESTING = 16 };
enum behavior { ISOLATED, REMOVED, CONTIGUOUS, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT };

struct piece {
    size_t start, end;
    bool match;
};

struct pretokenizer_step {
    int (*run)(const struct pretokenizer *p, const struct pretokenizer_step *s,
               struct pretokenizer_work *w, bool at_start);
    enum behavior behavior;
    bool invert;
    struct pattern pattern;       /* splits at matches of it .. */
    bool (*is_match)(uint32_t c); /* .. or at characters .. */
    scan_word scan;               /* .. or into the words of a known regex */
    char replacement[8];          /* Metaspace */
    enum { ALWAYS, FIRST, NEVER } prepend;
};

/* Byte-level characters */

uint32_t byte_level_char(unsigned char byte)
{
    if ((byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae)
        return byte;
    if (byte <= 0x20)
        return 0x100u + byte;
    if (byte == 0xad)
        return 0x143;
    return 0x121u + (byte - 0x7fu); /* 7f to a0 */
}

int byte_level_byte(uint32_t c)
{
    if ((c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff))
        return (int)c;
    if (c >= 0x100 && c <= 0x120)
        return (int)(c - 0x100);
    if (c >= 0x121 && c <= 0x142)
        return (int)(c - 0x121 + 0x7f);
    return c == 0x143 ? 0xad : -1;
}

void byte_level_add(struct text *out, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c[4];
        text_add(out, c, (size_t)utf8_encode(c, byte_level_char((unsigned char)bytes[i])));
    }
}

/* Words and pieces */

void spans_add(struct spans *s, size_t start, size_t n)
{
    if (!n)
        return;
    if (s->n == s->room) {
        s->room = s->room ? 2 * s->room : 64;
        s->at = realloc(s->at, s->room * sizeof *s->at);
        CHECK(s->at, "out of memory for %zu words", s->room);
    }
    s->at[s->n++] = (struct span){start, n};
}

static void add_piece(struct pretokenizer_work *w, size_t start, size_t end, bool match)
{
    if (w->n_pieces == w->room_pieces) {
        w->room_pieces = w->room_pieces ? 2 * w->room_pieces : 64;
        w->piece = realloc(w->piece, w->room_pieces * sizeof *w->piece);
        CHECK(w->piece, "out of memory for %zu pieces", w->room_pieces);
    }
    w->piece[w->n_pieces++] = (struct piece){start, end, match};
}

/* Makes the list of new words the list of words. */
static void swap_words(struct pretokenizer_work *w)
{
    struct spans words = w->words;
    w->words = w->other;
    w->other = words;
    w->other.n = 0;
}

static void add_joined(struct pretokenizer_work *w, const struct pretokenizer_step *s)
{
    const struct piece *p = w->piece;
    size_t n = w->n_pieces;
    for (size_t i = 0; i < n;) {
        size_t j = i + 1;
        bool drop = false;
        switch (s->behavior) {
        case ISOLATED:
            break;
        case REMOVED:
            drop = p[i].match;
            break;
        case CONTIGUOUS:
            while (j < n && p[j].match == p[i].match)
                j++;
            break;
        case MERGED_WITH_PREVIOUS: /* a match joins what is no match before it */
            if (j < n && !p[i].match && p[j].match)
                j++;
            break;
        case MERGED_WITH_NEXT:
            if (j < n && p[i].match && !p[j].match)
                j++;
            break;
        }
        if (!drop)
            spans_add(&w->other, p[i].start, p[j - 1].end - p[i].start);
        i = j;
    }
}

/* Steps */

static int find_pieces(const struct pretokenizer_step *s, struct pretokenizer_work *w,
                       struct span word)
{
    struct match m = {.text = w->text + word.start, .n = word.n};
    size_t done = 0;
    for (;;) {
        int rc = pattern_next(&s->pattern, &w->pattern, &m);
        if (rc < 0)
            return -1;
        if (rc == 0)
            break;
        if (m.start > done)
            add_piece(w, word.start + done, word.start + m.start, s->invert);
        add_piece(w, word.start + m.start, word.start + m.end, !s->invert);
        done = m.end;
    }
    if (done < word.n)
        add_piece(w, word.start + done, word.start + word.n, s->invert);
    return 0;
}

static int run_split(const struct pretokenizer *p, const struct pretokenizer_step *s,
                     struct pretokenizer_work *w, bool at_start)
{
    (void)p;
    (void)at_start;
    for (size_t i = 0; i < w->words.n; i++) {
        w->n_pieces = 0;
        TRY(find_pieces(s, w, w->words.at[i]));
        add_joined(w, s);
    }
    swap_words(w);
    return 0;
}

static int run_split_characters(const struct pretokenizer *p, const struct pretokenizer_step *s,
                                struct pretokenizer_work *w, bool at_start)
{
    (void)p;
    (void)at_start;
    for (size_t i = 0; i < w->words.n; i++) {
        size_t at = w->words.at[i].start, end = at + w->words.at[i].n, done = at;
        w->n_pieces = 0;
        while (at < end) {
            uint32_t c;
            size_t length = (size_t)utf8_decode(&c, w->text + at);
            if (s->is_match(c)) {
                if (at > done)
                    add_piece(w, done, at, false);
                add_piece(w, at, at + length, true);
                done = at + length;
            }
            at += length;
        }
        if (end > done)
            add_piece(w, done, end, false);
        add_joined(w, s);
    }
    swap_words(w);
    return 0;
}

static int run_scan(const struct pretokenizer *p, const struct pretokenizer_step *s,
                    struct pretokenizer_work *w, bool at_start)
{
    (void)at_start;
    for (size_t i = 0; i < w->words.n; i++) {
        const char *text = w->text + w->words.at[i].start;
        size_t n = w->words.at[i].n;
        for (size_t at = 0, end; at < n; at = end) {
            end = s->scan(p->classes, text, at, n);
            spans_add(&w->other, (size_t)(text - w->text) + at, end - at);
        }
    }
    swap_words(w);
    return 0;
}

/* The buffer that the words do not stand in, emptied. */
static struct text *free_buffer(struct pretokenizer_work *w)
{
    struct text *out = &w->buffer[w->buffer[0].bytes && w->text == w->buffer[0].bytes];
    text_clear(out);
    return out;
}

static int run_prefix_space(const struct pretokenizer *p, const struct pretokenizer_step *s,
                            struct pretokenizer_work *w, bool at_start)
{
    (void)p;
    (void)s;
    (void)at_start;
    struct text *out = free_buffer(w);
    for (size_t i = 0; i < w->words.n; i++) {
        const char *word = w->text + w->words.at[i].start;
        size_t start = out->n;
        if (word[0] != ' ')
            text_add(out, " ", 1);
        text_add(out, word, w->words.at[i].n);
        spans_add(&w->other, start, out->n - start);
    }
    w->text = text_string(out);
    swap_words(w);
    return 0;
}

static int run_bytes(const struct pretokenizer *p, const struct pretokenizer_step *s,
                     struct pretokenizer_work *w, bool at_start)
{
    (void)p;
    (void)s;
    (void)at_start;
    struct text *out = free_buffer(w);
    for (size_t i = 0; i < w->words.n; i++) {
        size_t start = out->n;
        byte_level_add(out, w->text + w->words.at[i].start, w->words.at[i].n);
        spans_add(&w->other, start, out->n - start);
    }
    w->text = text_string(out);
    swap_words(w);
    return 0;
}

static int run_metaspace(const struct pretokenizer *p, const struct pretokenizer_step *s,
                         struct pretokenizer_work *w, bool at_start)
{
    (void)p;
    struct text *out = free_buffer(w);
    size_t length = strlen(s->replacement);
    for (size_t i = 0; i < w->words.n; i++) {
        const char *word = w->text + w->words.at[i].start;
        size_t n = w->words.at[i].n, start = out->n;
        bool starts = word[0] == ' ' || (n >= length && !memcmp(word, s->replacement, length));
        if (!starts && (s->prepend == ALWAYS || (s->prepend == FIRST && at_start && i == 0)))
            text_add(out, s->replacement, length);
        for (size_t done = 0; done < n;) {
            const char *space = memchr(word + done, ' ', n - done);
            size_t end = space ? (size_t)(space - word) : n;
            text_add(out, word + done, end - done);
            if (space)
                text_add(out, s->replacement, length);
            done = end + (space != NULL);
        }
        spans_add(&w->other, start, out->n - start);
    }
    w->text = text_string(out);
    swap_words(w);
    return 0;
}

/* Reading the file */

static int read_bool(bool *out, const json_t *spec, const char *key, bool otherwise)
{
    const json_t *value = json_object_get(spec, key);
    *out = value ? json_is_true(value) : otherwise;
    if (value && !json_is_boolean(value))
        return error_set(ERR_FILE, "pre_tokenizer: \"%s\" must be true or false", key);
    return 0;
}

static int read_behavior(enum behavior *out, const json_t *spec, const char *otherwise)
{
    static const char *const names[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious",
                                        "MergedWithNext"};
    const json_t *value = json_object_get(spec, "behavior");
    const char *name = value ? json_string_value(value) : otherwise;
    for (int i = 0; name && i < 5; i++)
        if (!strcmp(name, names[i])) {
            *out = (enum behavior)i;
            return 0;
        }
    return error_set(ERR_FILE, "pre_tokenizer: unknown behavior \"%.60s\"", name ? name : "");
}

static int add_step(struct pretokenizer *p, struct pretokenizer_step step)
{
    if (p->n_steps == MAX_STEPS) {
        pattern_close(&step.pattern);
        return error_set(ERR_FILE, "pre_tokenizer: more than %d steps", MAX_STEPS);
    }
    p->step[p->n_steps++] = step;
    return 0;
}

static int open_byte_level(struct pretokenizer *p, const json_t *spec)
{
    bool prefix, regex;
    TRY(read_bool(&prefix, spec, "add_prefix_space", true));
    TRY(read_bool(&regex, spec, "use_regex", true));
    if (prefix)
        TRY(add_step(p, (struct pretokenizer_step){.run = run_prefix_space}));
    if (regex)
        TRY(add_step(p, (struct pretokenizer_step){.run = run_scan, .scan = scan_gpt2}));
    return add_step(p, (struct pretokenizer_step){.run = run_bytes});
}

static int open_split(struct pretokenizer *p, const json_t *spec)
{
    struct pretokenizer_step s = {.run = run_split};
    TRY(read_behavior(&s.behavior, spec, ""));
    TRY(read_bool(&s.invert, spec, "invert", false));
    const char *regex =
        json_string_value(json_object_get(json_object_get(spec, "pattern"), "Regex"));
    s.scan = regex ? scan_find(regex) : NULL;
    if (s.scan && (s.behavior == ISOLATED || (s.behavior == REMOVED && s.invert)))
        s.run = run_scan;
    else if (pattern_open(&s.pattern, json_object_get(spec, "pattern"))) {
        pattern_close(&s.pattern);
        return error_context("pre_tokenizer");
    }
    return add_step(p, s);
}

static int open_metaspace(struct pretokenizer *p, const json_t *spec)
{
    struct pretokenizer_step s = {.run = run_metaspace, .prepend = ALWAYS};
    const json_t *replacement = json_object_get(spec, "replacement");
    size_t n = json_string_length(replacement);
    const char *text = json_string_value(replacement);
    if (!text || n == 0 || n > 4 || (size_t)utf8_length(text[0]) != n || !text[0])
        return error_set(ERR_FILE, "pre_tokenizer: \"replacement\" must be one character");
    memcpy(s.replacement, text, n);
    const char *scheme = json_string_value(json_object_get(spec, "prepend_scheme"));
    bool prefix, split;
    TRY(read_bool(&prefix, spec, "add_prefix_space", true)); /* files before prepend_scheme */
    TRY(read_bool(&split, spec, "split", true));
    if (scheme && !strcmp(scheme, "first"))
        s.prepend = FIRST;
    else if (scheme ? !strcmp(scheme, "never") : !prefix)
        s.prepend = NEVER;
    else if (scheme && strcmp(scheme, "always"))
        return error_set(ERR_FILE, "pre_tokenizer: unknown prepend_scheme \"%.60s\"", scheme);
    TRY(add_step(p, s));
    if (!split)
        return 0;
    struct pretokenizer_step cut = {.run = run_split, .behavior = MERGED_WITH_NEXT};
    TRY(pattern_open_literal(&cut.pattern, text, n));
    return add_step(p, cut);
}

static int open_bert(struct pretokenizer *p)
{
    TRY(add_step(p, (struct pretokenizer_step){
                        .run = run_split_characters, .behavior = REMOVED, .is_match = unicode_is_space}));
    return add_step(p, (struct pretokenizer_step){
                           .run = run_split_characters, .behavior = ISOLATED, .is_match = category_is_punctuation});
}

static int open_words(struct pretokenizer *p, const json_t *spec, const char *type)
{
    struct pretokenizer_step s = {.run = run_split_characters};
    if (!strcmp(type, "Digits")) {
        bool each;
        TRY(read_bool(&each, spec, "individual_digits", false));
        s.behavior = each ? ISOLATED : CONTIGUOUS;
        s.is_match = category_is_numeric;
    } else if (!strcmp(type, "Punctuation")) {
        TRY(read_behavior(&s.behavior, spec, "Isolated"));
        s.is_match = category_is_punctuation;
    } else if (!strcmp(type, "WhitespaceSplit")) {
        s.behavior = REMOVED;
        s.is_match = unicode_is_space;
    } else if (!strcmp(type, "Whitespace")) {
        static const char regex[] = "\\w+|[^\\w\\s]+";
        s.run = run_split;
        s.behavior = REMOVED;
        s.invert = true;
        TRY(pattern_open_regex(&s.pattern, regex, strlen(regex)));
    } else if (!strcmp(type, "CharDelimiterSplit")) {
        const json_t *delimiter = json_object_get(spec, "delimiter");
        s.run = run_split;
        s.behavior = REMOVED;
        if (!json_is_string(delimiter) || !json_string_length(delimiter))
            return error_set(ERR_FILE, "pre_tokenizer: \"delimiter\" must be one character");
        TRY(pattern_open_literal(&s.pattern, json_string_value(delimiter),
                                 json_string_length(delimiter)));
    } else {
        return error_set(ERR_FILE,
                         "pre_tokenizer type \"%.60s\" is not supported (ByteLevel, Metaspace, "
                         "Split, Digits, Punctuation, Whitespace, WhitespaceSplit, "
                         "CharDelimiterSplit, BertPreTokenizer, Sequence are)",
                         type);
    }
    return add_step(p, s);
}

static int open_steps(struct pretokenizer *p, const json_t *spec, int nesting)
{
    const char *type = json_string_value(json_object_get(spec, "type"));
    if (!type)
        return error_set(ERR_FILE, "pre_tokenizer: \"type\" must be a string");
    if (!strcmp(type, "ByteLevel"))
        return open_byte_level(p, spec);
    if (!strcmp(type, "Split"))
        return open_split(p, spec);
    if (!strcmp(type, "Metaspace"))
        return open_metaspace(p, spec);
    if (!strcmp(type, "BertPreTokenizer"))
        return open_bert(p);
    if (strcmp(type, "Sequence"))
        return open_words(p, spec, type);
    const json_t *list = json_object_get(spec, "pretokenizers");
    if (!json_is_array(list) || nesting == MAX_NESTING)
        return error_set(
            ERR_FILE, "pre_tokenizer: \"pretokenizers\" must be an array, nested at most %d deep",
            MAX_NESTING);
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(open_steps(p, json_array_get(list, i), nesting + 1));
    return 0;
}

int pretokenizer_open(struct pretokenizer *p, const json_t *spec)
{
    *p = (struct pretokenizer){.classes = unicode_classes_open()};
    if (!spec || json_is_null(spec))
        return 0;
    p->step = calloc(MAX_STEPS, sizeof *p->step);
    CHECK(p->step, "out of memory for a pre-tokenizer");
    TRY(open_steps(p, spec, 0));
    if (p->n_steps && p->step[p->n_steps - 1].run == run_bytes) {
        p->byte_level = true; /* the model maps the bytes, cheaper than rewriting the text */
        p->n_steps--;
    }
    if (p->n_steps == 1 && p->step[0].run == run_scan)
        p->scan = p->step[0].scan;
    return 0;
}

void pretokenizer_close(struct pretokenizer *p)
{
    for (int i = 0; i < p->n_steps; i++)
        pattern_close(&p->step[i].pattern);
    free(p->step);
    free(p->classes);
    *p = (struct pretokenizer){0};
}

void pretokenizer_work_free(struct pretokenizer_work *w)
{
    free(w->words.at);
    free(w->other.at);
    free(w->piece);
    text_free(&w->buffer[0]);
    text_free(&w->buffer[1]);
    pattern_work_free(&w->pattern);
    *w = (struct pretokenizer_work){0};
}

int pretokenize(const struct pretokenizer *p, struct pretokenizer_work *w, const char *text,
                size_t n, bool at_start)
{
    w->text = text;
    w->words.n = 0;
    w->other.n = 0;
    spans_add(&w->words, 0, n);
    for (int i = 0; i < p->n_steps; i++)
        TRY(p->step[i].run(p, &p->step[i], w, at_start));
    return 0;
}
