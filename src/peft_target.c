/* Matching as PEFT does it (peft/tuners/tuners_utils.py, check_target_module_exists). Python's re.fullmatch is PCRE2's
 * pattern anchored at both ends; the syntax that people use here ('.*\.(q|v)_proj') means the same in both. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "peft_target.h"

#include "error.h"
#include "log.h"
#include "text.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MATCH_STEPS_MAX = 1000000 }; /* of one match: a hostile pattern ends with an error */

static char *copy_string(const char *s)
{
    char *copy = strdup(s);
    CHECK(copy, "out of memory");
    return copy;
}

void peft_targets_set_string(struct peft_targets *t, const char *value)
{
    peft_targets_free(t);
    if (!strcasecmp(value, "all-linear")) {
        t->kind = PEFT_ALL_LINEAR;
        return;
    }
    t->kind = PEFT_REGEX;
    t->regex = copy_string(value);
}

void peft_targets_add(struct peft_targets *t, const char *name)
{
    if (t->kind != PEFT_LIST)
        peft_targets_free(t);
    t->kind = PEFT_LIST;
    t->name = realloc(t->name, ((size_t)t->n + 1) * sizeof *t->name);
    CHECK(t->name, "out of memory");
    t->name[t->n++] = copy_string(name);
}

void peft_targets_free(struct peft_targets *t)
{
    for (int i = 0; i < t->n; i++)
        free(t->name[i]);
    free(t->name);
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

static int matches_regex(const char *path, const char *pattern)
{
    int code;
    PCRE2_SIZE at;
    pcre2_code *re =
        pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                      PCRE2_UTF | PCRE2_ANCHORED | PCRE2_ENDANCHORED, &code, &at, NULL);
    if (!re) {
        PCRE2_UCHAR why[128];
        pcre2_get_error_message(code, why, sizeof why);
        return error_set(
            ERR_INPUT, "target_modules: '%.200s' is not a regular expression: %s at character %zu",
            pattern, (const char *)why, (size_t)at);
    }
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    CHECK(data && context, "out of memory for a regular expression");
    pcre2_set_match_limit(context, MATCH_STEPS_MAX);
    const int rc = pcre2_match(re, (PCRE2_SPTR)path, strlen(path), 0, 0, data, context);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
    pcre2_code_free(re);
    if (rc >= 0)
        return 1;
    if (rc == PCRE2_ERROR_NOMATCH)
        return 0;
    return error_set(ERR_INPUT, "target_modules: '%.200s' takes too many steps on %s", pattern,
                     path);
}

static bool in_blocks(const struct arch *a, const char *path, bool default_only)
{
    for (int i = 0; i < ARCH_LINEARS_MAX; i++)
        if (a->linear[i].module && (a->linear[i].default_lora || !default_only) &&
            matches_entry(path, a->linear[i].module))
            return true;
    return false;
}

int peft_match(const struct peft_targets *t, const struct arch *a, const char *module_path)
{
    switch (t->kind) {
    case PEFT_LIST:
        for (int i = 0; i < t->n; i++)
            if (matches_entry(module_path, t->name[i]))
                return 1;
        return 0;
    case PEFT_REGEX:
        return matches_regex(module_path, t->regex);
    case PEFT_ALL_LINEAR:
        return in_blocks(a, module_path, false);
    case PEFT_DEFAULT:
        return in_blocks(a, module_path, true);
    }
    return 0;
}

static int no_match(const struct arch *a)
{
    struct text names = {0};
    for (int i = 0; i < ARCH_LINEARS_MAX; i++)
        if (a->linear[i].module)
            text_format(&names, "%s%s", names.n ? ", " : "", a->linear[i].module);
    error_set(ERR_INPUT, "target_modules match no linear layer of %s; it has %s",
              arch_model_type(a), text_string(&names));
    text_free(&names);
    return -1;
}

/* The entries of a list that match no module: PEFT passes over them, a person may have misspelt one. */
static void warn_unused(const struct peft_targets *t, const struct arch *a, const bool *match)
{
    for (int i = 0; t->kind == PEFT_LIST && i < t->n; i++) {
        bool used = false;
        for (int k = 0; !used && k < a->layers * ARCH_LINEARS_MAX; k++) {
            char path[ARCH_NAME_MAX];
            if (!match[k])
                continue;
            arch_module_name(path, sizeof path, a, k / ARCH_LINEARS_MAX,
                             (enum arch_slot)(k % ARCH_LINEARS_MAX));
            used = matches_entry(path, t->name[i]);
        }
        if (!used)
            log_warn("target_modules: '%.200s' matches no linear layer of %s", t->name[i],
                     arch_model_type(a));
    }
}

int peft_match_all(bool *match, const struct peft_targets *t, const struct arch *a)
{
    const char *const outside[] = {arch_head_module(a), arch_embedding_module(a)};
    for (int i = 0; i < 2; i++) {
        const int m = peft_match(t, a, outside[i]);
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
        const int m = peft_match(t, a, path);
        if (m < 0)
            return -1;
        match[k] = m;
        n += m;
    }
    if (!n)
        return no_match(a);
    warn_unused(t, a, match);
    return n;
}
