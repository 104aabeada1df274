/* Tensor cores lane by lane: which lane holds what is drawn in cuda/mma.cuh. */
#include "tensor_core.h"

#include <string.h>

namespace shim {

enum {
    ROWS = 16,
    COLUMNS = 8,
    WORDS = 8
}; /* of A; of B; registers along k of an A row or a B column */

/* Fragments as matrices of registers: a [row][along k], b [along k][column]. */
template <class T> struct tile {
    uint32_t a[ROWS][WORDS], b[WORDS][COLUMNS];
    T c[ROWS][COLUMNS];
};

static void check_whole(void *const part[LANES])
{
    for (int lane = 0; lane < LANES; lane++)
        if (!part[lane])
            broken("lane %d has exited before an operation of the whole warp", lane);
}

template <class T> static void gather(struct tile<T> *m, void *const part[LANES])
{
    check_whole(part);
    for (int lane = 0; lane < LANES; lane++) {
        const struct product<T> *p = (const struct product<T> *)part[lane];
        const int g = lane / 4, t = lane % 4;
        m->a[g][t] = p->a[0];
        m->a[g + 8][t] = p->a[1];
        m->a[g][t + 4] = p->a[2];
        m->a[g + 8][t + 4] = p->a[3];
        m->b[t][g] = p->b[0];
        m->b[t + 4][g] = p->b[1];
        memcpy(&m->c[g][2 * t], p->c, 2 * sizeof(T));
        memcpy(&m->c[g + 8][2 * t], p->c + 2, 2 * sizeof(T));
    }
}

template <class T> static void scatter(const struct tile<T> *m, void *const part[LANES])
{
    for (int lane = 0; lane < LANES; lane++) {
        const struct product<T> *p = (const struct product<T> *)part[lane];
        const int g = lane / 4, t = lane % 4;
        memcpy(p->c, &m->c[g][2 * t], 2 * sizeof(T));
        memcpy(p->c + 2, &m->c[g + 8][2 * t], 2 * sizeof(T));
    }
}

/* A row of b or c. */
typedef uint32_t words __attribute__((vector_size(COLUMNS * sizeof(uint32_t))));
typedef int32_t integers __attribute__((vector_size(COLUMNS * sizeof(int32_t))));
typedef float floats __attribute__((vector_size(COLUMNS * sizeof(float))));

static void sum_bf16(struct tile<float> *m)
{
    floats b[2 * WORDS];
    for (int w = 0; w < WORDS; w++) {
        words pair;
        memcpy(&pair, m->b[w], sizeof pair);
        b[2 * w] = (floats)(pair << 16);
        b[2 * w + 1] = (floats)(pair & 0xffff0000u);
    }
    for (int row = 0; row < ROWS; row++) {
        floats c;
        memcpy(&c, m->c[row], sizeof c);
        for (int w = 0; w < WORDS; w++) {
            const uint32_t pair = m->a[row][w];
            c += __builtin_bit_cast(float, pair << 16) * b[2 * w];
            c += __builtin_bit_cast(float, pair & 0xffff0000u) * b[2 * w + 1];
        }
        memcpy(m->c[row], &c, sizeof c);
    }
}

/* Unsigned sums wrap, as the hardware's do. */
static void sum_s8(struct tile<int32_t> *m)
{
    words b[4 * WORDS];
    for (int w = 0; w < WORDS; w++) {
        integers four;
        memcpy(&four, m->b[w], sizeof four);
        for (int i = 0; i < 4; i++)
            b[4 * w + i] = (words)(((four << (24 - 8 * i))) >> 24);
    }
    for (int row = 0; row < ROWS; row++) {
        words c;
        memcpy(&c, m->c[row], sizeof c);
        for (int w = 0; w < WORDS; w++)
            for (int i = 0; i < 4; i++)
                c += (uint32_t)(int8_t)(m->a[row][w] >> 8 * i) * b[4 * w + i];
        memcpy(m->c[row], &c, sizeof c);
    }
}

void multiply_bf16(void *const part[LANES])
{
    struct tile<float> m;
    gather(&m, part);
    sum_bf16(&m);
    scatter(&m, part);
}

void multiply_s8(void *const part[LANES])
{
    struct tile<int32_t> m;
    gather(&m, part);
    sum_s8(&m);
    scatter(&m, part);
}

/* --- ldmatrix --- */

static void load(void *const part[LANES], int n_matrices, bool transposed, const char *operation)
{
    uint16_t matrix[4][8][8];
    check_whole(part);
    for (int lane = 0; lane < n_matrices * 8; lane++) {
        const void *row = ((const struct matrix_load *)part[lane])->row;
        check_shared(row, 16, operation);
        memcpy(matrix[lane / 8][lane % 8], row, 16);
    }
    for (int lane = 0; lane < LANES; lane++) {
        uint32_t *r = ((const struct matrix_load *)part[lane])->r;
        const int g = lane / 4, t = 2 * (lane % 4);
        for (int j = 0; j < n_matrices; j++)
            r[j] = transposed ? matrix[j][t][g] | (uint32_t)matrix[j][t + 1][g] << 16
                              : matrix[j][g][t] | (uint32_t)matrix[j][g][t + 1] << 16;
    }
}

void load_x4(void *const part[LANES])
{
    load(part, 4, false, "ldmatrix_x4");
}

void load_x2(void *const part[LANES])
{
    load(part, 2, false, "ldmatrix_x2");
}

void load_x4_trans(void *const part[LANES])
{
    load(part, 4, true, "ldmatrix_x4_trans");
}

void load_x2_trans(void *const part[LANES])
{
    load(part, 2, true, "ldmatrix_x2_trans");
}

/* --- copies --- */

void copy_start(void *shared, const void *global, bool valid)
{
    check_shared(shared, 16, "copy_async16");
    if ((uintptr_t)global % 16 != 0)
        broken("copy_async16: global address %p is not aligned to 16 bytes", global);
    memset(shared, 0xff, 16);
    struct copies *c = &current->copies;
    c->list.push_back({shared, valid ? global : NULL, c->group});
}

void copy_commit()
{
    current->copies.group++;
}

void copy_wait(unsigned pending)
{
    struct copies *c = &current->copies;
    for (; c->made < c->list.size() && c->list[c->made].group + pending < c->group; c->made++) {
        const struct copy *one = &c->list[c->made];
        if (one->global)
            memcpy(one->shared, one->global, 16);
        else
            memset(one->shared, 0, 16);
    }
    if (c->made == c->list.size()) {
        c->list.clear();
        c->made = 0;
    }
}

} // namespace shim
