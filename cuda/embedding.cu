/* Rows of the embedding. */
#include "cuda/load.cuh"
#include "cuda/ops.h"

/* y[n] = row id[n] of the table.
 *   y [N][H], table [V][ld] bf16, id [N]
 * Block:   up to 256 packs of one row, one a thread
 * Launch:  grid (N, ceil(H / 2048)); threads ceil(H / 8) rounded up to a warp, at most 256
 * Bytes:   reads 2NH, writes 2NH; bound by memory
 * Same bits: a copy
 * Limits:  H % 8 == 0 (checked by the launcher)
 */
__global__ void embed_kernel(bf16 *y, const bf16 *table, const int32_t *id, int H, int ld)
{
    const int column = ((int)blockIdx.y * (int)blockDim.x + (int)threadIdx.x) * PACK;
    if (column < H)
        *(uint4 *)(y + (int64_t)blockIdx.x * H + column) = *(const uint4 *)(table + (int64_t)id[blockIdx.x] * ld + column);
}

void cuda_embed(struct backend *be, act_t *y, const struct linear *table, const struct batch *b)
{
    enum { THREADS = 256 };
    if (cuda_failed(be) || !b->n_tokens)
        return;
    const int H = table->in, packs = H / PACK, threads = packs < THREADS ? ceil_div(packs, 32) * 32 : THREADS;
    CHECK(H % PACK == 0 && table->dtype != DTYPE_I8, "an embedding of width %d", H);
    LAUNCH(embed_kernel, dim3(b->n_tokens, ceil_div(packs, threads)), threads, 0, cuda_state(be)->stream, y,
           (const bf16 *)table->weight, b->id, H, linear_ld(H));
    cuda_check(be, "embed");
}
