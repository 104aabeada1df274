/* A family of models (config.json's model_type) as a row of a table: how transformers names its parts and its keys, what holds
 * where a key is absent, and what its layers are. For arch*.c alone: others read struct arch. */
#ifndef RLHF_SRC_ARCH_FAMILY_H
#define RLHF_SRC_ARCH_FAMILY_H

#include "arch.h"
#include "arch_keys.h"

/* Upper ends of what is believed. Products of two fit in 48 bits, three times the widest in an int. */
enum {
    ARCH_WIDTH_MAX = 1 << 24, /* hidden, intermediate, heads * head_dim */
    ARCH_HEADS_MAX = 1 << 14,
    ARCH_HEAD_DIM_MAX = 1 << 12,
    ARCH_VOCAB_MAX = 1000000,
    ARCH_POSITIONS_MAX = 1 << 28,
};

/* A size that a linear layer has on one side. */
enum arch_size { SIZE_HIDDEN, SIZE_Q, SIZE_KV, SIZE_QKV, SIZE_INTERMEDIATE };

enum arch_biased { BIAS_NEVER, BIAS_ALWAYS, BIAS_ATTENTION, BIAS_MLP }; /* the last two: by the config's flag */

/* Module paths of transformers; NULL: the family has no such part. All but attn_norm to k_norm (within the layer) are whole. */
struct arch_names {
    const char *prefix; /* what they begin with, and files of the bare model lack */
    const char *layers, *embedding, *positions, *token_types, *embedding_norm, *project_in, *project_out;
    const char *attn_norm, *mlp_norm, *q_norm, *k_norm, *final_norm;
    const char *head, *pooler, *score;
};

/* Keys of config.json; NULL: the family lacks it and the default holds. */
struct arch_key_names {
    const char *hidden, *layers, *heads, *intermediate, *max_positions, *kv_heads, *head_dim, *activation, *eps, *theta,
        *rotary_share, *parallel, *attention_bias, *mlp_bias, *window, *use_window;
};

struct arch_family {
    const char *model_type;
    const char *language_model, *classifier; /* classes of transformers; no language_model: an encoder */
    struct arch_names name;
    struct arch_key_names key;

    /* where config.json has no such key */
    int max_positions, kv_heads, head_dim, window; /* kv_heads 0: as heads; head_dim 0: hidden / heads */
    int intermediate_ratio;                        /* intermediate / hidden; 0: the key is needed */
    double eps, rotary_share;                      /* rotary_share 0: no rotation */
    bool parallel, attention_bias, mlp_bias, tied_head;
    const char *activation;
    int bos, eos, pad; /* -1: none */

    enum norm_kind norm;
    bool norm_bias;
    enum residual residual; /* where key.parallel does not say otherwise */
    enum qkv_layout qkv;
    bool transposed, gated_mlp;
    enum activation pooler_activation;
    struct {
        const char *module;
        enum arch_size out, in;
        enum arch_biased bias;
        bool default_lora;
    } linear[ARCH_LINEARS_MAX];

    /* Keys that no other family has, after all the others were read or written; NULL: none. */
    void (*read)(struct arch *a, struct arch_keys *k);
    void (*write)(const struct arch *a, json_t *config);
};

const struct arch_family *arch_family_find(const char *model_type); /* NULL: not known */
void arch_family_names(struct text *out, bool encoders);            /* appends "gpt_neox, gpt2, .." or the encoders' */

/* Rotary positions: rope_theta, rope_scaling, rope_parameters and the families' own keys (arch_rope.c). */
void arch_rope_read(struct arch *a, struct arch_keys *k);
void arch_rope_write(const struct arch *a, json_t *config);

#endif
