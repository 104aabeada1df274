/* The model: embedding, blocks, final norm, heads, on the operations of backend.h. One copy of the weights serves the policy
 * (adapter 0), the reference (no adapter, or a frozen one) and reward models (frozen ones): the adapter is a field of the pass.
 *
 *   model_init -> (lora_attach, value head) -> model_layout twice (arena.h) -> weights_read -> passes
 */
#ifndef RLHF_SRC_MODEL_H
#define RLHF_SRC_MODEL_H

#include "arch.h"
#include "arena.h"
#include "backend.h"
#include "progress.h"
#include "trainable.h"

/* The largest shapes that the model's memory is planned for. */
struct model_shape {
    int batch_tokens; /* tokens of one pass: a training micro-batch, a prefill */
    int batch_seqs;
    int head_rows;      /* rows of one call of the head */
    int slots;          /* sequences decoded at once; 0: no cache; a decode batch has up to decode_rows of them */
    int cache_tokens;   /* positions of a slot */
    int kept_layers;    /* activations kept for backward: layers (no recomputation), 1 (recompute), 0 (forward only) */
};

/* Sequences of a decode batch in which n run: the backend's multiple, the rest idle. */
static inline int decode_rows(const struct backend *be, int n)
{
    const int m = be->ops->decode_multiple;
    return (n + m - 1) / m * m;
}

struct layer {
    struct norm norm1, norm2;
    struct norm q_norm, k_norm; /* RMS over head_dim; of models with arch.qk_norm */
    struct attention attention;
    struct linear linear[ARCH_LINEARS_MAX];
    struct lora lora[LINEAR_ADAPTERS][ARCH_LINEARS_MAX]; /* those that linear[].adapter points to */
    struct kv_cache cache;
};

/* What backward needs of one layer, and what forward writes. N = shape.batch_tokens rows each. */
struct activations {
    act_t *attn_in, *mlp_in; /* [N][H] inputs of the branches: what the norms before them give; post-norm: attn_in is x itself, NULL */
    act_t *middle;  /* [N][H] x + attn: the input of norm2, post-norm of norm1; parallel: NULL */
    act_t *end;     /* [N][H] post-norm: mlp_in + mlp, the input of norm2; else NULL */
    act_t *q_in, *k_in; /* [N][nh hd], [N][nkv hd] inputs of the norms of q and k; NULL without them */
    act_t *q, *k, *v, *o; /* [N][nh hd], [N][nkv hd] twice, [N][nh hd] */
    act_t *up, *gate, *act; /* [N][I]; gate NULL without a gated MLP */
};

enum { PACK_ALIGN = 16 }; /* each array of a batch starts at a multiple of it */

/* What a pass is given, in the device's memory: its arrays are packed one behind the other in host memory, then copied at
 * once. Where an array lies is a function of the batch's numbers of tokens and sequences, and of what was packed before. */
struct device_batch {
    struct batch b;
    unsigned char *device, *host; /* [room] */
    size_t room, packed, sent;    /* bytes */
};

/* Scores of a state: classes, or a reward. Trainable in the trainable vector, else frozen in memory of its own. */
struct score_head {
    int n; /* 0: the model has none */
    bool has_bias;
    int64_t offset; /* of weight [n][embedding_width], then bias [n], in the trainable vector; -1: frozen */
    float *weight, *bias;
};

struct model {
    const struct arch *arch;
    struct backend *be;
    struct model_shape shape;
    enum dtype dtype;         /* of the linear layers */
    enum matmul matmul;
    float outlier_threshold;
    bool train_all;           /* pretrain: every weight is trainable */
    struct linear embedding;  /* [V][embedding_width] */
    struct linear head;       /* [V][embedding_width]; ARCH_LANGUAGE_MODEL alone */
    struct linear positions;  /* [position_rows][H] learned positions, token types' row 0 added; out 0: none */
    struct linear project_in, project_out; /* between embedding_width and H; out 0: none. Frozen, without adapters */
    struct linear pooler;     /* [H][H] before the score head; out 0: none. Frozen */
    struct norm embedding_norm, final; /* weight NULL: none */
    struct layer *layer; /* [layers] */
    struct trainable trainable;
    int n_frozen;  /* adapters 1 .. n_frozen of the linear layers */
    int reference; /* adapter of the reference policy's passes: -1: none, the weights alone; else a frozen one */
    int64_t value_offset; /* of the value head's w [embedding_width] and bias [1] in the trainable vector; -1: none */
    struct score_head score;

    act_t **x;              /* [layers + 1] residual stream: inputs of the layers, [N][H]; one buffer when nothing is kept */
    act_t *normed;          /* [N][H] output of the final norm; x[layers] without one */
    act_t *hidden;          /* [N][embedding_width] what the heads read: normed, or its projection */
    struct activations *kept; /* [max(kept_layers, 1)] */
    act_t *attn_out, *mlp_out; /* [N][H] */
    act_t *projection[3];   /* [N][out] query, key, value projections before rotation */
    act_t *dx, *dn1, *dn2, *d_wide[4], *d_narrow[4]; /* gradients of one layer */
    struct device_batch batch;
    float *logprob, *entropy, *lse, *value, *d_logprob, *d_entropy, *d_value; /* [head_rows] */
    float *scores, *d_scores; /* [batch_seqs][score.n] */
    act_t *slope; /* [head_rows][embedding_width] of log-probs, where backward needs nothing else from the head; else NULL */
    void *workspace;
    float *rope_cos, *rope_sin;
    struct progress *progress; /* ticks at each layer of a pass; NULL after model_init */
};

struct model_options {
    enum dtype dtype; /* DTYPE_I8 for quantised linear layers, else the weights' own type */
    enum dtype file_dtype; /* of embedding and head (and of the linear layers where they are not quantised) */
    enum matmul matmul;
    float outlier_threshold;
    bool train_all;
};

/* Describes the layers; no memory of the device yet. arch is borrowed. */
void model_init(struct model *m, const struct arch *arch, struct backend *be, const struct model_options *o);
void model_free(struct model *m);

/* Adds the value head to the trainables. Before layout. */
void model_add_value_head(struct model *m);

/* Adds a score head of n outputs; trainable: as `name`.weight (and `name`.bias) behind the trainables so far, else its weights
 * are to be copied in after layout. Before layout. */
void model_add_score_head(struct model *m, int n, bool bias, bool trainable, const char *name);

/* Places weights, trainables, cache, activations and workspace for the largest shapes. */
void model_layout(struct model *m, struct arena *a, const struct model_shape *shape);

/* Fills the rotary tables. The node's leader calls it once, after placing. */
void model_fill_tables(struct model *m);

/* The next pass is over host batch b (training or prefill form, or decode form): packs its arrays. */
void model_batch(struct model *m, const struct batch *b);

/* Packs bytes behind the batch, and says where in the device's memory they will be. */
void *model_pack(struct model *m, const void *host, size_t bytes);

/* Packs rows of the batch for the head: row[n] and target[n] (may be NULL). */
struct head_rows model_rows(struct model *m, int n, const int32_t *row, const int32_t *target);

/* Copies what was packed since the last call. */
void model_send(struct model *m);

/* A pass over the batch that was sent. adapter: 0 policy, -1 the weights alone, else a frozen one. Writes m->hidden. Operations
 * only: it may be part of a program. */
struct model_pass {
    int adapter;
    bool dropout;
    uint32_t step;      /* dropout's counter */
    bool keep;          /* store what backward needs */
    bool entropy_gradient; /* backward will be given dentropy: the head computes its logits again then */
    bool write_cache;   /* prefill: keys and values to the slots of b */
    bool decode;        /* one token a sequence, attention over the cache */
};
void model_forward(struct model *m, const struct model_pass *pass);

/* log-prob, entropy of the targets, into host arrays [n] (entropy may be NULL), and value (NULL: not wanted). */
int model_evaluate_rows(struct model *m, const struct head_rows *rows, const struct model_pass *pass, float temperature,
                        float *logprob, float *entropy, float *value);

/* Backward of the rows' derivatives (host [n]; dentropy, dvalue may be NULL) and of the model, down to the lowest layer with
 * something to train: adds the gradients of the trainables. Rows and pass must be those of the last model_evaluate_rows. */
int model_backward_rows(struct model *m, const struct head_rows *rows, float temperature, const float *dlogprob,
                        const float *dentropy, const float *dvalue, const struct model_pass *pass);

/* The score head on the rows' states (through the pooler, where the architecture has one), one row a sequence at most, into
 * host score [n][score.n]. */
int model_score_rows(struct model *m, const struct head_rows *rows, float *score);

/* Backward of host dscore [n][score.n] through the trainable score head and the whole model, right after model_score_rows on
 * a pass with keep. */
int model_backward_scores(struct model *m, const struct head_rows *rows, const float *dscore, const struct model_pass *pass);

/* After an update of the trainable vector: packed copies anew. */
void model_refresh(struct model *m);

#endif
