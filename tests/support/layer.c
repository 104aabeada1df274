#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/layer.h"
#include "support/ops_check.h"

#include <math.h>
#include <stdlib.h>

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

void layer_put(struct backend *be, struct linear *l, struct lora *adapter, const struct layer *from)
{
    *l = from->shape;
    l->weight = be->ops->region_alloc(be, "weights", be->ops->linear_weight_bytes(be, l));
    assert_non_null(l->weight);
    if (l->dtype == DTYPE_I8) {
        l->absmax = be->ops->region_alloc(be, "weights", (size_t)l->out * sizeof *l->absmax);
        assert_non_null(l->absmax);
    }
    if (from->adapter.r > 0) {
        *adapter = from->adapter;
        l->adapter[0] = adapter;
        adapter->a_packed = be->ops->region_alloc(
            be, "adapters", be->ops->lora_packed_bytes(be, l, adapter->r));
        assert_non_null(adapter->a_packed);
    }
    if (!l->master) { /* in two parts, the later rows first */
        const int half = l->out / 2;
        be->ops->linear_put_rows(be, l, from->rows + (int64_t)half * l->in, DTYPE_F32, half,
                                 l->out - half);
        be->ops->linear_put_rows(be, l, from->rows, DTYPE_F32, 0, half);
    }
    be->ops->linear_refresh(be, l);
}
