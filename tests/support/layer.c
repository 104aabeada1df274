#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/layer.h"
#include "support/ops_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void layer_init(struct layer *y, int out, int in, enum dtype dtype, enum matmul matmul, bool bias,
                int r, unsigned seed)
{
    const float scale = 1 / sqrtf((float)in);
    *y = (struct layer){
        .shape = {out, in, dtype, matmul, .offset_weight = -1, .offset_bias = -1},
        .rows = ops_random((int64_t)out * in, seed, scale),
        .values = ops_random(out + (int64_t)r * (out + in), seed + 1, scale),
    };
    y->shape.bias = bias ? y->values : NULL;
    if (r > 0) {
        y->adapter = (struct lora){.r = r,
                                   .scale = 1.5f,
                                   .a = y->values + out,
                                   .b = y->values + out + (int64_t)r * in,
                                   .key = rng_key(seed, RNG_DROPOUT, 3, 2)};
        y->shape.adapter[0] = &y->adapter;
    }
}

void layer_free(struct layer *y)
{
    free(y->rows);
    free(y->values);
}

/* n floats rounded to a type, in out. */
static void round_to(void *out, const float *x, enum dtype type, int64_t n)
{
    uint16_t *half = out;
    if (type == DTYPE_F32)
        memcpy(out, x, (size_t)n * sizeof *x);
    else
        for (int64_t i = 0; i < n; i++)
            half[i] = type == DTYPE_F16 ? half_from_float(x[i]) : bf16_from_float(x[i]);
}

void layer_source(struct layer *y, enum dtype source)
{
    const int64_t all = (int64_t)y->shape.out * y->shape.in;
    void *rounded = malloc((size_t)all * sizeof *y->rows);
    assert_non_null(rounded);
    round_to(rounded, y->rows, source, all);
    floats_from(y->rows, rounded, source, all);
    free(rounded);
    y->source = source;
}

static void put_rows(struct backend *be, struct linear *l, const struct layer *from, int first,
                     int n)
{
    const int64_t all = (int64_t)n * l->in;
    void *rows = malloc((size_t)all * sizeof(float) + 1);
    assert_non_null(rows);
    round_to(rows, from->rows + (int64_t)first * l->in, from->source, all);
    be->ops->linear_put_rows(be, l, rows, from->source, first, n);
    free(rows);
}

void layer_put(struct backend *be, struct linear *l, struct lora *adapter, const struct layer *from)
{
    const size_t out = (size_t)from->shape.out, in = (size_t)from->shape.in,
                 r = (size_t)from->adapter.r;
    *l = from->shape;
    l->weight = ops_zeros(be, be->ops->linear_weight_bytes(be, l));
    l->absmax = l->dtype == DTYPE_I8 ? ops_zeros(be, out * sizeof *l->absmax) : NULL;
    l->bias = ops_in(be, from->shape.bias, out * sizeof *l->bias);
    l->master = ops_in(be, from->shape.master, out * in * sizeof *l->master);
    if (r > 0) {
        *adapter = from->adapter;
        l->adapter[0] = adapter;
        adapter->a = ops_in(be, from->adapter.a, r * in * sizeof *adapter->a);
        adapter->b = ops_in(be, from->adapter.b, r * out * sizeof *adapter->b);
        adapter->a_packed = ops_zeros(be, be->ops->lora_packed_bytes(be, l, adapter->r));
    }
    if (!l->master) { /* in two parts, the later rows first */
        const int half = l->out / 2;
        put_rows(be, l, from, half, l->out - half);
        put_rows(be, l, from, 0, half);
    }
    be->ops->linear_refresh(be, l);
}

const struct layer_format layer_formats[LAYER_FORMATS] = {
    {"F32", DTYPE_F32, MATMUL_PLAIN, 0},
    {"F16", DTYPE_F16, MATMUL_PLAIN, 0},
    {"BF16", DTYPE_BF16, MATMUL_PLAIN, 0},
    {"int8 dequantised", DTYPE_I8, MATMUL_DEQUANT, 0},
    {"LLM.int8()", DTYPE_I8, MATMUL_LLM_INT8, 0},
    {"LLM.int8() with outliers", DTYPE_I8, MATMUL_LLM_INT8, 3},
};

void layers_init(struct layer *y, int n, const struct layer_format *f, int in, int out, bool bias,
                 int r, float dropout)
{
    for (int i = 0; i < n; i++) {
        const int width = i == 0 ? out : i == 1 ? out + 3 : 2 * out;
        layer_init(&y[i], ops_width(width), in, f->dtype, f->matmul, bias || i == 1, i == 1 ? 0 : r,
                   20 + 2 * (unsigned)i);
        y[i].shape.outlier_threshold = f->threshold;
        y[i].adapter.dropout = dropout;
        y[i].adapter.key = rng_key(9, RNG_DROPOUT, 4, (uint32_t)i);
    }
}

void layers_put(struct backend *be, struct siblings *s, const struct layer *from, int n)
{
    for (int i = 0; i < n; i++) {
        layer_put(be, &s->linear[i], &s->adapter[i], &from[i]);
        s->address[i] = &s->linear[i];
    }
}
