/* Methods of strings, as Python has them. Changes of case are those of single characters. */
#include "jinja_tree.h"

#include <string.h>
#include <utf8proc.h>

#include "error.h"
#include "unicode.h"

static bool is_space(uint32_t c)
{
    return unicode_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

/* Is the character c of text to be stripped: one of chars, or without them whitespace? */
static bool strips(uint32_t c, const struct jinja_value *chars)
{
    uint32_t other;
    if (chars->kind != JINJA_STRING)
        return is_space(c);
    for (size_t at = 0; at < chars->text.n;) {
        at += (size_t)utf8_decode(&other, chars->text.bytes + at);
        if (other == c)
            return true;
    }
    return false;
}

int jinja_strip(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_value *chars,
                bool left, bool right)
{
    const char *bytes = v->text.bytes;
    size_t from = 0, to = v->text.n;
    uint32_t c;
    if (chars->kind != JINJA_STRING && chars->kind != JINJA_NONE && chars->kind != JINJA_UNDEFINED)
        return jinja_fail(r, "strip of a %s", jinja_kind_name(chars));
    TRY(jinja_work(r, to / 256));
    while (left && from < to) {
        const int n = utf8_decode(&c, bytes + from);
        if (!strips(c, chars))
            break;
        from += (size_t)n;
    }
    while (right && to > from) {
        size_t at = to - 1;
        while (((unsigned char)bytes[at] & 0xc0) == 0x80)
            at--;
        utf8_decode(&c, bytes + at);
        if (!strips(c, chars))
            break;
        to = at;
    }
    *out = *v;
    out->text.bytes = bytes + from;
    out->text.n = to - from;
    return 0;
}

static int str_strip(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return jinja_strip(r, out, v, &a->value[0], true, true);
}

static int str_lstrip(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return jinja_strip(r, out, v, &a->value[0], true, false);
}

static int str_rstrip(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return jinja_strip(r, out, v, &a->value[0], false, true);
}

static uint32_t in_case(uint32_t c, bool upper)
{
    return (uint32_t)(upper ? utf8proc_toupper((utf8proc_int32_t)c) : utf8proc_tolower((utf8proc_int32_t)c));
}

int jinja_change_case(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, enum jinja_case how)
{
    struct text changed = {0};
    char encoded[4];
    uint32_t c;
    bool in_word = false; /* behind a character that has a case */
    int rc = 0;
    for (size_t at = 0; !rc && at < v->text.n;) {
        const bool upper = how == CASE_UPPER || (how == CASE_TITLE && !in_word) || (how == CASE_CAPITALIZE && at == 0);
        at += (size_t)utf8_decode(&c, v->text.bytes + at);
        in_word = in_case(c, true) != c || in_case(c, false) != c;
        if (c == 0xdf && upper) /* sharp s */
            rc = jinja_put(r, &changed, how == CASE_UPPER ? "SS" : "Ss", 2);
        else
            rc = jinja_put(r, &changed, encoded, (size_t)utf8_encode(encoded, in_case(c, upper)));
    }
    if (!rc)
        rc = jinja_string(r, out, text_string(&changed), changed.n);
    text_free(&changed);
    return rc;
}

static int str_lower(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    return jinja_change_case(r, out, v, CASE_LOWER);
}

static int str_upper(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    return jinja_change_case(r, out, v, CASE_UPPER);
}

static int str_capitalize(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    return jinja_change_case(r, out, v, CASE_CAPITALIZE);
}

static int str_title(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    return jinja_change_case(r, out, v, CASE_TITLE);
}

static bool begins_with(const struct jinja_value *v, const struct jinja_value *part, bool at_end)
{
    const size_t n = part->text.n;
    return n <= v->text.n && !memcmp(v->text.bytes + (at_end ? v->text.n - n : 0), part->text.bytes, n);
}

/* startswith, endswith: of a string, or of one of a tuple. */
static int begins(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_value *part,
                  bool at_end)
{
    bool any = part->kind == JINJA_STRING && begins_with(v, part, at_end);
    if (part->kind != JINJA_STRING && part->kind != JINJA_TUPLE)
        return jinja_fail(r, "%s of a %s", at_end ? "endswith" : "startswith", jinja_kind_name(part));
    for (size_t i = 0; part->kind == JINJA_TUPLE && i < part->list->n; i++)
        any = any || (part->list->item[i].kind == JINJA_STRING && begins_with(v, &part->list->item[i], at_end));
    *out = jinja_bool(any);
    return 0;
}

static int str_startswith(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return begins(r, out, v, &a->value[0], false);
}

static int str_endswith(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return begins(r, out, v, &a->value[0], true);
}

static int cut_affix(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_value *affix,
                     bool at_end)
{
    TRY(begins(r, out, v, affix, at_end));
    const size_t n = out->truth && affix->kind == JINJA_STRING ? affix->text.n : 0;
    *out = jinja_borrow(v->text.bytes + (at_end ? 0 : n), v->text.n - n);
    return 0;
}

static int str_removeprefix(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return cut_affix(r, out, v, &a->value[0], false);
}

static int str_removesuffix(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    return cut_affix(r, out, v, &a->value[0], true);
}

/* An optional limit: -1 without it. */
static int limit_of(struct jinja_run *r, int64_t *out, const struct jinja_value *v)
{
    if (v->kind != JINJA_UNDEFINED && v->kind != JINJA_NONE && v->kind != JINJA_INT)
        return jinja_fail(r, "a count that is a %s", jinja_kind_name(v));
    *out = v->kind == JINJA_INT ? v->integer : -1;
    return 0;
}

static int add_part(struct jinja_run *r, struct jinja_value *list, const struct jinja_value *v, size_t from, size_t to)
{
    return jinja_list_add(r, list->list, jinja_borrow(v->text.bytes + from, to - from));
}

/* At runs of whitespace, without empty parts; what is left after the limit stays whole. */
static int split_words(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, int64_t limit)
{
    struct jinja_value rest = *v;
    const struct jinja_value white = jinja_none();
    uint32_t c;
    for (;; limit--) {
        size_t n = 0;
        TRY(jinja_strip(r, &rest, &rest, &white, true, false));
        if (!rest.text.n)
            return 0;
        while (n < rest.text.n) {
            const int length = utf8_decode(&c, rest.text.bytes + n);
            if (limit != 0 && is_space(c))
                break;
            n += (size_t)length;
        }
        TRY(add_part(r, out, &rest, 0, n));
        rest = jinja_borrow(rest.text.bytes + n, rest.text.n - n);
    }
}

static int str_split(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    const struct jinja_value *by = &a->value[0];
    int64_t limit = -1;
    size_t at = 0;
    TRY(limit_of(r, &limit, &a->value[1]));
    TRY(jinja_work(r, v->text.n / 64));
    TRY(jinja_list_new(r, out, JINJA_LIST, 0));
    if (by->kind == JINJA_UNDEFINED || by->kind == JINJA_NONE)
        return split_words(r, out, v, limit);
    if (by->kind != JINJA_STRING || !by->text.n)
        return jinja_fail(r, "split at %s", by->kind == JINJA_STRING ? "an empty str" : jinja_kind_name(by));
    for (; limit != 0; limit--) {
        const char *found = v->text.n > at ? memmem(v->text.bytes + at, v->text.n - at, by->text.bytes, by->text.n) : NULL;
        if (!found)
            break;
        TRY(add_part(r, out, v, at, (size_t)(found - v->text.bytes)));
        at = (size_t)(found - v->text.bytes) + by->text.n;
    }
    return add_part(r, out, v, at, v->text.n);
}

/* From the right; without a limit the same as split. */
static int str_rsplit(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    struct jinja_value all;
    int64_t limit = -1;
    TRY(limit_of(r, &limit, &a->value[1]));
    if (limit >= 0 && a->value[0].kind != JINJA_STRING)
        return jinja_fail(r, "rsplit at whitespace with a limit is not supported");
    struct jinja_value parts[2] = {a->value[0], jinja_undefined(NULL)};
    const struct jinja_args whole = {parts, a->keyword, 2};
    TRY(str_split(r, &all, v, &whole));
    if (limit < 0 || (int64_t)all.list->n <= limit + 1) {
        *out = all;
        return 0;
    }
    const struct jinja_value *first = &all.list->item[all.list->n - 1 - (size_t)limit];
    TRY(jinja_list_new(r, out, JINJA_LIST, 0));
    TRY(add_part(r, out, v, 0, (size_t)(first[0].text.bytes - v->text.bytes) + first[0].text.n));
    for (size_t i = all.list->n - (size_t)limit; i < all.list->n; i++)
        TRY(jinja_list_add(r, out->list, all.list->item[i]));
    return 0;
}

static int str_splitlines(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    size_t from = 0;
    uint32_t c;
    (void)a;
    TRY(jinja_list_new(r, out, JINJA_LIST, 0));
    for (size_t at = 0; at < v->text.n;) {
        const size_t to = at;
        at += (size_t)utf8_decode(&c, v->text.bytes + at);
        if (!((c >= 0x0a && c <= 0x0d) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029))
            continue;
        if (c == '\r' && at < v->text.n && v->text.bytes[at] == '\n')
            at++;
        TRY(add_part(r, out, v, from, to));
        from = at;
    }
    return from < v->text.n ? add_part(r, out, v, from, v->text.n) : 0;
}

int jinja_replace(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    const struct jinja_value *old = &a->value[0], *new = &a->value[1];
    struct text text = {0};
    int64_t limit = -1;
    size_t at = 0;
    int rc = 0;
    TRY(limit_of(r, &limit, &a->value[2]));
    if (old->kind != JINJA_STRING || new->kind != JINJA_STRING)
        return jinja_fail(r, "replace of a %s by a %s", jinja_kind_name(old), jinja_kind_name(new));
    if (!old->text.n)
        return jinja_fail(r, "replace of an empty str is not supported");
    TRY(jinja_work(r, v->text.n / 64));
    for (; !rc && limit != 0; limit--) {
        const char *found = v->text.n > at ? memmem(v->text.bytes + at, v->text.n - at, old->text.bytes, old->text.n) : NULL;
        if (!found)
            break;
        rc = jinja_put(r, &text, v->text.bytes + at, (size_t)(found - v->text.bytes) - at);
        if (!rc)
            rc = jinja_put(r, &text, new->text.bytes, new->text.n);
        at = (size_t)(found - v->text.bytes) + old->text.n;
    }
    if (!rc)
        rc = jinja_put(r, &text, v->text.bytes + at, v->text.n - at);
    if (!rc)
        rc = jinja_string(r, out, text_string(&text), text.n);
    text_free(&text);
    return rc;
}

static int str_find(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    const struct jinja_value *part = &a->value[0];
    if (part->kind != JINJA_STRING)
        return jinja_fail(r, "find of a %s", jinja_kind_name(part));
    const char *found = part->text.n && v->text.n ? memmem(v->text.bytes, v->text.n, part->text.bytes, part->text.n) : NULL;
    const struct jinja_value before = jinja_borrow(v->text.bytes, found ? (size_t)(found - v->text.bytes) : 0);
    TRY(jinja_work(r, v->text.n / 64));
    *out = jinja_int(found ? (int64_t)jinja_characters(&before) : part->text.n ? -1 : 0);
    return 0;
}

static int str_count(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    const struct jinja_value *part = &a->value[0];
    int64_t count = 0;
    if (part->kind != JINJA_STRING || !part->text.n)
        return jinja_fail(r, "count of %s", part->kind == JINJA_STRING ? "an empty str" : jinja_kind_name(part));
    TRY(jinja_work(r, v->text.n / 64));
    for (size_t at = 0; at < v->text.n; count++) {
        const char *found = memmem(v->text.bytes + at, v->text.n - at, part->text.bytes, part->text.n);
        if (!found)
            break;
        at = (size_t)(found - v->text.bytes) + part->text.n;
    }
    *out = jinja_int(count);
    return 0;
}

static int str_join(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    struct jinja_list *items;
    struct text joined = {0};
    int rc = 0;
    TRY(jinja_items(r, &items, &a->value[0]));
    for (size_t i = 0; !rc && i < items->n; i++) {
        if (items->item[i].kind != JINJA_STRING)
            rc = jinja_fail(r, "join of a list with a %s", jinja_kind_name(&items->item[i]));
        if (!rc && i)
            rc = jinja_str(r, &joined, v);
        if (!rc)
            rc = jinja_str(r, &joined, &items->item[i]);
    }
    if (!rc)
        rc = jinja_string(r, out, text_string(&joined), joined.n);
    text_free(&joined);
    return rc;
}

/* Has every character the class, and is there one? */
static int all_of(struct jinja_value *out, const struct jinja_value *v, bool (*is)(uint32_t c))
{
    bool all = v->text.n > 0;
    uint32_t c;
    for (size_t at = 0; all && at < v->text.n;) {
        at += (size_t)utf8_decode(&c, v->text.bytes + at);
        all = is(c);
    }
    *out = jinja_bool(all);
    return 0;
}

static bool is_digit(uint32_t c)
{
    return utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_ND;
}

static bool is_letter(uint32_t c)
{
    const utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

static int str_isdigit(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    TRY(jinja_work(r, v->text.n / 64));
    return all_of(out, v, is_digit);
}

static int str_isalpha(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    TRY(jinja_work(r, v->text.n / 64));
    return all_of(out, v, is_letter);
}

static int str_isspace(struct jinja_run *r, struct jinja_value *out, const struct jinja_value *v, const struct jinja_args *a)
{
    (void)a;
    TRY(jinja_work(r, v->text.n / 64));
    return all_of(out, v, is_space);
}

const struct jinja_callable jinja_string_methods[] = {
    {"strip", str_strip, 0, 1, {"chars"}},
    {"lstrip", str_lstrip, 0, 1, {"chars"}},
    {"rstrip", str_rstrip, 0, 1, {"chars"}},
    {"lower", str_lower, 0, 0, {0}},
    {"upper", str_upper, 0, 0, {0}},
    {"capitalize", str_capitalize, 0, 0, {0}},
    {"title", str_title, 0, 0, {0}},
    {"startswith", str_startswith, 1, 1, {0}},
    {"endswith", str_endswith, 1, 1, {0}},
    {"removeprefix", str_removeprefix, 1, 1, {0}},
    {"removesuffix", str_removesuffix, 1, 1, {0}},
    {"split", str_split, 0, 2, {"sep", "maxsplit"}},
    {"rsplit", str_rsplit, 0, 2, {"sep", "maxsplit"}},
    {"splitlines", str_splitlines, 0, 0, {0}},
    {"replace", jinja_replace, 2, 3, {NULL, NULL, "count"}},
    {"find", str_find, 1, 1, {0}},
    {"count", str_count, 1, 1, {0}},
    {"join", str_join, 1, 1, {0}},
    {"isdigit", str_isdigit, 0, 0, {0}},
    {"isalpha", str_isalpha, 0, 0, {0}},
    {"isspace", str_isspace, 0, 0, {0}},
    {0},
};
