/* Each function asks for one value of an object: absent, null, of the wrong kind, out of range, or good. */
#include "arch_keys.h"

#include <stdarg.h>
#include <stdio.h>

void arch_keys_problem(struct arch_keys *k, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    text_format(&k->problems, "%s%s", k->problems.n ? "; " : "", line);
}

const json_t *arch_keys_get(const json_t *object, const char *key)
{
    const json_t *v = key ? json_object_get(object, key) : NULL;
    return json_is_null(v) ? NULL : v;
}

int arch_keys_size(struct arch_keys *k, const char *key, int otherwise, int most)
{
    const json_t *v = arch_keys_get(k->object, key);
    if (!v && otherwise >= 0)
        return otherwise;
    if (!v)
        arch_keys_problem(k, "%s is missing", key);
    else if (!json_is_integer(v))
        arch_keys_problem(k, "%s is not a whole number", key);
    else if (json_integer_value(v) < 1 || json_integer_value(v) > most)
        arch_keys_problem(k, "%s is %lld, must be 1 to %d", key, (long long)json_integer_value(v), most);
    else
        return (int)json_integer_value(v);
    return 0;
}

double arch_keys_real(struct arch_keys *k, const json_t *object, const char *key, double otherwise, double least, double most)
{
    const json_t *v = arch_keys_get(object, key);
    if (!v)
        return otherwise;
    if (!json_is_number(v))
        arch_keys_problem(k, "%s is not a number", key);
    else if (!(json_number_value(v) >= least && json_number_value(v) <= most))
        arch_keys_problem(k, "%s is %g, must be %g to %g", key, json_number_value(v), least, most);
    else
        return json_number_value(v);
    return otherwise;
}

bool arch_keys_flag(struct arch_keys *k, const char *key, bool otherwise)
{
    const json_t *v = arch_keys_get(k->object, key);
    if (!v)
        return otherwise;
    if (!json_is_boolean(v))
        arch_keys_problem(k, "%s is not true or false", key);
    return json_is_true(v);
}

int arch_keys_token(struct arch_keys *k, const char *key, const json_t *v, int vocab, int otherwise)
{
    if (!v)
        return otherwise;
    if (!json_is_integer(v))
        arch_keys_problem(k, "%s is not a whole number", key);
    else if (json_integer_value(v) == -1)
        return -1;
    else if (json_integer_value(v) < 0 || json_integer_value(v) >= vocab)
        arch_keys_problem(k, "%s %lld is outside the vocabulary of %d", key, (long long)json_integer_value(v), vocab);
    else
        return (int)json_integer_value(v);
    return -1;
}
