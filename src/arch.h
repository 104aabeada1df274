/* What a model is: sizes, kinds of its parts, names of its tensors. Read from a Hugging Face folder's config.json.
 *
 * A family (config.json's model_type) is one row of the table in arch.c. Code that computes reads the fields of this
 * struct and never asks for the family.
 */
#ifndef RLHF_SRC_ARCH_H
#define RLHF_SRC_ARCH_H

#include "backend.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ARCH_EOS_MAX = 16, ARCH_NAME_MAX = 128 };

/* The linear layers that a block can have. A family has LIN_QKV or the three apart; LIN_MLP_GATE where the MLP is gated. */
enum arch_slot {
    LIN_QKV,
    LIN_Q,
    LIN_K,
    LIN_V,
    LIN_ATTN_OUT,
    LIN_MLP_GATE,
    LIN_MLP_UP,
    LIN_MLP_DOWN,
    ARCH_LINEARS_MAX
};

struct arch_linear {
    const char *
        module; /* HF module path within the layer: "attention.query_key_value"; NULL where absent */
    int out, in; /* 0 where the family lacks the slot */
    bool bias;
    bool default_lora; /* PEFT adapts it when target_modules is not given */
};

/* What rotary angles are made of (SPEC section 6): inv_j = theta^(-2j / rotary_dims), then scaled. */
enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };

struct arch_rope {
    double theta;
    enum rope_scaling scaling;
    double factor;                            /* LINEAR and LLAMA3: >= 1 */
    double low_freq_factor, high_freq_factor; /* LLAMA3 */
    int original_max_positions;               /* LLAMA3 */
};

struct arch_family; /* a row of the table; arch.c's own */

struct arch {
    const struct arch_family *family;
    int hidden, layers, heads, kv_heads, head_dim, intermediate, vocab, max_positions;
    enum norm_kind norm;
    bool norm_bias;
    float norm_eps;
    bool
        parallel_residual; /* y = x + attn(norm1 x) + mlp(norm2 x), else the MLP sees attention's sum */
    int rotary_dims;       /* the first of each head's dimensions; even */
    double rotary_share; /* of head_dim, as config.json has it */
    struct arch_rope rope;
    enum qkv_layout qkv;
    enum activation activation;
    const char *activation_name; /* as config.json has it: ACT_GELU_TANH has several names */
    bool gated_mlp;              /* down(act(gate x) * (up x)) */
    bool tied_head;              /* the head is the embedding; no tensor of its own */
    int bos, pad;                /* -1: none */
    int n_eos, eos[ARCH_EOS_MAX];
    struct arch_linear linear[ARCH_LINEARS_MAX];
};

/* Reads config.json, and generation_config.json's eos_token_id where there is one. Keys of transformers before and since
 * version 5. Ranks: local. Errors: one line that lists every value that is missing, out of range or not supported. */
int arch_read(struct arch *a, const char *folder);

/* Writes config.json for weights of this dtype; transformers 4 and 5 load it. */
int arch_write_config(const struct arch *a, const char *folder, enum dtype dtype);

const char *arch_model_type(const struct arch *a); /* "gpt_neox" */

/* The tensors of a model. */
enum arch_role {
    ROLE_EMBEDDING,
    ROLE_ATTN_NORM,
    ROLE_MLP_NORM,
    ROLE_LINEAR,
    ROLE_FINAL_NORM,
    ROLE_HEAD
};

struct arch_tensor {
    enum arch_role role;
    int layer;           /* 0 outside the layers */
    enum arch_slot slot; /* of ROLE_LINEAR */
    bool bias;
    int n_dims;
    int64_t shape[2]; /* [out][in] of a weight, [V][H] of embedding and head, else [n] */
    char name
        [ARCH_NAME_MAX]; /* as in the family's files: "gpt_neox.layers.0.attention.dense.bias" */
};

/* All tensors in the order embedding, layers, final norm, head (absent when tied): for (i < arch_tensors(a)) .. */
int arch_tensors(const struct arch *a);
void arch_tensor(struct arch_tensor *t, const struct arch *a, int index);

/* One tensor's name. layer and slot are read where the role has them. A tied head's name is the embedding's. */
void arch_tensor_name(char *out, size_t room, const struct arch *a, enum arch_role role, int layer,
                      enum arch_slot slot, bool bias);

/* A linear layer's module path in the HF model: "gpt_neox.layers.0.attention.query_key_value". */
void arch_module_name(char *out, size_t room, const struct arch *a, int layer, enum arch_slot slot);

/* What HF names begin with, and files of the bare model lack: "gpt_neox.", "model.". */
const char *arch_prefix(const struct arch *a);
const char *arch_head_module(const struct arch *a);      /* "embed_out" */
const char *arch_embedding_module(const struct arch *a); /* "gpt_neox.embed_in" */

int64_t arch_parameters(const struct arch *a); /* elements of all tensors */

#endif
