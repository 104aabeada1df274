/* Linear layers of random numbers for tests: described once, stored anew in each backend that a test opens. */
#ifndef RLHF_TESTS_SUPPORT_LAYER_H
#define RLHF_TESTS_SUPPORT_LAYER_H

#include "backend.h"

/* shape.weight, .absmax and the adapter's packed copies are NULL here; layer_put fills them in its copy. */
struct layer {
    struct linear shape;
    struct lora adapter; /* r 0: none; else shape.adapter[0] */
    enum dtype source;   /* as which the rows are handed over: float, f16 or bf16 */
    float *rows;         /* [out][in] */
    float *values;       /* what bias and adapter point to */
};

/* Numbers of about 1 / sqrt(in). The result must stay where it is; layer_free frees what it holds. */
void layer_init(struct layer *y, int out, int in, enum dtype dtype, enum matmul matmul, bool bias,
                int r, unsigned seed);
void layer_free(struct layer *y);

/* The rows are handed over as this type: they are rounded to it. */
void layer_source(struct layer *y, enum dtype source);

/* The layer in memory of the backend, in l and (r > 0) adapter, which l points to then. Inside an ops_run. */
void layer_put(struct backend *be, struct linear *l, struct lora *adapter,
               const struct layer *from);

/* Formats of weights. */
enum { LAYER_FORMATS = 6, LAYER_BF16 = 2 };
struct layer_format {
    const char *name;
    enum dtype dtype;
    enum matmul matmul;
    float threshold;
};
extern const struct layer_format layer_formats[LAYER_FORMATS];

/* Layers of one input, in memory of the backend. */
enum { SIBLINGS = 3 };
struct siblings {
    struct linear linear[SIBLINGS], *address[SIBLINGS];
    struct lora adapter[SIBLINGS];
};

/* n <= SIBLINGS layers of about the widths out, out + 3, 2 * out; the second has a bias always and an adapter never. */
void layers_init(struct layer *y, int n, const struct layer_format *f, int in, int out, bool bias,
                 int r, float dropout);
void layers_put(struct backend *be, struct siblings *s, const struct layer *from, int n);

#endif
