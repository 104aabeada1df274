/* Linear layers forward: which product a layer takes. llm.int8 goes in parts of rows, which bounds its scratch whatever the number
 * of rows; a part does not show in the result. */
#include "cuda/int8.h"
#include "cuda/ops.h"

enum { PART_ALIGN = 256 }; /* bytes, of a part of the scratch */

static size_t aligned(size_t bytes)
{
    return (bytes + PART_ALIGN - 1) / PART_ALIGN * PART_ALIGN;
}

/* Scratch: t of all siblings' adapters (gemm.h), then codes and sums of a part. */
static size_t low_bytes(int64_t N, int ranks)
{
    return aligned((size_t)N * (size_t)ranks * sizeof(float));
}

static size_t int8_bytes(int rows, int in, int out)
{
    return aligned(codes_bytes(rows, in)) + int8_sums_bytes(rows, out);
}

size_t cuda_linear_workspace(struct backend *be, int max_tokens, int max_in, int max_out)
{
    (void)be;
    const int rows = int8_rows(1, max_tokens); /* few outputs let a part have the most */
    const size_t forward = low_bytes(max_tokens, LORA_MOST * (int)GROUP_MAX) + int8_bytes(rows, max_in, max_out);
    const size_t backward = gemm_workspace(max_tokens);
    return forward > backward ? forward : backward;
}

/* The siblings of a call that take codes, part by part. */
static void forward_int8(struct backend *be, act_t *const *y, struct linear *const *l, int n_linears, const act_t *x, int N,
                         int rows, const struct epilogue *e, char *codes, char *sums)
{
    for (int first = 0; first < N; first += rows) {
        const int n = N - first < rows ? N - first : rows;
        bool quantised = false;
        struct codes q;
        for (int i = 0; i < n_linears; i++) {
            if (l[i]->matmul != MATMUL_LLM_INT8)
                continue;
            if (!quantised) {
                q = codes_at(codes, x + (int64_t)first * l[i]->in, n, l[i]->in, l[i]->outlier_threshold);
                quantise_rows(be, &q, n);
                quantised = true;
            }
            struct epilogue part = e[i];
            part.t = part.t ? part.t + (int64_t)first * part.r : NULL;
            part.row_absmax = q.absmax;
            int8_forward(be, y[i] + (int64_t)first * l[i]->out, l[i], &q, n, &part, sums);
        }
    }
}

void cuda_linear_forward(struct backend *be, act_t *const *y, struct linear *const *l, int n_linears, const act_t *x, int N,
                         const struct linear_pass *pass)
{
    if (cuda_failed(be) || N == 0)
        return;
    CHECK(n_linears <= GROUP_MAX, "%d siblings", n_linears);
    struct epilogue e[GROUP_MAX] = {};
    int ranks = 0, out_most = 0; /* of all adapters; of those that take codes */
    for (int i = 0; i < n_linears; i++) {
        const struct lora *a = pass_adapter(l[i], pass);
        CHECK(!a || a->r <= LORA_MOST, "an adapter of rank %d", a->r);
        ranks += a ? a->r : 0;
        if (l[i]->matmul == MATMUL_LLM_INT8 && l[i]->out > out_most)
            out_most = l[i]->out;
    }
    const int rows = out_most > 0 ? int8_rows(out_most, N) : 0;
    const size_t low = low_bytes(N, ranks);
    char *scratch = (char *)cuda_scratch(be, low + (rows > 0 ? int8_bytes(rows, l[0]->in, out_most) : 0));
    float *t = (float *)scratch;
    for (int i = 0; i < n_linears; i++) {
        const struct lora *a = pass_adapter(l[i], pass);
        e[i].bias = l[i]->bias;
        e[i].absmax = l[i]->dtype == DTYPE_I8 ? l[i]->absmax : NULL;
        if (a) {
            lora_project(be, t, a, l[i], x, N, pass);
            e[i].t = t;
            e[i].b = a->b;
            e[i].r = a->r;
            e[i].lora_scale = a->scale;
            t += (int64_t)N * a->r;
        }
        if (l[i]->matmul != MATMUL_LLM_INT8)
            gemm_forward(be, y[i], l[i], x, N, &e[i]);
    }
    if (rows > 0)
        forward_int8(be, y, l, n_linears, x, N, rows, e, scratch + low, scratch + low + aligned(codes_bytes(rows, l[0]->in)));
    cuda_check(be, "linear_forward");
}
