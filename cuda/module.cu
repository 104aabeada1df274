/* What the module exports: the table of operations, and the function that starts them. */
#include "cuda/attention.h"
#include "cuda/gemm.h"
#include "cuda/int8.h"
#include "cuda/ops.h"

extern "C" const struct backend_ops backend_module = {
    .abi = BACKEND_ABI,
    .act = DTYPE_BF16,
    .name = "cuda",
    .width_multiple = 8,
    .width_most = QUANTISE_IN_MOST, /* norms take as many columns */
    .head_dim_most = HEAD_DIM_MOST,
    .rank_most = LORA_MOST,
    .decode_multiple = 8,
    .trains_weights = 0,
    .host_memory = 0,
    .describe = cuda_describe,
    .close = cuda_close,
    .region_alloc = cuda_region_alloc,
    .host_alloc = cuda_host_alloc,
    .memory_free = cuda_memory_free,
    .overhead_bytes = cuda_overhead_bytes,
    .device_id = cuda_device_id,
    .sync = cuda_sync,
    .program_begin = cuda_program_begin,
    .program_end = cuda_program_end,
    .workspace_bytes = cuda_workspace_bytes,
    .workspace_set = cuda_workspace_set,
    .linear_weight_bytes = cuda_linear_weight_bytes,
    .lora_packed_bytes = cuda_lora_packed_bytes,
    .linear_put_rows = cuda_linear_put_rows,
    .linear_get_rows = cuda_linear_get_rows,
    .linear_refresh = cuda_linear_refresh,
    .copy_in = cuda_copy_in,
    .zero = cuda_zero,
    .copy_out = cuda_copy_out,
    .embed = cuda_embed,
    .norm_forward = cuda_norm_forward,
    .linear_forward = cuda_linear_forward,
    .qkv_rope = cuda_qkv_rope,
    .add = cuda_add,
    .cache_bytes = cuda_cache_bytes,
    .attn_forward = cuda_attn_forward,
    .attn_decode = cuda_attn_decode,
    .act_forward = cuda_act_forward,
    .head_logprob = cuda_head_logprob,
    .head_logits = cuda_head_logits,
    .head_sample = cuda_head_sample,
    .score_head = cuda_score_head,
    .head_logprob_backward = cuda_head_logprob_backward,
    .head_slope_backward = cuda_head_slope_backward,
    .score_head_backward = cuda_score_head_backward,
    .norm_backward = cuda_norm_backward,
    .linear_backward = cuda_linear_backward,
    .qkv_rope_backward = cuda_qkv_rope_backward,
    .attn_backward = cuda_attn_backward,
    .act_backward = cuda_act_backward,
    .embed_backward = NULL,
    .grads_zero = cuda_grads_zero,
    .grads_norm = cuda_grads_norm,
    .adamw = cuda_adamw,
    .hash = cuda_hash,
    .measure = cuda_measure,
    .reduce_id = cuda_reduce_id,
    .reduce_open = cuda_reduce_open,
    .reduce_start = cuda_reduce_start,
    .reduce_finish = cuda_reduce_finish,
};

extern "C" int backend_module_open(struct backend *be, const struct backend_choice *choice)
{
    return cuda_open(be, choice);
}
