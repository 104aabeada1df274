/* Life of the CPU backend, and its table of operations for one instruction set. */
#include "cpu/ops.h"

#include "hash.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define STRING2(x) #x
#define STRING(x)  STRING2(x)

static const char *describe(struct backend *be)
{
    return cpu_state(be)->description;
}

static void close_backend(struct backend *be)
{
    struct cpu_state *s = cpu_state(be);
    if (!s)
        return;
    for (struct cpu_region *r = s->regions, *next; r; r = next) {
        next = r->next;
        free(r->p);
        free(r);
    }
    free(s);
    be->state = NULL;
}

static void *region_alloc(struct backend *be, const char *purpose, size_t bytes)
{
    (void)purpose;
    if (!bytes)
        return NULL;
    struct cpu_region *r = malloc(sizeof *r);
    if (!r || !(r->p = cpu_memory_alloc(bytes))) {
        free(r);
        return NULL;
    }
    r->next = cpu_state(be)->regions;
    cpu_state(be)->regions = r;
    return r->p;
}

static size_t overhead_bytes(struct backend *be, int ranks)
{
    (void)be;
    (void)ranks;
    return 0;
}

static const unsigned char *device_id(struct backend *be)
{
    (void)be;
    return NULL;
}

static bool program_begin(struct backend *be, uint64_t key)
{
    (void)be;
    (void)key;
    return true;
}

static void program_end(struct backend *be)
{
    (void)be;
}

static size_t memory_free(struct backend *be)
{
    (void)be;
    return cpu_memory_free();
}

static int sync_backend(struct backend *be)
{
    const char *message = cpu_state(be)->error;
    return message[0] ? error_set(ERR_SYSTEM, "%s", message) : 0;
}

static size_t workspace_bytes(struct backend *be, int max_tokens, int max_in, int max_out, int max_seq, int head_dim,
                              int vocab)
{
    size_t linear = CPU(linear_workspace)(max_tokens, max_in, max_out);
    size_t head = CPU(head_workspace)(cpu_state(be)->threads, max_in, vocab);
    size_t attention = CPU(attention_workspace)(max_seq, head_dim) * (size_t)cpu_state(be)->threads;
    size_t norm = CPU(norm_workspace)(max_tokens);
    size_t most = linear > head ? linear : head;
    most = attention > most ? attention : most;
    return norm > most ? norm : most;
}

static void workspace_set(struct backend *be, void *workspace, size_t bytes)
{
    cpu_state(be)->workspace = workspace;
    cpu_state(be)->workspace_bytes = bytes;
}

static void copy(struct backend *be, void *to, const void *from, size_t bytes)
{
    (void)be;
    if (bytes && to != from)
        memcpy(to, from, bytes);
}

static void zero(struct backend *be, void *p, size_t bytes)
{
    (void)be;
    memset(p, 0, bytes);
}

static uint64_t hash(struct backend *be, const void *bytes, size_t n)
{
    (void)be;
    return hash_bytes(bytes, n, 0);
}

int CPU(cpu_start)(struct backend *be, int threads)
{
    struct cpu_state *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(ERR_SYSTEM, "out of memory");
    s->threads = threads > 0 ? threads : 1;
    snprintf(s->description, sizeof s->description, "CPU, %d thread%s, %s", s->threads, s->threads == 1 ? "" : "s",
             STRING(CPU_ISA));
    be->state = s;
    return 0;
}

const struct backend_ops CPU(cpu_table) = {
    .abi = BACKEND_ABI,
    .act = DTYPE_F32,
    .name = "cpu",
    .width_multiple = 1,
    .width_most = INT_MAX,
    .head_dim_most = INT_MAX,
    .rank_most = INT_MAX,
    .decode_multiple = 1,
    .trains_weights = 1,
    .host_memory = 1,
    .describe = describe,
    .close = close_backend,
    .region_alloc = region_alloc,
    .host_alloc = region_alloc,
    .memory_free = memory_free,
    .overhead_bytes = overhead_bytes,
    .device_id = device_id,
    .sync = sync_backend,
    .program_begin = program_begin,
    .program_end = program_end,
    .workspace_bytes = workspace_bytes,
    .workspace_set = workspace_set,
    .linear_weight_bytes = CPU(linear_weight_bytes),
    .lora_packed_bytes = CPU(lora_packed_bytes),
    .linear_put_rows = CPU(linear_put_rows),
    .linear_get_rows = CPU(linear_get_rows),
    .linear_refresh = CPU(linear_refresh),
    .copy_in = copy,
    .zero = zero,
    .copy_out = copy,
    .embed = CPU(embed),
    .norm_forward = CPU(norm_forward),
    .linear_forward = CPU(linear_forward),
    .qkv_rope = CPU(qkv_rope),
    .add = CPU(add),
    .cache_bytes = CPU(cache_bytes),
    .attn_forward = CPU(attn_forward),
    .attn_decode = CPU(attn_decode),
    .act_forward = CPU(act_forward),
    .head_logprob = CPU(head_logprob),
    .head_logits = CPU(head_logits),
    .head_sample = CPU(head_sample),
    .score_head = CPU(score_head),
    .head_logprob_backward = CPU(head_logprob_backward),
    .head_slope_backward = CPU(head_slope_backward),
    .score_head_backward = CPU(score_head_backward),
    .norm_backward = CPU(norm_backward),
    .linear_backward = CPU(linear_backward),
    .qkv_rope_backward = CPU(qkv_rope_backward),
    .attn_backward = CPU(attn_backward),
    .act_backward = CPU(act_backward),
    .embed_backward = CPU(embed_backward),
    .grads_zero = CPU(grads_zero),
    .grads_norm = CPU(grads_norm),
    .adamw = CPU(adamw),
    .hash = hash,
    .measure = CPU(measure),
};
