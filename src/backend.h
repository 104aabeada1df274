/* The backend: a table of operations on memory of one device. One operation is one fusable kernel cluster.
 *
 * Operations enqueue work and return nothing. The first error of a device sticks (with the name of the operation); later
 * operations do nothing and sync returns it. Wrong shapes or types are our bugs: CHECK.
 *
 * Every operation is row invariant (DESIGN section 5): an output row, or for attention a sequence, is a function of its
 * own inputs alone. Its bits do not depend on other rows, their number, the slot, the threads or the rank.
 * Forward operations of training, prefill and decode give the same bits for the same token: one product order for all.
 *
 * All pointers are memory of the device (on the CPU: host memory) unless marked host. An activation, and the gradient of
 * one, is an act_t: float on the CPU, bf16 in CUDA. A backend defines BACKEND_ACT as its own type before it includes this
 * header; to everyone else they are opaque, of backend_ops.act.
 * Letters: N packed tokens, S sequences, H hidden, I intermediate, V vocabulary, nh, nkv heads, hd head size, r LoRA rank.
 */
#ifndef RLHF_SRC_BACKEND_H
#define RLHF_SRC_BACKEND_H

#include "rng.h"
#include "tensor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef BACKEND_ACT
#define BACKEND_ACT void
#endif
typedef BACKEND_ACT act_t;

enum { BACKEND_ABI = 4, LINEAR_ADAPTERS = 4, GROUP_MAX = 4, DEVICE_ID_BYTES = 16, REDUCE_ID_BYTES = 128 };

struct text;

/* A ragged batch: the tokens of S sequences, packed, without padding.
 * Training and prefill: sequence s owns tokens start[s] .. start[s+1]-1, at positions 0, 1, ...
 * Decode: one token a sequence; its keys and values so far are in the cache at slot[s]. */
struct batch {
    int n_tokens, n_seqs;
    const int32_t *id;       /* [N] token ids */
    const int32_t *position; /* [N] position within the sequence */
    const int32_t *sequence; /* [N] which of the S sequences */
    const int32_t *start;    /* [S+1] */
    const int32_t *slot;     /* [S] place in the KV cache; unused without a cache */
    const int64_t *sample;   /* [S] global sample index: random numbers and gradients go by it */
};

/* A low-rank adapter of one linear layer: y += scale * B(A(dropout(x))). Float32 masters and packed copies. */
struct lora {
    int r;
    float scale, dropout;
    float *a, *b;               /* A [r][in], B [out][r]: views into the trainable vector, or a frozen adapter's own memory */
    void *a_packed, *b_packed;  /* the backend's layout for forward: lora_packed_bytes */
    int64_t offset_a, offset_b; /* index of their first element in the trainable vector and in the gradients; -1: frozen */
    bool packed;                /* frozen, and packed since it was read: linear_refresh passes over it */
    struct rng_key key;         /* of (seed, RNG_DROPOUT, layer, module) */
};

enum matmul { MATMUL_PLAIN, MATMUL_DEQUANT, MATMUL_LLM_INT8 };

/* y = W x + bias, W [out][in], stored in the backend's own layout. */
struct linear {
    int out, in;
    enum dtype dtype;        /* DTYPE_F32, _F16, _BF16, or _I8 with one scale per output row */
    enum matmul matmul;      /* PLAIN for floating weights; DEQUANT or LLM_INT8 for int8 */
    float outlier_threshold; /* LLM_INT8: |x| >= it is left out of the int8 row; 0: no outliers */
    void *weight;            /* linear_weight_bytes, in MEM_WEIGHTS (MEM_EMBEDDING for the head) */
    float *absmax;           /* [out] int8 only: weight = code * absmax / 127 */
    float *bias;             /* [out] float or NULL */
    struct lora *adapter[LINEAR_ADAPTERS]; /* [0] trained or the policy's; [1] frozen, beside it */
    float *master;           /* pretrain: float [out][in] in the trainable vector, of which weight is the packed copy */
    int64_t offset_weight, offset_bias; /* pretrain: index in the trainable vector; -1: frozen */
};

enum norm_kind { NORM_LAYER, NORM_RMS };

struct norm {
    enum norm_kind kind;
    float eps;
    float *weight, *bias;               /* [H] float; bias NULL for none */
    int64_t offset_weight, offset_bias; /* pretrain: index in the trainable vector; -1: frozen */
};

enum activation { ACT_GELU, ACT_GELU_TANH, ACT_SILU, ACT_RELU, ACT_QUICK_GELU, ACT_TANH };

/* What the linear layers of a pass do beside the base product. */
struct linear_pass {
    int adapter;              /* -1 none (the reference policy), else index into linear.adapter */
    bool dropout;             /* adapters' dropout active */
    uint32_t step;            /* counter word of dropout: the update's number */
    const struct batch *batch; /* sample and position of each row, for dropout and per-sample gradients */
};

enum qkv_layout { QKV_SPLIT, QKV_INTERLEAVED, QKV_FUSED };

/* Shape of a layer's attention. sin/cos tables are float [max_positions][rotary_dims / 2]. */
struct attention {
    int heads, kv_heads, head_dim, rotary_dims, max_positions; /* rotary_dims 0: no rotation */
    enum qkv_layout layout; /* INTERLEAVED: one projection, per head q | k | v (GPT-NeoX); FUSED: one, q | k | v (GPT-2) */
    float scale;            /* of the scores: 1 / sqrt(hd) in most families */
    bool bidirectional;     /* every key is seen by every query; no cache then */
    int window;             /* 0: all keys; w > 0: key j seen by i when i - w < j <= i. 0 where bidirectional */
    const struct norm *q_norm, *k_norm; /* RMS over hd, weight [hd], before the rotation (Qwen3); NULL: none */
    const float *rope_cos, *rope_sin;
};

/* Keys and values of one layer for all slots, in the backend's layout: cache_bytes. */
struct kv_cache {
    void *data;
    int slots, max_tokens;
};

/* Exact gradient accumulators: int64 at 2^48, one per trainable. overflow is raised by a contribution that is not
 * finite or of magnitude >= limit; it holds 1 + the index of the lowest such element (0: none). */
struct grads {
    int64_t *sum; /* [n] */
    int64_t n;
    float limit;
    int64_t *overflow; /* [1] */
};

struct adamw {
    double learning_rate, beta1, beta2, epsilon, weight_decay;
    double correction1, correction2; /* 1 - beta^t */
    double clip;                     /* gradients are multiplied by it (1: no clipping) */
};

struct sampling {
    float temperature; /* 0: greedy */
    int top_k;         /* 0: off */
    float top_p;       /* 1: off */
};

/* Rows of the head's operations: row[i] of x [N][H], i < n. */
struct head_rows {
    int n;
    const int32_t *row;    /* [n] */
    const int32_t *target; /* [n] token whose log-probability is asked for; NULL in sampling */
};

/* What a device can do at best, measured; 0: not known. */
struct device_rates {
    double copy_bytes_per_sec; /* read and written by a copy much larger than the caches */
    double matrix_per_sec;     /* 2 m n k of a large product in the type of activations: bf16, float on the CPU */
    double matrix_int8_per_sec;
};

struct backend {
    const struct backend_ops *ops;
    void *state; /* of the implementation */
};

/* What a backend is opened with. */
struct backend_choice {
    const char *device; /* "auto", "cpu", "cuda" */
    int threads;        /* of the CPU backend */
    int node_rank;      /* this rank among those of its node: which of the visible devices it takes */
    bool plan_only;     /* sizes are asked for, nothing else: the device need not be here */
};

struct backend_ops {
    int abi;
    enum dtype act;      /* of activations */
    const char *name;    /* "cpu", "cuda" */
    int width_multiple;  /* the model's widths (hidden, intermediate, head size) are multiples of it */
    int width_most, head_dim_most, rank_most; /* the largest width, size of a head, rank of adapters */
    int decode_multiple; /* a decode batch has a multiple of so many sequences (the rest idle, in slot kv_cache.slots - 1) */
    int trains_weights;  /* 1: masters, norms and embeddings may be trained; 0: adapters and the scalar head only */
    int host_memory;     /* 1: memory of the device is the host's */

    /* --- life --- */
    const char *(*describe)(struct backend *be); /* "CPU, 2 threads, AVX2": borrowed */
    void (*close)(struct backend *be);
    void *(*region_alloc)(struct backend *be, const char *purpose, size_t bytes); /* zeroed; NULL: none left; freed by close */
    void *(*host_alloc)(struct backend *be, const char *purpose, size_t bytes);   /* the same, host memory that copies fast */
    size_t (*memory_free)(struct backend *be);                                    /* bytes of the device that a plan may use; SIZE_MAX: none here */
    size_t (*overhead_bytes)(struct backend *be, int ranks); /* estimate of what libraries take beside the plan */
    /* [DEVICE_ID_BYTES] two ranks with the same one share a device; NULL: sharing is no matter. Borrowed. */
    const unsigned char *(*device_id)(struct backend *be);
    int (*sync)(struct backend *be);                                              /* 0, or the sticky error */
    /* A program is a list of operations on the same memory, run many times with other contents. begin returns true: the
     * caller enqueues the operations, then calls end (a backend may record them on the way); false: the program of this key
     * was recorded before and is enqueued now. Between begin and end there is no copy, no sync, nothing of load and update. */
    bool (*program_begin)(struct backend *be, uint64_t key);
    void (*program_end)(struct backend *be);
    /* Scratch that the operations need for up to max_tokens rows of these widths, with this many threads. */
    size_t (*workspace_bytes)(struct backend *be, int max_tokens, int max_in, int max_out, int max_seq, int head_dim, int vocab);
    void (*workspace_set)(struct backend *be, void *workspace, size_t bytes);

    /* --- load --- */
    size_t (*linear_weight_bytes)(struct backend *be, const struct linear *l);
    size_t (*lora_packed_bytes)(struct backend *be, const struct linear *l, int r); /* of a_packed plus b_packed */
    /* Host rows [first, first + n) of W, row-major [n][in], float, f16 or bf16; quantises int8 rows by absmax (round half
     * to even) and rounds to what the layer's dtype is stored as. rows may be reused on return. */
    void (*linear_put_rows)(struct backend *be, struct linear *l, const void *rows, enum dtype dtype, int first, int n);
    void (*linear_get_rows)(struct backend *be, const struct linear *l, float *rows, int first, int n); /* dequantised */
    void (*linear_refresh)(struct backend *be, struct linear *l); /* packs master (pretrain) and adapters anew, but those that stay as they are */
    void (*copy_in)(struct backend *be, void *device, const void *host, size_t bytes); /* host may be reused on return */
    void (*zero)(struct backend *be, void *device, size_t bytes);
    void (*copy_out)(struct backend *be, void *host, const void *device, size_t bytes); /* waits for earlier work */

    /* --- forward --- */
    /* y[n] = row row[n] + first of the table (any floating dtype), + add[n] where add is not NULL (it is not y). N rows. */
    void (*embed)(struct backend *be, act_t *y, const struct linear *table, const act_t *add, const int32_t *row, int first, int N);
    /* sum = x + add1 + add2 in this order (each add may be NULL; sum may be x); y1 = norm1(sum), y2 = norm2(sum) (y2, n2 may be NULL).
     * H columns, N rows. */
    void (*norm_forward)(struct backend *be, act_t *y1, act_t *y2, act_t *sum, const act_t *x, const act_t *add1, const act_t *add2,
                         const struct norm *n1, const struct norm *n2, int N, int H);
    /* Siblings that share the input x [N][in]: y[i] [N][out_i] = linear i, with bias and the pass's adapter. x is
     * quantised once. A row's product: blocks of 512 inputs in ascending order, each summed in ascending order with fma. */
    void (*linear_forward)(struct backend *be, act_t *const *y, struct linear *const *l, int n_linears, const act_t *x, int N,
                           const struct linear_pass *pass);
    /* From the projections to normed and rotated q [N][nh*hd], k [N][nkv*hd], v [N][nkv*hd]. INTERLEAVED, FUSED: qkv0 is the
     * one projection [N][(nh+2*nkv)*hd], qkv1 and qkv2 NULL; SPLIT: q, k, v projections; outputs may equal inputs then.
     * Writes keys and values at (slot, position) of the cache when cache is not NULL. */
    void (*qkv_rope)(struct backend *be, act_t *q, act_t *k, act_t *v, const act_t *qkv0, const act_t *qkv1, const act_t *qkv2,
                     const struct attention *a, const struct kv_cache *cache, const struct batch *b);
    /* y = x + add1 + add2 in this order (add2 may be NULL; y may be x). [N][H] */
    void (*add)(struct backend *be, act_t *y, const act_t *x, const act_t *add1, const act_t *add2, int N, int H);
    size_t (*cache_bytes)(struct backend *be, const struct attention *a, int slots, int max_tokens);
    /* o [N][nh*hd]; each sequence attends to its own tokens: causally, within the window, or both ways. Scores over keys in
     * float, softmax by the row's maximum, sums in ascending key order. */
    void (*attn_forward)(struct backend *be, act_t *o, const act_t *q, const act_t *k, const act_t *v,
                         const struct attention *a, const struct batch *b);
    /* One query a sequence against its slot's keys 0 .. position. Same bits as attn_forward. */
    void (*attn_decode)(struct backend *be, act_t *o, const act_t *q, const struct attention *a, const struct kv_cache *cache,
                        const struct batch *b);
    /* y = act(up), or act(gate) * up when gate is not NULL. [N][I] */
    void (*act_forward)(struct backend *be, act_t *y, const act_t *up, const act_t *gate, enum activation act, int N, int I);
    /* For each row: log p(target), entropy and logsumexp of softmax(logits / temperature). Logits in chunks. With slope
     * [n][H] not NULL: also d log p(target) / dx, for head_slope_backward. */
    void (*head_logprob)(struct backend *be, float *logprob, float *entropy, float *lse, act_t *slope, const struct linear *head,
                         const act_t *x, int H, const struct head_rows *rows, float temperature);
    void (*head_logits)(struct backend *be, float *logits, const struct linear *head, const act_t *x, int H,
                        const struct head_rows *rows); /* [n][V], for tests and short prompts */
    /* Draws a token per row: temperature, then top-k, then top-p, then the word random[i]; banned[i] (may be NULL)
     * excludes the eos tokens listed in eos [n_eos] for that row. logprob is of the unfiltered tempered distribution
     * (of softmax(logits) when greedy), the same bits as head_logprob. */
    void (*head_sample)(struct backend *be, int32_t *token, float *logprob, const struct linear *head, const act_t *x, int H,
                        const struct head_rows *rows, const struct sampling *how, const uint32_t *random,
                        const uint8_t *banned, const int32_t *eos, int n_eos);
    /* value[i][k] = w[k] . x[row[i]] + bias[k]; w [K][H], bias [K] or NULL. K = 1: the value head; else scores of classes. */
    void (*score_head)(struct backend *be, float *value, const float *w, const float *bias, int K, const act_t *x, int H,
                       const struct head_rows *rows);

    /* --- backward: dx is added to unless said otherwise --- */
    /* dx[row] += gradient through the logits of sum(dlogprob * logprob + dentropy * entropy); dentropy may be NULL. Rows
     * whose gradients are zero are skipped. With head->master: dW per sequence into g (sequences of b in order). */
    void (*head_logprob_backward)(struct backend *be, act_t *dx, const float *dlogprob, const float *dentropy,
                                  const float *lse, const float *entropy, const struct linear *head, const act_t *x, int H,
                                  const struct head_rows *rows, float temperature, struct grads *g, const struct batch *b);
    /* The same for a frozen head and without dentropy, from the slopes of head_logprob: dx[row] += dlogprob * slope. */
    void (*head_slope_backward)(struct backend *be, act_t *dx, const float *dlogprob, const act_t *slope, int H,
                                const struct head_rows *rows);
    /* dx[row] += sum over k of dvalue[i][k] * w[k], k ascending; the gradients of w and bias, per sequence in row order, into
     * g at offset and offset + K * H (no_bias: of w alone). */
    void (*score_head_backward)(struct backend *be, act_t *dx, const float *dvalue, const float *w, int K, const act_t *x, int H,
                                const struct head_rows *rows, struct grads *g, int64_t offset, bool no_bias,
                                const struct batch *b);
    /* dx += norm1'(dy1) + norm2'(dy2) (dy2, n2 may be NULL); x is the norm's input. Trainable norms: per sequence into g. */
    void (*norm_backward)(struct backend *be, act_t *dx, const act_t *dy1, const act_t *dy2, const act_t *x,
                          const struct norm *n1, const struct norm *n2, int H, struct grads *g, const struct batch *b);
    /* dx (written, not added to) = sum over siblings of W^T dy_i plus their adapters' part; dx NULL: not wanted.
     * dA, dB (and dW, dbias with master) contracted per sequence in float, in token order, then added to g. */
    void (*linear_backward)(struct backend *be, act_t *dx, struct linear *const *l, const act_t *const *dy, int n_linears,
                            const act_t *x, int N, const struct linear_pass *pass, struct grads *g);
    /* Inverse rotation, then backward of the norms of q and k (frozen: no gradient of their weights), whose inputs were
     * qkv0 [N][nh*hd] and qkv1 [N][nkv*hd] (SPLIT; both NULL without norms); outputs in the projections' layout, written. */
    void (*qkv_rope_backward)(struct backend *be, act_t *dqkv0, act_t *dqkv1, act_t *dqkv2, const act_t *dq, const act_t *dk,
                              const act_t *dv, const act_t *qkv0, const act_t *qkv1, const struct attention *a,
                              const struct batch *b);
    void (*attn_backward)(struct backend *be, act_t *dq, act_t *dk, act_t *dv, const act_t *d_o, const act_t *q, const act_t *k,
                          const act_t *v, const struct attention *a, const struct batch *b); /* dq, dk, dv written */
    /* dup (and dgate) written; may overlap dy. */
    void (*act_backward)(struct backend *be, act_t *dup, act_t *dgate, const act_t *dy, const act_t *up, const act_t *gate,
                         enum activation act, int N, int I);
    /* NULL without trains_weights. */
    void (*embed_backward)(struct backend *be, const act_t *dx, int H, int64_t offset, const struct batch *b, struct grads *g);

    /* --- update: over the flat vector of n trainables --- */
    void (*grads_zero)(struct backend *be, struct grads *g);
    /* Sum of squares of sum[i] * 2^-48: chunks of 4096 in double, in index order. Host result. */
    double (*grads_norm)(struct backend *be, const struct grads *g);
    void (*adamw)(struct backend *be, float *p, float *m, float *v, const struct grads *g, const struct adamw *how);
    uint64_t (*hash)(struct backend *be, const void *bytes, size_t n); /* of device memory; the same on every rank of one backend */

    void (*measure)(struct backend *be, struct device_rates *rates); /* takes about a second; needs 544 MiB beside the plan */

    /* --- sums over ranks on the device; all NULL: the caller sums host copies (comm_sum_i64) --- */
    int (*reduce_id)(struct backend *be, void *id); /* [REDUCE_ID_BYTES] of a new group, made by one of its ranks */
    /* Joins the group; every rank of it calls this. timeout_sec: a sum that takes longer is an error. Errors: the library's. */
    int (*reduce_open)(struct backend *be, const void *id, int rank, int size, double timeout_sec);
    void (*reduce_start)(struct backend *be, struct grads *g); /* g.sum of all ranks, after the operations enqueued so far */
    int (*reduce_finish)(struct backend *be); /* waits. Errors: another rank left or hangs; the group is closed then */
};

/* Opens what is chosen. "auto": CUDA where a driver and the module are, else the CPU. Errors: a device that is not there, a
 * module of another ABI, an operation that is missing (by name). */
int backend_open(struct backend *be, const struct backend_choice *choice);

/* The CPU backend by instruction set: "avx512", "avx2", "plain", or NULL for the best this machine has. NULL result: not
 * built or not available here. */
const struct backend_ops *cpu_ops(const char *isa);
int cpu_open(struct backend *be, const char *isa, int threads);

/* Appends what this machine's processor has of what the builds use, and the build that cpu_open(NULL) takes. */
void cpu_describe(struct text *out);

#endif
