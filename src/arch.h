/* What a model is: sizes, kinds of its parts, names of its tensors. Read from a Hugging Face folder's config.json.
 *
 * A family (config.json's model_type) is one row of the table in arch_families.c. Code that computes reads the fields of
 * this struct and never asks for the family.
 */
#ifndef RLHF_SRC_ARCH_H
#define RLHF_SRC_ARCH_H

#include "backend.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { ARCH_EOS_MAX = 16, ARCH_NAME_MAX = 128, ARCH_LAYERS_MAX = 4096 };

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

/* What rotary angles are made of (SPEC section 6): inv_j = theta^(-2j / rotary_dims), then scaled (rope_table.h). */
enum rope_scaling {
    ROPE_PLAIN,
    ROPE_LINEAR,
    ROPE_DYNAMIC, /* plain up to max_positions; no sequence is longer here */
    ROPE_LLAMA3,
    ROPE_YARN
};

struct arch_rope {
    double theta;
    enum rope_scaling scaling;
    double factor;                            /* all but PLAIN: >= 1 */
    double low_freq_factor, high_freq_factor; /* LLAMA3 */
    double beta_fast, beta_slow;              /* YARN: turns within original_max_positions */
    double attention_factor;                  /* YARN: of cosines and sines */
    int original_max_positions;               /* LLAMA3, YARN */
};

/* How a block's two branches are joined.
 *   SEQUENTIAL  x1 = x + attn(norm1 x);  y = x1 + mlp(norm2 x1)
 *   PARALLEL    y = x + attn(norm1 x) + mlp(norm2 x)
 *   POST_NORM   x1 = norm1(x + attn x);  y = norm2(x1 + mlp x1) */
enum residual { RESIDUAL_SEQUENTIAL, RESIDUAL_PARALLEL, RESIDUAL_POST_NORM };

struct arch_family; /* a row of the table (arch_family.h) */

/* What a folder's weights are read as. */
enum arch_use {
    ARCH_LANGUAGE_MODEL, /* with the head over the vocabulary */
    ARCH_CLASSIFIER,     /* with the score head of n_labels classes that the folder holds; no head over the vocabulary */
    ARCH_BACKBONE        /* neither: a score head is to be trained; the folder may hold either */
};

struct arch {
    const struct arch_family *family;
    enum arch_use use;
    int hidden, layers, heads, kv_heads, head_dim, intermediate, vocab;
    int max_positions;   /* of a sequence (RoBERTa: its table's rows less position_offset) */
    int embedding_width; /* of embedding and head; hidden but where projections stand between (OPT's word_embed_proj_dim) */
    int position_rows, position_offset; /* learned positions: row position + offset of the table; rows 0: none */
    int type_rows;       /* of token types; row 0 is added to every position as the weights are read; 0: none */
    bool embedding_norm; /* a norm behind the embeddings (encoders) */
    bool final_norm;
    bool bidirectional;  /* an encoder: its score is read at the first token, else at the last, and its score head has a bias */
    bool qk_norm;        /* RMS norms of q and k, per head, before the rotation */
    float attention_scale; /* of the scores: 1 / sqrt(head_dim), or 1 (GPT-Neo) */
    bool scale_by_layer;   /* divided by 1 + the layer's number too (GPT-2's scale_attn_by_inverse_layer_idx) */
    int window;            /* of the layers marked in windowed; 0: none is */
    uint8_t windowed[ARCH_LAYERS_MAX]; /* 1: the layer sees window keys, 0: all */
    bool transposed;       /* linear weights lie as [in][out] in the files (GPT-2's Conv1D) */
    int n_labels;          /* ARCH_CLASSIFIER: classes */
    bool pooler;           /* a dense layer and its activation before the score head */
    enum activation pooler_activation;
    enum norm_kind norm;
    bool norm_bias;
    float norm_eps;
    enum residual residual;
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
 * version 5. Ranks: local. Errors: one line that lists every value that is missing, out of range or not supported; a family
 * that is not known, or an encoder as a language model. */
int arch_read(struct arch *a, const char *folder, enum arch_use use);

/* Writes config.json (as of a language model, or of the bare encoder) for weights of this dtype, and generation_config.json;
 * transformers 4 and 5 load them. */
int arch_write_config(const struct arch *a, const char *folder, enum dtype dtype);

const char *arch_model_type(const struct arch *a); /* "gpt_neox" */

/* The tensors of a model. */
enum arch_role {
    ROLE_EMBEDDING,
    ROLE_ATTN_NORM,
    ROLE_MLP_NORM,
    ROLE_LINEAR,
    ROLE_FINAL_NORM,
    ROLE_HEAD,
    ROLE_POSITIONS,
    ROLE_TOKEN_TYPES,
    ROLE_EMBEDDING_NORM,
    ROLE_PROJECT_IN, /* embedding_width -> hidden */
    ROLE_Q_NORM,
    ROLE_K_NORM,
    ROLE_PROJECT_OUT, /* hidden -> embedding_width */
    ROLE_POOLER,
    ROLE_SCORE
};

struct arch_tensor {
    enum arch_role role;
    int layer;           /* 0 outside the layers */
    enum arch_slot slot; /* of ROLE_LINEAR */
    bool bias;
    int n_dims;
    int64_t shape[2]; /* as in the files: [out][in] of a weight ([in][out] where transposed), [V][width], else [n] */
    bool transposed;
    char name
        [ARCH_NAME_MAX]; /* as in the family's files: "gpt_neox.layers.0.attention.dense.bias" */
};

/* All tensors of this use in the order embeddings, layers, final norm, heads (a tied head has none of its own): for (i <
 * arch_tensors(a)) .. */
int arch_tensors(const struct arch *a);
void arch_tensor(struct arch_tensor *t, const struct arch *a, int index);

/* The tensor of a place: layer and slot are read where the role has them. False: the model has none. */
bool arch_find_tensor(struct arch_tensor *t, const struct arch *a, enum arch_role role, int layer, enum arch_slot slot,
                      bool bias);

/* One tensor's name. layer and slot are read where the role has them. A tied head's name is the embedding's. */
void arch_tensor_name(char *out, size_t room, const struct arch *a, enum arch_role role, int layer, enum arch_slot slot,
                      bool bias);

/* A linear layer's module path in the HF model: "gpt_neox.layers.0.attention.query_key_value". */
void arch_module_name(char *out, size_t room, const struct arch *a, int layer, enum arch_slot slot);

/* What HF names begin with, and files of the bare model lack: "gpt_neox.", "model.". */
const char *arch_prefix(const struct arch *a);
const char *arch_embedding_module(const struct arch *a); /* "gpt_neox.embed_in" */
const char *arch_score_module(const struct arch *a);     /* "score", "classifier", "classifier.out_proj" */
const char *arch_pooler_module(const struct arch *a);    /* "pre_classifier"; NULL without a pooler */
const char *arch_classifier_class(const struct arch *a); /* "LlamaForSequenceClassification": transformers' name */

/* The token that fills batches of a classifier, for which transformers scores the last token that is another: pad_token_id, else
 * the first end token; -1: none. */
int arch_classifier_pad(const struct arch *a);

const char *arch_head_module(const struct arch *a);      /* of this use: "embed_out", else the score's */

int64_t arch_parameters(const struct arch *a); /* elements of all tensors */

#endif
