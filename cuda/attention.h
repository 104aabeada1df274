/* Limits and scratch of attention's operations. */
#ifndef RLHF_CUDA_ATTENTION_H
#define RLHF_CUDA_ATTENTION_H

#include <stddef.h>

enum { HEAD_DIM_MOST = 256 };

/* attn_backward: two floats a token and head. */
size_t attention_statistics_bytes(int n_tokens, int heads);

/* attn_decode: what a split leaves (head_dim + 2 floats a head), of as many sequences as are computed at once. */
size_t attention_partials_bytes(int heads, int max_seq, int head_dim);

#endif
