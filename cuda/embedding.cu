/* Rows of the embedding. */
#include "cuda/load.cuh"
#include "cuda/ops.h"

/* y[n] = row row[n] + first of the table, + add[n] where add is not NULL, rounded to bf16.
 *   y, add [N][H], table [V][ld] bf16, row [N]
 * Block:   up to 256 packs of one row, one a thread
 * Launch:  grid (N, ceil(H / 2048)); threads ceil(H / 8) rounded up to a warp, at most 256
 * Bytes:   reads 2NH (4NH with add), writes 2NH; bound by memory
 * Same bits: element by element
 * Limits:  H % 8 == 0 (checked by the launcher)
 */
__global__ void embed_kernel(bf16 *y, const bf16 *table, const bf16 *add, const int32_t *row, int first, int H, int ld)
{
    const int column = ((int)blockIdx.y * (int)blockDim.x + (int)threadIdx.x) * PACK;
    if (column >= H)
        return;
    const int64_t at = (int64_t)blockIdx.x * H + column;
    const bf16 *from = table + (int64_t)(row[blockIdx.x] + first) * ld + column;
    if (!add) {
        *(uint4 *)(y + at) = *(const uint4 *)from;
        return;
    }
    float v[PACK], a[PACK];
    load_pack(v, from);
    load_pack(a, add + at);
#pragma unroll
    for (int i = 0; i < PACK; i++)
        v[i] += a[i];
    store_pack(y + at, v);
}

void cuda_embed(struct backend *be, act_t *y, const struct linear *table, const act_t *add, const int32_t *row, int first, int N)
{
    enum { THREADS = 256 };
    if (cuda_failed(be) || !N)
        return;
    const int H = table->in, packs = H / PACK, threads = packs < THREADS ? ceil_div(packs, 32) * 32 : THREADS;
    CHECK(H % PACK == 0 && table->dtype != DTYPE_I8, "an embedding of width %d", H);
    LAUNCH(embed_kernel, dim3(N, ceil_div(packs, threads)), threads, 0, cuda_state(be)->stream, y,
           (const bf16 *)table->weight, add, row, first, H, linear_ld(H));
    cuda_check(be, "embed");
}
