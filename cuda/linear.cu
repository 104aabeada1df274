/* Linear layers forward: which product a layer takes, and in what parts of rows. Rows are independent, so parts do not show in the
 * result; they bound the scratch, whatever the number of rows and the adapters' rank. */
#include "cuda/int8.h"
#include "cuda/ops.h"

enum {
    RANK_MOST = 4096, /* of adapters: the settings' limit */
    PART_ALIGN = 256  /* bytes, of a part of the scratch */
};

static const size_t low_most = (size_t)8 << 20; /* bytes of an adapter's t [rows][r] */

static size_t aligned(size_t bytes)
{
    return (bytes + PART_ALIGN - 1) / PART_ALIGN * PART_ALIGN;
}

/* Where the parts of the scratch begin. */
struct parts {
    size_t low, codes, sums, bytes;
};

static struct parts parts_of(size_t low_bytes, size_t codes, size_t sums)
{
    struct parts p;
    p.low = 0;
    p.codes = aligned(low_bytes);
    p.sums = p.codes + aligned(codes);
    p.bytes = p.sums + sums;
    return p;
}

size_t cuda_linear_workspace(struct backend *be, int max_tokens, int max_in, int max_out)
{
    (void)be;
    const size_t low = (size_t)max_tokens * RANK_MOST * sizeof(float);
    const int rows = int8_rows(1, max_tokens); /* few outputs let a part have the most */
    const size_t forward =
        parts_of(low < low_most ? low : low_most, codes_bytes(rows, max_in), int8_sums_bytes(rows, max_out)).bytes;
    const size_t backward = gemm_workspace(max_tokens, max_in, max_out);
    return forward > backward ? forward : backward;
}

/* The pass of rows first .. alone: the arrays that go by row begin there. */
static struct batch batch_from(const struct batch *b, int first)
{
    struct batch part = *b;
    part.n_tokens -= first;
    part.id = b->id ? b->id + first : NULL;
    part.position = b->position ? b->position + first : NULL;
    part.sequence = b->sequence ? b->sequence + first : NULL;
    return part;
}

/* What all parts of a call share. */
struct call {
    act_t *const *y;
    struct linear *const *l;
    int n_linears, in, out_most;
    const struct linear *quantised; /* one that takes codes; NULL: none */
    const struct linear_pass *pass;
    char *scratch;
    struct parts at;
};

/* N rows from x on, which is row first of the call. */
static void forward_part(struct backend *be, const struct call *c, const act_t *x, int first, int N)
{
    struct linear_pass pass = *c->pass;
    const struct batch batch = pass.batch ? batch_from(pass.batch, first) : (struct batch){};
    pass.batch = pass.batch ? &batch : NULL;
    struct codes q = {};
    if (c->quantised) {
        q = codes_at(c->scratch + c->at.codes, x, N, c->in, c->quantised->outlier_threshold);
        quantise_rows(be, &q, N);
    }
    for (int i = 0; i < c->n_linears; i++) {
        const struct linear *l = c->l[i];
        const struct lora *a = pass_adapter(l, &pass);
        act_t *y = c->y[i] + (int64_t)first * l->out;
        struct epilogue e = {};
        e.bias = l->bias;
        e.absmax = l->dtype == DTYPE_I8 ? l->absmax : NULL;
        if (a) {
            float *low = (float *)(c->scratch + c->at.low);
            lora_project(be, low, a, l, x, N, &pass);
            e.t = low;
            e.b = a->b;
            e.r = a->r;
            e.lora_scale = a->scale;
        }
        if (l->matmul == MATMUL_LLM_INT8) {
            e.row_absmax = q.absmax;
            int8_forward(be, y, l, &q, N, &e, c->scratch + c->at.sums);
        } else {
            gemm_forward(be, y, l, x, N, &e);
        }
    }
}

void cuda_linear_forward(struct backend *be, act_t *const *y, struct linear *const *l, int n_linears, const act_t *x, int N,
                         const struct linear_pass *pass)
{
    if (cuda_failed(be) || N == 0)
        return;
    struct call c = {y, l, n_linears, l[0]->in, 0, NULL, pass, NULL, {}};
    int rows = N, r = 0;
    for (int i = 0; i < n_linears; i++) {
        const struct lora *a = pass_adapter(l[i], pass);
        r = a && a->r > r ? a->r : r;
        c.out_most = l[i]->out > c.out_most ? l[i]->out : c.out_most;
        if (l[i]->matmul == MATMUL_LLM_INT8)
            c.quantised = l[i];
    }
    CHECK(r <= RANK_MOST, "adapter of rank %d", r);
    const int low_rows = r > 0 ? (int)(low_most / sizeof(float)) / r : N;
    rows = low_rows < rows ? low_rows : rows;
    if (c.quantised)
        rows = int8_rows(c.out_most, rows);
    c.at = parts_of((size_t)rows * r * sizeof(float), c.quantised ? codes_bytes(rows, c.in) : 0,
                    c.quantised ? int8_sums_bytes(rows, c.out_most) : 0);
    c.scratch = (char *)cuda_scratch(be, c.at.bytes);
    for (int first = 0; first < N; first += rows)
        forward_part(be, &c, x + (int64_t)first * c.in, first, N - first < rows ? N - first : rows);
    cuda_check(be, "linear_forward");
}
