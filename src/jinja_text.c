/* The text of values: Python's str and repr, json.dumps, markupsafe's escape. */
#include "jinja_value.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "unicode.h"

static int put_string(struct jinja_run *r, struct text *out, const char *string)
{
    return jinja_put(r, out, string, strlen(string));
}

/* repr of a float: the fewest digits that read back the same, an exponent below 1e-4 and from 1e16 on. */
static int put_float(struct jinja_run *r, struct text *out, double x)
{
    char digits[40], shown[64];
    int n = 0;
    if (!isfinite(x))
        return put_string(r, out, isnan(x) ? "nan" : x < 0 ? "-inf" : "inf");
    do
        snprintf(digits, sizeof digits, "%.*e", n++, x);
    while (strtod(digits, NULL) != x && n < 18);
    const int exponent = atoi(strchr(digits, 'e') + 1);
    if (exponent < -4 || exponent >= 16) {
        *strchr(digits, 'e') = 0;
        snprintf(shown, sizeof shown, "%se%c%02d", digits, exponent < 0 ? '-' : '+', abs(exponent));
    } else {
        const int places = n - 1 - exponent;
        snprintf(shown, sizeof shown, "%.*f", places > 1 ? places : 1, x);
    }
    return put_string(r, out, shown);
}

int jinja_str(struct jinja_run *r, struct text *out, const struct jinja_value *v)
{
    if (v->kind == JINJA_STRING)
        return jinja_put(r, out, v->text.bytes, v->text.n);
    return v->kind == JINJA_UNDEFINED ? 0 : jinja_repr(r, out, v);
}

/* ---- repr ---- */

static bool is_printable(uint32_t c)
{
    return c >= 0x20 && c != 0x7f && !(c >= 0x80 && c <= 0xa0) && c != 0xad && !(c >= 0x2000 && c <= 0x200f) &&
           !(c >= 0x2028 && c <= 0x202f) && !(c >= 0x205f && c <= 0x206f) && c != 0x3000 && c != 0xfeff &&
           !(c >= 0xe000 && c <= 0xf8ff) && c != 0x1680;
}

static int repr_character(struct jinja_run *r, struct text *out, uint32_t c, char quote)
{
    char shown[16];
    if (c == (uint32_t)quote)
        snprintf(shown, sizeof shown, "\\%c", quote);
    else if (c == '\n' || c == '\r' || c == '\t' || c == '\\')
        snprintf(shown, sizeof shown, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : '\\');
    else if (is_printable(c))
        return jinja_put(r, out, shown, (size_t)utf8_encode(shown, c));
    else
        snprintf(shown, sizeof shown, c < 0x100 ? "\\x%02" PRIx32 : c < 0x10000 ? "\\u%04" PRIx32 : "\\U%08" PRIx32, c);
    return put_string(r, out, shown);
}

static int repr_string(struct jinja_run *r, struct text *out, const struct jinja_value *v)
{
    const char *bytes = v->text.bytes;
    const size_t n = v->text.n;
    const char quote = n && memchr(bytes, '\'', n) && !memchr(bytes, '"', n) ? '"' : '\'';
    uint32_t c;
    TRY(jinja_put(r, out, &quote, 1));
    for (size_t at = 0; at < n;) {
        at += (size_t)utf8_decode(&c, bytes + at);
        TRY(repr_character(r, out, c, quote));
    }
    return jinja_put(r, out, &quote, 1);
}

static int repr_list(struct jinja_run *r, struct text *out, const struct jinja_value *v)
{
    const bool tuple = v->kind == JINJA_TUPLE;
    TRY(put_string(r, out, tuple ? "(" : "["));
    for (size_t i = 0; i < v->list->n; i++) {
        TRY(put_string(r, out, i ? ", " : ""));
        TRY(jinja_repr(r, out, &v->list->item[i]));
    }
    return put_string(r, out, tuple && v->list->n == 1 ? ",)" : tuple ? ")" : "]");
}

static int repr_dict(struct jinja_run *r, struct text *out, const struct jinja_dict *d)
{
    TRY(put_string(r, out, "{"));
    for (size_t i = 0; i < d->n; i++) {
        TRY(put_string(r, out, i ? ", " : ""));
        TRY(jinja_repr(r, out, &d->key[i]));
        TRY(put_string(r, out, ": "));
        TRY(jinja_repr(r, out, &d->value[i]));
    }
    return put_string(r, out, "}");
}

static int repr_container(struct jinja_run *r, struct text *out, const struct jinja_value *v)
{
    TRY(jinja_enter(r));
    const int rc = v->kind == JINJA_DICT ? repr_dict(r, out, v->dict) : repr_list(r, out, v);
    jinja_leave(r);
    return rc;
}

int jinja_repr(struct jinja_run *r, struct text *out, const struct jinja_value *v)
{
    char number[32];
    switch (v->kind) {
    case JINJA_UNDEFINED:
        return put_string(r, out, "Undefined");
    case JINJA_NONE:
        return put_string(r, out, "None");
    case JINJA_BOOL:
        return put_string(r, out, v->truth ? "True" : "False");
    case JINJA_INT:
        snprintf(number, sizeof number, "%" PRId64, v->integer);
        return put_string(r, out, number);
    case JINJA_FLOAT:
        return put_float(r, out, v->real);
    case JINJA_STRING:
        return repr_string(r, out, v);
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_DICT:
        return repr_container(r, out, v);
    default:
        return jinja_fail(r, "a %s has no text", jinja_kind_name(v));
    }
}

/* ---- json.dumps ---- */

static int json_character(struct jinja_run *r, struct text *out, uint32_t c, bool ascii)
{
    char shown[16];
    static const char names[] = "\"\\\n\r\t\f\b", letters[] = "\"\\nrtfb";
    const char *at = c && c < 0x80 ? strchr(names, (int)c) : NULL;
    if (at)
        snprintf(shown, sizeof shown, "\\%c", letters[at - names]);
    else if (c < 0x20 || (ascii && c > 0x7f && c < 0x10000))
        snprintf(shown, sizeof shown, "\\u%04" PRIx32, c);
    else if (ascii && c >= 0x10000)
        snprintf(shown, sizeof shown, "\\u%04" PRIx32 "\\u%04" PRIx32, 0xd800 + ((c - 0x10000) >> 10),
                 0xdc00 + ((c - 0x10000) & 0x3ff));
    else
        return jinja_put(r, out, shown, (size_t)utf8_encode(shown, c));
    return put_string(r, out, shown);
}

static int json_string_of(struct jinja_run *r, struct text *out, const struct jinja_value *v, bool ascii)
{
    uint32_t c;
    TRY(put_string(r, out, "\""));
    for (size_t at = 0; at < v->text.n;) {
        at += (size_t)utf8_decode(&c, v->text.bytes + at);
        TRY(json_character(r, out, c, ascii));
    }
    return put_string(r, out, "\"");
}

static int json_break(struct jinja_run *r, struct text *out, const struct jinja_json *how, int depth)
{
    if (!how->indent)
        return 0;
    TRY(put_string(r, out, "\n"));
    while (depth--)
        TRY(jinja_put(r, out, how->indent, how->n_indent));
    return 0;
}

static int json_value(struct jinja_run *r, struct text *out, const struct jinja_value *v, const struct jinja_json *how, int depth);

/* A key: what json.dumps makes of it. */
static int json_key(struct jinja_run *r, struct text *out, const struct jinja_value *key, const struct jinja_json *how)
{
    if (key->kind == JINJA_STRING)
        return json_string_of(r, out, key, how->ascii);
    if (!jinja_is_number(key) && key->kind != JINJA_NONE)
        return jinja_fail(r, "tojson: a %s cannot be a key", jinja_kind_name(key));
    TRY(put_string(r, out, "\""));
    TRY(json_value(r, out, key, how, 0));
    return put_string(r, out, "\"");
}

/* The i-th smallest key of a dict: selection, as these are few. */
static int smallest_key(struct jinja_run *r, size_t *best, const struct jinja_dict *d, bool *used)
{
    int order;
    *best = d->n;
    for (size_t i = 0; i < d->n; i++) {
        order = -1;
        if (used[i])
            continue;
        if (*best < d->n)
            TRY(jinja_compare(r, &order, &d->key[i], &d->key[*best]));
        if (order < 0)
            *best = i;
    }
    used[*best] = true;
    return 0;
}

static int json_items(struct jinja_run *r, struct text *out, const struct jinja_value *v, const struct jinja_json *how, int depth,
                      bool *used)
{
    const struct jinja_dict *d = v->kind == JINJA_DICT ? v->dict : NULL;
    const size_t n = d ? d->n : v->list->n;
    for (size_t i = 0; i < n; i++) {
        size_t at = i;
        if (i)
            TRY(put_string(r, out, how->item ? how->item : how->indent ? "," : ", "));
        TRY(json_break(r, out, how, depth + 1));
        if (d && how->sort_keys)
            TRY(smallest_key(r, &at, d, used));
        if (d) {
            TRY(json_key(r, out, &d->key[at], how));
            TRY(put_string(r, out, how->key ? how->key : ": "));
        }
        TRY(json_value(r, out, d ? &d->value[at] : &v->list->item[i], how, depth + 1));
    }
    return n ? json_break(r, out, how, depth) : 0;
}

static int json_container(struct jinja_run *r, struct text *out, const struct jinja_value *v, const struct jinja_json *how,
                          int depth)
{
    const bool dict = v->kind == JINJA_DICT;
    TRY(jinja_enter(r));
    bool *used = dict && how->sort_keys ? calloc(v->dict->n + 1, sizeof *used) : NULL;
    int rc = put_string(r, out, dict ? "{" : "[");
    if (!rc)
        rc = json_items(r, out, v, how, depth, used);
    if (!rc)
        rc = put_string(r, out, dict ? "}" : "]");
    jinja_leave(r);
    free(used);
    return rc;
}

static int json_value(struct jinja_run *r, struct text *out, const struct jinja_value *v, const struct jinja_json *how, int depth)
{
    switch (v->kind) {
    case JINJA_NONE:
        return put_string(r, out, "null");
    case JINJA_BOOL:
        return put_string(r, out, v->truth ? "true" : "false");
    case JINJA_INT:
        return jinja_repr(r, out, v);
    case JINJA_FLOAT:
        return isfinite(v->real) ? put_float(r, out, v->real)
                                 : put_string(r, out, isnan(v->real) ? "NaN" : v->real < 0 ? "-Infinity" : "Infinity");
    case JINJA_STRING:
        return json_string_of(r, out, v, how->ascii);
    case JINJA_LIST:
    case JINJA_TUPLE:
    case JINJA_DICT:
        return json_container(r, out, v, how, depth);
    default:
        return jinja_fail(r, "tojson: %s%s is no JSON", v->kind == JINJA_UNDEFINED && v->name ? v->name : jinja_kind_name(v),
                          v->kind == JINJA_UNDEFINED && v->name ? ", which is undefined," : "");
    }
}

int jinja_to_json(struct jinja_run *r, struct text *out, const struct jinja_value *v, const struct jinja_json *how)
{
    return json_value(r, out, v, how, 0);
}

/* ---- escape ---- */

int jinja_escape(struct jinja_run *r, struct text *out, const char *bytes, size_t n)
{
    static const char characters[] = "&<>'\"";
    static const char *const entities[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    for (size_t i = 0; i < n; i++) {
        const char *at = bytes[i] ? strchr(characters, bytes[i]) : NULL;
        TRY(at ? put_string(r, out, entities[at - characters]) : jinja_put(r, out, bytes + i, 1));
    }
    return 0;
}
