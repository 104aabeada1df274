/* Each step reads one buffer and appends to the other, or says that it changed nothing.
 *
 * Canonical composition goes over the text in segments: a character below U+0300 never combines with what stands before
 * it (Unicode 16.0, NFC_Quick_Check), so a segment is one such character with the run above U+0300 that follows, and
 * most segments of most texts are copied. utf8proc orders combining marks by exchanging neighbours, which is quadratic
 * in a run of marks; so the ordering is done here, by counting. */
#include "normalize.h"

#include "categories.h"
#include "error.h"
#include "unicode.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_STEPS = 64, MAX_NESTING = 16, FIRST_BYTE_OF_0300 = 0xcc };

struct normalizer_step {
    /* appends to out and returns 1, or returns 0 when text stays as it is, -1 on error */
    int (*run)(const struct normalizer_step *s, struct normalizer_work *w, struct text *out,
               const char *text, size_t n);
    int options;               /* of utf8proc */
    struct pattern pattern;    /* Replace */
    struct text content;       /* Prepend, Replace */
    bool left, right;          /* Strip */
    bool (*strip)(uint32_t c); /* characters that go: StripAccents, BertNormalizer */
};

/* Unicode normal forms */

/* Hugging Face normalizes with the tables of Unicode 9.0. Characters to which later versions (up to 15.0) gave a combining
 * class, a decomposition or a composition: they stay as they are and end what stands before them. */
// clang-format off
static const uint32_t NEWER[][2] = {
    {0x7fd, 0x7fd}, {0x898, 0x89f}, {0x8ca, 0x8d3}, {0x9fe, 0x9fe}, {0xc3c, 0xc3c}, {0xd3b, 0xd3c},
    {0xeba, 0xeba}, {0x1715, 0x1715}, {0x1abf, 0x1ace}, {0x1df6, 0x1dfa}, {0x32ff, 0x32ff},
    {0xa7f2, 0xa7f4}, {0xa82c, 0xa82c}, {0xab69, 0xab69}, {0x10781, 0x10785}, {0x10787, 0x107b0},
    {0x107b2, 0x107ba}, {0x10d24, 0x10d27}, {0x10eab, 0x10eac}, {0x10efd, 0x10eff},
    {0x10f46, 0x10f50}, {0x10f82, 0x10f85}, {0x11070, 0x11070}, {0x1133b, 0x1133b},
    {0x1145e, 0x1145e}, {0x11839, 0x1183a}, {0x11930, 0x11930}, {0x11938, 0x11938},
    {0x1193d, 0x1193e}, {0x11943, 0x11943}, {0x119e0, 0x119e0}, {0x11a34, 0x11a34},
    {0x11a47, 0x11a47}, {0x11a99, 0x11a99}, {0x11d42, 0x11d42}, {0x11d44, 0x11d45},
    {0x11d97, 0x11d97}, {0x11f41, 0x11f42}, {0x16ff0, 0x16ff1}, {0x1e030, 0x1e06d},
    {0x1e08f, 0x1e08f}, {0x1e130, 0x1e136}, {0x1e2ae, 0x1e2ae}, {0x1e2ec, 0x1e2ef},
    {0x1e4ec, 0x1e4ef}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9},
};
// clang-format on

static bool is_newer(uint32_t c)
{
    size_t low = 0, high = sizeof NEWER / sizeof NEWER[0];
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (NEWER[middle][1] < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < sizeof NEWER / sizeof NEWER[0] && NEWER[low][0] <= c;
}

static void order_marks(utf8proc_int32_t *c, size_t n, utf8proc_int32_t *scratch)
{
    if (n < 2)
        return;
    size_t start[257] = {0};
    for (size_t i = 0; i < n; i++)
        start[(utf8proc_get_property(c[i])->combining_class & 255) + 1]++;
    for (int i = 0; i < 256; i++)
        start[i + 1] += start[i];
    for (size_t i = 0; i < n; i++)
        scratch[start[utf8proc_get_property(c[i])->combining_class & 255]++] = c[i];
    memcpy(c, scratch, n * sizeof *c);
}

/* Decomposes, orders, composes if asked to. A character decomposes into at most 18 (U+FDFA). */
static void known_normal_form(struct text *out, const char *text, size_t n, int options)
{
    enum { MAX_DECOMPOSED = 18 };
    size_t room = 64, length = 0;
    if (!n)
        return;
    utf8proc_int32_t *c = malloc(room * sizeof *c);
    CHECK(c, "out of memory for a normal form");
    for (size_t i = 0; i < n;) {
        uint32_t character;
        i += (size_t)utf8_decode(&character, text + i);
        if (room - length < 2 * MAX_DECOMPOSED) {
            room *= 2;
            c = realloc(c, room * sizeof *c);
            CHECK(c, "out of memory for a normal form");
        }
        int boundary = 0;
        utf8proc_ssize_t got = utf8proc_decompose_char((utf8proc_int32_t)character, c + length,
                                                       2 * MAX_DECOMPOSED, options, &boundary);
        CHECK(got >= 0 && got <= 2 * MAX_DECOMPOSED, "utf8proc cannot decompose U+%04X", character);
        length += (size_t)got;
    }
    utf8proc_int32_t *scratch = malloc((length + 1) * sizeof *scratch);
    CHECK(scratch, "out of memory for a normal form");
    for (size_t i = 0; i < length;) {
        size_t end = i;
        while (end < length && utf8proc_get_property(c[end])->combining_class)
            end++;
        order_marks(c + i, end - i, scratch);
        i = end + 1;
    }
    free(scratch);
    if (options & UTF8PROC_COMPOSE)
        length = (size_t)utf8proc_normalize_utf32(c, (utf8proc_ssize_t)length, options);
    for (size_t i = 0; i < length; i++) {
        char bytes[4];
        text_add(out, bytes, (size_t)utf8_encode(bytes, (uint32_t)c[i]));
    }
    free(c);
}

static void normal_form(struct text *out, const char *text, size_t n, int options)
{
    size_t done = 0;
    for (size_t i = 0, length; i < n; i += length) {
        uint32_t c;
        length = (size_t)utf8_decode(&c, text + i);
        if (!is_newer(c))
            continue;
        known_normal_form(out, text + done, i - done, options);
        text_add(out, text + i, length);
        done = i + length;
    }
    known_normal_form(out, text + done, n - done, options);
}

/* First byte at or after i of a character from limit on, where limit is the first byte of its encoding. */
static size_t find_at_least(const char *text, size_t i, size_t n, unsigned char limit)
{
    while (i < n && ((unsigned char)text[i] < limit))
        i++;
    return i;
}

static int run_composed(const struct normalizer_step *s, struct normalizer_work *w,
                        struct text *out, const char *text, size_t n)
{
    (void)w;
    if (find_at_least(text, 0, n, FIRST_BYTE_OF_0300) == n)
        return 0;
    size_t done = 0;
    for (;;) {
        size_t high = find_at_least(text, done, n, FIRST_BYTE_OF_0300);
        size_t begin = high; /* the character before the run, where there is one, belongs to it */
        if (high < n && high > done)
            do
                begin--;
            while (((unsigned char)text[begin] & 0xc0) == 0x80);
        text_add(out, text + done, begin - done);
        if (high == n)
            return 1;
        size_t end = high;
        while (end < n && (unsigned char)text[end] >= FIRST_BYTE_OF_0300)
            end += (size_t)utf8_length(text[end]);
        normal_form(out, text + begin, end - begin, s->options);
        done = end;
    }
}

static int run_form(const struct normalizer_step *s, struct normalizer_work *w, struct text *out,
                    const char *text, size_t n)
{
    (void)w;
    if (find_at_least(text, 0, n, 0x80) == n)
        return 0;
    normal_form(out, text, n, s->options);
    return 1;
}

/* The other steps */

static int run_prepend(const struct normalizer_step *s, struct normalizer_work *w, struct text *out,
                       const char *text, size_t n)
{
    (void)w;
    if (!n)
        return 0;
    text_add(out, s->content.bytes, s->content.n);
    text_add(out, text, n);
    return 1;
}

static int run_replace(const struct normalizer_step *s, struct normalizer_work *w, struct text *out,
                       const char *text, size_t n)
{
    return pattern_replace(&s->pattern, &w->pattern, out, text, n, text_string(&s->content),
                           s->content.n)
               ? -1
               : 1;
}

static int run_strip(const struct normalizer_step *s, struct normalizer_work *w, struct text *out,
                     const char *text, size_t n)
{
    (void)w;
    size_t begin = 0, end = n, last = 0; /* last: end of the last character that is no space */
    uint32_t c;
    for (size_t i = 0; i < n;) {
        int length = utf8_decode(&c, text + i);
        i += (size_t)length;
        if (!unicode_is_space(c))
            last = i;
        else if (begin + (size_t)length == i && s->left)
            begin = i;
    }
    if (s->right)
        end = last > begin ? last : begin;
    text_add(out, text + begin, end - begin);
    return 1;
}

static int run_strip_marks(const struct normalizer_step *s, struct normalizer_work *w, struct text *out,
                           const char *text, size_t n)
{
    (void)w;
    if (find_at_least(text, 0, n, FIRST_BYTE_OF_0300) == n)
        return 0;
    for (size_t i = 0; i < n;) {
        const size_t high = find_at_least(text, i, n, FIRST_BYTE_OF_0300);
        text_add(out, text + i, high - i);
        i = high;
        for (; i < n && (unsigned char)text[i] >= FIRST_BYTE_OF_0300; i += (size_t)utf8_length(text[i])) {
            uint32_t c;
            const int length = utf8_decode(&c, text + i);
            if (!s->strip(c))
                text_add(out, text + i, (size_t)length);
        }
    }
    return 1;
}

/* Appends ASCII in lower case. */
static void add_lowercase(struct text *out, const char *text, size_t n)
{
    text_add(out, text, n);
    for (char *c = out->bytes + out->n - n, *end = out->bytes + out->n; c < end; c++)
        if (*c >= 'A' && *c <= 'Z')
            *c = (char)(*c + ('a' - 'A'));
}

/* Character by character; U+0130 is the one whose lower case is two characters. */
static int run_lowercase(const struct normalizer_step *s, struct normalizer_work *w,
                         struct text *out, const char *text, size_t n)
{
    (void)s;
    (void)w;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        char bytes[4];
        const size_t end = find_at_least(text, i, n, 0x80);
        if (end > i) {
            add_lowercase(out, text + i, end - i);
            i = end;
            continue;
        }
        i += (size_t)utf8_decode(&c, text + i);
        if (c == 0x130)
            text_add(out, "i\xcc\x87", 3);
        else
            text_add(out, bytes, (size_t)utf8_encode(bytes, category_lowercase(c)));
    }
    return 1;
}

/* BertNormalizer */

/* White space becomes a space each; control characters and U+FFFD go. */
static int run_clean(const struct normalizer_step *s, struct normalizer_work *w, struct text *out, const char *text,
                     size_t n)
{
    (void)s;
    (void)w;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        size_t printable = i;
        while (printable < n && text[printable] >= ' ' && text[printable] <= '~')
            printable++;
        text_add(out, text + i, printable - i);
        i = printable;
        if (i == n)
            break;
        size_t length = (size_t)utf8_decode(&c, text + i);
        if (unicode_is_space(c) && !category_is_other(c))
            text_add(out, " ", 1);
        else if (c != 0xfffd && !category_is_other(c))
            text_add(out, text + i, length);
        i += length;
    }
    return 1;
}

/* The library's ranges: blocks of CJK ideographs, of extension E all but its beginning. */
static bool is_ideograph(uint32_t c)
{
    return (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0x2f800 && c <= 0x2fa1f);
}

static int run_space_ideographs(const struct normalizer_step *s, struct normalizer_work *w, struct text *out,
                                const char *text, size_t n)
{
    enum { FIRST_BYTE_OF_3400 = 0xe3 };
    (void)s;
    (void)w;
    size_t done = 0;
    for (size_t i = 0; (i = find_at_least(text, i, n, FIRST_BYTE_OF_3400)) < n;) {
        uint32_t c;
        size_t length = (size_t)utf8_decode(&c, text + i);
        if (is_ideograph(c)) {
            text_add(out, text + done, i - done);
            text_add(out, " ", 1);
            text_add(out, text + i, length);
            text_add(out, " ", 1);
            done = i + length;
        }
        i += length;
    }
    if (!done)
        return 0;
    text_add(out, text + done, n - done);
    return 1;
}

/* Reading the file */

static int read_content(struct text *out, const json_t *spec, const char *key)
{
    const json_t *value = json_object_get(spec, key);
    if (!json_is_string(value))
        return error_set(ERR_FILE, "normalizer: \"%s\" must be a string", key);
    text_add(out, json_string_value(value), json_string_length(value));
    return 0;
}

static bool read_bool(const json_t *spec, const char *key)
{
    return json_is_true(json_object_get(spec, key));
}

static int open_step(struct normalizer_step *s, const json_t *spec, const char *type)
{
    static const struct {
        const char *type;
        int options;
    } forms[] = {{"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
                 {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
                 {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                 {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++)
        if (!strcmp(type, forms[i].type)) {
            s->run = i == 0 ? run_composed : run_form;
            s->options = forms[i].options;
            return 0;
        }
    if (!strcmp(type, "Prepend")) {
        s->run = run_prepend;
        return read_content(&s->content, spec, "prepend");
    }
    if (!strcmp(type, "Replace")) {
        s->run = run_replace;
        TRY(read_content(&s->content, spec, "content"));
        return pattern_open(&s->pattern, json_object_get(spec, "pattern"));
    }
    if (!strcmp(type, "Strip")) {
        s->run = run_strip;
        s->left = read_bool(spec, "strip_left");
        s->right = read_bool(spec, "strip_right");
        return 0;
    }
    if (!strcmp(type, "StripAccents")) {
        s->run = run_strip_marks;
        s->strip = category_is_mark;
    } else if (!strcmp(type, "Lowercase")) {
        s->run = run_lowercase;
    } else {
        return error_set(ERR_FILE,
                         "normalizer type \"%.60s\" is not supported (NFC, NFD, NFKC, NFKD, "
                         "Prepend, Replace, Strip, StripAccents, Lowercase, BertNormalizer, Sequence are)",
                         type);
    }
    return 0;
}

static int add_step(struct normalizer *nz, struct normalizer_step step)
{
    if (nz->n_steps == MAX_STEPS)
        return error_set(ERR_FILE, "normalizer: more than %d steps", MAX_STEPS);
    nz->step[nz->n_steps++] = step;
    return 0;
}

static int read_required(bool *out, const json_t *spec, const char *key)
{
    const json_t *value = json_object_get(spec, key);
    *out = json_is_true(value);
    return json_is_boolean(value) ? 0 : error_set(ERR_FILE, "normalizer: \"%s\" must be true or false", key);
}

static int open_bert(struct normalizer *nz, const json_t *spec)
{
    bool clean, space, strip, lowercase;
    TRY(read_required(&clean, spec, "clean_text"));
    TRY(read_required(&space, spec, "handle_chinese_chars"));
    TRY(read_required(&lowercase, spec, "lowercase"));
    const json_t *accents = json_object_get(spec, "strip_accents");
    strip = lowercase;
    if (accents && !json_is_null(accents))
        TRY(read_required(&strip, spec, "strip_accents"));
    if (clean)
        TRY(add_step(nz, (struct normalizer_step){.run = run_clean}));
    if (space)
        TRY(add_step(nz, (struct normalizer_step){.run = run_space_ideographs}));
    if (strip) {
        TRY(add_step(nz, (struct normalizer_step){.run = run_form, .options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE}));
        TRY(add_step(nz, (struct normalizer_step){.run = run_strip_marks, .strip = category_is_nonspacing}));
    }
    return lowercase ? add_step(nz, (struct normalizer_step){.run = run_lowercase}) : 0;
}

static int open_steps(struct normalizer *nz, const json_t *spec, int nesting)
{
    const char *type = json_string_value(json_object_get(spec, "type"));
    if (!type)
        return error_set(ERR_FILE, "normalizer: \"type\" must be a string");
    if (!strcmp(type, "BertNormalizer"))
        return open_bert(nz, spec);
    if (strcmp(type, "Sequence")) {
        TRY(add_step(nz, (struct normalizer_step){0}));
        return open_step(&nz->step[nz->n_steps - 1], spec, type);
    }
    const json_t *list = json_object_get(spec, "normalizers");
    if (!json_is_array(list) || nesting == MAX_NESTING)
        return error_set(ERR_FILE,
                         "normalizer: \"normalizers\" must be an array, nested at most %d deep",
                         MAX_NESTING);
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(open_steps(nz, json_array_get(list, i), nesting + 1));
    return 0;
}

int normalizer_open(struct normalizer *nz, const json_t *spec)
{
    *nz = (struct normalizer){0};
    if (!spec || json_is_null(spec))
        return 0;
    nz->step = calloc(MAX_STEPS, sizeof *nz->step);
    CHECK(nz->step, "out of memory for a normalizer");
    return open_steps(nz, spec, 0);
}

void normalizer_close(struct normalizer *nz)
{
    for (int i = 0; i < nz->n_steps; i++) {
        pattern_close(&nz->step[i].pattern);
        text_free(&nz->step[i].content);
    }
    free(nz->step);
    *nz = (struct normalizer){0};
}

void normalizer_work_free(struct normalizer_work *w)
{
    text_free(&w->buffer[0]);
    text_free(&w->buffer[1]);
    pattern_work_free(&w->pattern);
}

int normalize(const struct normalizer *nz, struct normalizer_work *w, const char **text, size_t *n)
{
    int other = 0;
    for (int i = 0; i < nz->n_steps; i++) {
        const struct normalizer_step *s = &nz->step[i];
        struct text *out = &w->buffer[other];
        text_clear(out);
        int rc = s->run(s, w, out, *text, *n);
        if (rc < 0)
            return -1;
        if (rc > 0) {
            *text = text_string(out);
            *n = out->n;
            other = !other;
        }
    }
    return 0;
}
