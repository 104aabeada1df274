/* Rotary positions in config.json: the base, the share of a head that turns, and the scaling to longer contexts.
 *
 * Old: rotary_pct, rope_theta or rotary_emb_base at the top and rope_scaling {type, ..}.
 * transformers 5: rope_parameters {rope_type, rope_theta, partial_rotary_factor, ..}. */
#include "arch_family.h"

#include "error.h"
#include "fmath.h"

#include <string.h>

static const char original_key[] = "original_max_position_embeddings";

static const struct {
    const char *name;
    enum rope_scaling scaling;
} scalings[] = {{"default", ROPE_PLAIN},
                {"linear", ROPE_LINEAR},
                {"dynamic", ROPE_DYNAMIC},
                {"llama3", ROPE_LLAMA3},
                {"yarn", ROPE_YARN}};

enum { SCALINGS = sizeof scalings / sizeof *scalings };

static const char *scaling_name(enum rope_scaling scaling)
{
    for (int i = 0; i < SCALINGS; i++)
        if (scalings[i].scaling == scaling)
            return scalings[i].name;
    return NULL;
}

static bool find_scaling(enum rope_scaling *scaling, const char *name)
{
    for (int i = 0; i < SCALINGS; i++)
        if (!strcmp(scalings[i].name, name)) {
            *scaling = scalings[i].scaling;
            return true;
        }
    return false;
}

static void unknown_scaling(struct arch_keys *k, const char *name)
{
    struct text known = {0};
    for (int i = 0; i < SCALINGS; i++)
        text_format(&known, "%s%s", i ? ", " : "", scalings[i].name);
    arch_keys_problem(k, "rope scaling %.40s is not supported (%s are)", name, text_string(&known));
    text_free(&known);
}

static void read_llama3(struct arch_rope *rope, struct arch_keys *k, const json_t *scaling)
{
    static const char *const needed[] = {"low_freq_factor", "high_freq_factor", original_key};
    for (int i = 0; i < 3; i++)
        if (!arch_keys_get(scaling, needed[i]))
            arch_keys_problem(k, "rope scaling llama3 needs %s", needed[i]);
    rope->low_freq_factor = arch_keys_real(k, scaling, needed[0], 1, 1e-6, 1e6);
    rope->high_freq_factor = arch_keys_real(k, scaling, needed[1], 4, 1e-6, 1e6);
    if (!(rope->low_freq_factor < rope->high_freq_factor))
        arch_keys_problem(k, "low_freq_factor is not below high_freq_factor");
}

static void read_yarn(struct arch_rope *rope, struct arch_keys *k, const json_t *scaling)
{
    static const char *const unsupported[] = {"mscale", "mscale_all_dim"};
    for (int i = 0; i < 2; i++)
        if (arch_keys_get(scaling, unsupported[i]))
            arch_keys_problem(k, "rope scaling yarn with %s is not supported", unsupported[i]);
    if (json_is_false(arch_keys_get(scaling, "truncate")))
        arch_keys_problem(k, "rope scaling yarn with truncate false is not supported");
    rope->beta_fast = arch_keys_real(k, scaling, "beta_fast", 32, 1e-6, 1e6);
    rope->beta_slow = arch_keys_real(k, scaling, "beta_slow", 1, 1e-6, 1e6);
    if (!(rope->beta_slow < rope->beta_fast))
        arch_keys_problem(k, "beta_slow is not below beta_fast");
    rope->attention_factor = arch_keys_real(k, scaling, "attention_factor", 0.1 * math_log(rope->factor) + 1, 1e-3, 1e3);
}

static void read_scaling(struct arch_rope *rope, struct arch_keys *k, const json_t *scaling, int max_positions)
{
    const json_t *type = arch_keys_get(scaling, "rope_type");
    if (!type)
        type = arch_keys_get(scaling, "type");
    const char *name = json_string_value(type);
    if (type && !name)
        arch_keys_problem(k, "rope_type is not a string");
    else if (name && !find_scaling(&rope->scaling, name))
        unknown_scaling(k, name);
    if (rope->scaling == ROPE_PLAIN)
        return;
    if (!arch_keys_get(scaling, "factor"))
        arch_keys_problem(k, "rope scaling %s needs factor", name);
    rope->factor = arch_keys_real(k, scaling, "factor", 1, 1, 1e6);
    rope->original_max_positions = (int)arch_keys_real(k, scaling, original_key, max_positions, 1, ARCH_POSITIONS_MAX);
    if (rope->scaling == ROPE_LLAMA3)
        read_llama3(rope, k, scaling);
    if (rope->scaling == ROPE_YARN)
        read_yarn(rope, k, scaling);
}

static bool is_object_or_null(struct arch_keys *k, const char *key)
{
    const json_t *v = arch_keys_get(k->object, key);
    if (v && !json_is_object(v))
        arch_keys_problem(k, "%s is not an object", key);
    return !v || json_is_object(v);
}

static bool differs_by_layer(const json_t *parameters)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)parameters, key, value)
        if (json_is_object(value))
            return true;
    return false;
}

void arch_rope_read(struct arch *a, struct arch_keys *k)
{
    const struct arch_family *f = a->family;
    if (f->rotary_share == 0 || !is_object_or_null(k, "rope_parameters") || !is_object_or_null(k, "rope_scaling"))
        return;
    const json_t *now = arch_keys_get(k->object, "rope_parameters"), *scaling = arch_keys_get(k->object, "rope_scaling");
    if (differs_by_layer(now)) {
        arch_keys_problem(k, "rope_parameters differ by kind of layer, which is not supported");
        return;
    }
    const double theta = arch_keys_real(k, k->object, f->key.theta, 10000, 1, 1e12);
    const double share = arch_keys_real(k, k->object, f->key.rotary_share, f->rotary_share, 0, 1);
    a->rope.theta = arch_keys_real(k, now, "rope_theta", theta, 1, 1e12);
    a->rotary_share = arch_keys_real(k, now, "partial_rotary_factor", share, 0, 1);
    if (!f->key.rotary_share && a->rotary_share < 1)
        arch_keys_problem(k, "partial_rotary_factor %g is not supported in %s", a->rotary_share, f->model_type);
    a->rotary_dims = (int)(a->head_dim * a->rotary_share);
    if (a->head_dim && (a->rotary_dims < 2 || a->rotary_dims % 2))
        arch_keys_problem(k, "%d rotary dimensions (%g of %d) are not an even number from 2 up", a->rotary_dims,
                          a->rotary_share, a->head_dim);
    read_scaling(&a->rope, k, scaling ? scaling : now, a->max_positions);
}

/* ---- writing ---- */

static json_t *scaling_value(const struct arch_rope *rope)
{
    if (rope->scaling == ROPE_PLAIN)
        return json_null();
    const char *name = scaling_name(rope->scaling);
    json_t *v = json_pack("{s:s, s:s, s:f}", "type", name, "rope_type", name, "factor", rope->factor);
    CHECK(v, "out of memory");
    if (rope->scaling == ROPE_LLAMA3) {
        json_object_set_new(v, "low_freq_factor", json_real(rope->low_freq_factor));
        json_object_set_new(v, "high_freq_factor", json_real(rope->high_freq_factor));
    }
    if (rope->scaling == ROPE_YARN) {
        json_object_set_new(v, "beta_fast", json_real(rope->beta_fast));
        json_object_set_new(v, "beta_slow", json_real(rope->beta_slow));
        json_object_set_new(v, "attention_factor", json_real(rope->attention_factor));
    }
    if (rope->scaling == ROPE_LLAMA3 || rope->scaling == ROPE_YARN)
        json_object_set_new(v, original_key, json_integer(rope->original_max_positions));
    return v;
}

void arch_rope_write(const struct arch *a, json_t *config)
{
    const struct arch_family *f = a->family;
    if (f->rotary_share == 0)
        return;
    json_object_set_new(config, "rope_scaling", scaling_value(&a->rope));
    json_object_set_new(config, f->key.theta, json_real(a->rope.theta));
    if (f->key.rotary_share)
        json_object_set_new(config, f->key.rotary_share, json_real(a->rotary_share));
}
