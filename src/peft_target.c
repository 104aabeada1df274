/* Matching as PEFT does it (peft/tuners/tuners_utils.py, check_target_module_exists). Python's re.fullmatch is PCRE2's
 * pattern anchored at both ends; the syntax that people use here ('.*\.(q|v)_proj') means the same in both. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "peft_target.h"

#include "error.h"
#include "log.h"
#include "peft_config.h"
#include "text.h"

#include <math.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MATCH_STEPS_MAX = 1000000 }; /* of one match: a hostile pattern ends with an error */

void peft_names_add(struct peft_names *names, const char *name)
{
    names->item = realloc(names->item, ((size_t)names->n + 1) * sizeof *names->item);
    CHECK(names->item, "out of memory");
    names->item[names->n++] = text_copy(name);
}

void peft_names_free(struct peft_names *names)
{
    for (int i = 0; i < names->n; i++)
        free(names->item[i]);
    free(names->item);
    *names = (struct peft_names){0};
}

void peft_targets_set_string(struct peft_targets *t, const char *value)
{
    peft_targets_free(t);
    if (!strcasecmp(value, "all-linear")) {
        t->kind = PEFT_ALL_LINEAR;
        return;
    }
    t->kind = PEFT_REGEX;
    t->regex = text_copy(value);
}

void peft_targets_add(struct peft_targets *t, const char *name)
{
    if (t->kind != PEFT_LIST)
        peft_targets_free(t);
    t->kind = PEFT_LIST;
    peft_names_add(&t->names, name);
}

void peft_targets_free(struct peft_targets *t)
{
    peft_names_free(&t->names);
    free(t->regex);
    *t = (struct peft_targets){0};
}

/* Equal, or ends with "." and the entry. */
static bool matches_entry(const char *path, const char *entry)
{
    const size_t n = strlen(path), k = strlen(entry);
    if (n < k || strcmp(path + n - k, entry))
        return false;
    return n == k || path[n - k - 1] == '.';
}

static bool matches_entries(const char *path, const struct peft_names *names)
{
    for (int i = 0; i < names->n; i++)
        if (matches_entry(path, names->item[i]))
            return true;
    return false;
}

/* A pattern of adapter_config.json or of the settings, and where it stands. */
struct regex {
    const char *key, *pattern;
    const char *before, *behind; /* what PEFT puts around it */
    bool open_ended;             /* re.match, else re.fullmatch */
};

static pcre2_code *compile(const struct regex *r)
{
    struct text whole = {0};
    int code;
    PCRE2_SIZE at;
    text_format(&whole, "%s%s%s", r->before, r->pattern, r->behind);
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)text_string(&whole), whole.n,
                                   PCRE2_UTF | PCRE2_ANCHORED | (r->open_ended ? 0 : PCRE2_ENDANCHORED), &code, &at, NULL);
    if (!re) {
        PCRE2_UCHAR why[128];
        const size_t lead = strlen(r->before);
        pcre2_get_error_message(code, why, sizeof why);
        error_set(ERR_INPUT, "%s: '%.200s' is not a regular expression: %s at character %zu", r->key, r->pattern,
                  (const char *)why, (size_t)at > lead ? (size_t)at - lead : 0);
    }
    text_free(&whole);
    return re;
}

/* 1, 0, or -1 with an error. number: what the group "idx" matched; NULL: there is none. */
static int matches_regex(const char *path, const struct regex *r, int *number)
{
    pcre2_code *re = compile(r);
    if (!re)
        return -1;
    pcre2_match_data *data = pcre2_match_data_create_from_pattern(re, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    CHECK(data && context, "out of memory for a regular expression");
    pcre2_set_match_limit(context, MATCH_STEPS_MAX);
    const int rc = pcre2_match(re, (PCRE2_SPTR)path, strlen(path), 0, 0, data, context);
    if (rc >= 0 && number) {
        PCRE2_UCHAR digits[16] = "";
        PCRE2_SIZE n = sizeof digits;
        pcre2_substring_copy_byname(data, (PCRE2_SPTR)"idx", digits, &n);
        *number = atoi((const char *)digits);
    }
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
    pcre2_code_free(re);
    if (rc >= 0)
        return 1;
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    return error_set(ERR_INPUT, "%s: '%.200s' takes too many steps on %s", r->key, r->pattern, path);
}

static bool in_blocks(const struct arch *a, const char *path, bool default_only)
{
    for (int i = 0; i < ARCH_LINEARS_MAX; i++)
        if (a->linear[i].module && (a->linear[i].default_lora || !default_only) &&
            matches_entry(path, a->linear[i].module))
            return true;
    return false;
}

static int matches_targets(const struct peft_targets *t, const char *key, const struct arch *a, const char *path)
{
    switch (t->kind) {
    case PEFT_LIST:
        return matches_entries(path, &t->names);
    case PEFT_REGEX:
        return matches_regex(path, &(struct regex){key, t->regex, "", "", false}, NULL);
    case PEFT_ALL_LINEAR:
        return in_blocks(a, path, false);
    case PEFT_DEFAULT:
        return in_blocks(a, path, true);
    }
    return 0;
}

/* Is the module in one of the layers? 1, 0, -1. */
static int in_layers(const struct peft_layers *l, const char *path)
{
    static const struct regex any = {"layers_pattern", "[^.]*", ".*?\\.", "\\.(?P<idx>\\d+)\\.", true};
    struct regex r = {any.key, NULL, "(?:^|.*?\\.)", any.behind, true};
    int number = -1, m = l->pattern.n ? 0 : matches_regex(path, &any, &number);
    for (int i = 0; m == 0 && i < l->pattern.n; i++) {
        r.pattern = l->pattern.item[i];
        m = matches_regex(path, &r, &number);
    }
    for (int i = 0; m == 1 && i < l->n; i++)
        if (l->index[i] == number)
            return 1;
    return m < 0 ? -1 : 0;
}

int peft_match(const struct peft_config *c, const struct arch *a, const char *module_path)
{
    if (c->exclude_modules.kind != PEFT_DEFAULT) {
        const int out = matches_targets(&c->exclude_modules, "exclude_modules", a, module_path);
        if (out)
            return out < 0 ? -1 : 0;
    }
    const int m = matches_targets(&c->target_modules, "target_modules", a, module_path);
    return m == 1 && c->layers_to_transform.n ? in_layers(&c->layers_to_transform, module_path) : m;
}

/* A key without operators but the dot, which stands for any character. */
static bool is_plain(const char *key)
{
    return key[strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")] == 0;
}

static bool matches_plain(const char *path, const char *key)
{
    const size_t n = strlen(path), k = strlen(key);
    if (n < k || (n > k && path[n - k - 1] != '.'))
        return false;
    for (size_t i = 0; i < k; i++)
        if (key[i] != '.' && key[i] != path[n - k + i])
            return false;
    return true;
}

/* The value of the first key that matches. Source: peft/utils/other.py, get_pattern_key. */
static int find_pattern(double *value, const struct peft_patterns *p, const char *name, const char *path)
{
    for (int i = 0; i < p->n; i++) {
        const char *key = p->item[i].key;
        const int m = is_plain(key) ? matches_plain(path, key)
                                    : matches_regex(path, &(struct regex){name, key, "(.*\\.)?(", ")$", false}, NULL);
        if (m < 0)
            return -1;
        if (m) {
            *value = p->item[i].value;
            return 0;
        }
    }
    return 0;
}

int peft_size(struct peft_size *size, const struct peft_config *c, const char *module_path)
{
    double r = c->r, alpha = c->lora_alpha;
    TRY(find_pattern(&r, &c->rank_pattern, "rank_pattern", module_path));
    TRY(find_pattern(&alpha, &c->alpha_pattern, "alpha_pattern", module_path));
    *size = (struct peft_size){(int)r, c->use_rslora ? alpha / sqrt(r) : alpha / r};
    return 0;
}

static int no_match(const struct peft_targets *t, const struct arch *a)
{
    struct text names = {0};
    bool has_default = false;
    for (int i = 0; i < ARCH_LINEARS_MAX; i++) {
        has_default |= a->linear[i].default_lora;
        if (a->linear[i].module)
            text_format(&names, "%s%s", names.n ? ", " : "", a->linear[i].module);
    }
    if (t->kind == PEFT_DEFAULT && !has_default)
        error_set(ERR_INPUT, "target_modules is needed: PEFT has no default for %s; it has %s", arch_model_type(a),
                  text_string(&names));
    else
        error_set(ERR_INPUT, "target_modules match no linear layer of %s; it has %s", arch_model_type(a), text_string(&names));
    text_free(&names);
    return -1;
}

/* The entries of a list that match no module: PEFT passes over them, a person may have misspelt one. */
static void warn_unused(const struct peft_targets *t, const struct arch *a)
{
    for (int i = 0; t->kind == PEFT_LIST && i < t->names.n; i++) {
        bool used = false;
        for (int k = 0; !used && k < a->layers * ARCH_LINEARS_MAX; k++) {
            const enum arch_slot slot = (enum arch_slot)(k % ARCH_LINEARS_MAX);
            char path[ARCH_NAME_MAX];
            if (!a->linear[slot].module)
                continue;
            arch_module_name(path, sizeof path, a, k / ARCH_LINEARS_MAX, slot);
            used = matches_entry(path, t->names.item[i]);
        }
        if (!used)
            log_warn("target_modules: '%.200s' matches no linear layer of %s", t->names.item[i],
                     arch_model_type(a));
    }
}

int peft_match_all(bool *match, const struct peft_config *c, const struct arch *a)
{
    const char *const outside[] = {arch_head_module(a), arch_embedding_module(a)};
    for (int i = 0; i < 2; i++) {
        const int m = peft_match(c, a, outside[i]);
        if (m < 0)
            return -1;
        if (m)
            return error_set(
                ERR_INPUT,
                "target_modules match %s; adapters are on the linear layers of the blocks only",
                outside[i]);
    }
    int n = 0;
    for (int k = 0; k < a->layers * ARCH_LINEARS_MAX; k++) {
        const enum arch_slot slot = (enum arch_slot)(k % ARCH_LINEARS_MAX);
        char path[ARCH_NAME_MAX];
        match[k] = false;
        if (!a->linear[slot].module)
            continue;
        arch_module_name(path, sizeof path, a, k / ARCH_LINEARS_MAX, slot);
        const int m = peft_match(c, a, path);
        if (m < 0)
            return -1;
        match[k] = m;
        n += m;
    }
    if (!n)
        return no_match(&c->target_modules, a);
    warn_unused(&c->target_modules, a);
    return n;
}
