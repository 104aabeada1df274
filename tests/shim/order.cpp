/* Fisher-Yates shuffles by a generator of its own (splitmix64). */
#include "order.h"

#include "grid.h"

#include <stdlib.h>
#include <utility>
#include <vector>

namespace shim {

bool order_is_ascending = true;

static bool is_set; /* by order_set: the environment is not asked */
static uint64_t seed; /* 0: ascending */
static uint64_t state;
static std::vector<uint32_t> blocks; /* empty: ascending */
static unsigned warps[WARPS_MOST], lanes[LANES];
static int n_warps;

static uint64_t draw()
{
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

template <class T> static void shuffle(T *item, uint64_t n)
{
    for (uint64_t i = n; i > 1; i--)
        std::swap(item[i - 1], item[draw() % i]);
}

static void use(uint64_t value)
{
    seed = state = value;
    order_is_ascending = value == 0;
}

void order_set(uint64_t value)
{
    is_set = true;
    use(value);
}

void order_begin(uint64_t n_blocks, int warps_of_block)
{
    if (!is_set) { /* a test sets it anew between two runs */
        const char *text = getenv("RLHF_SHIM_ORDER");
        const uint64_t wanted = text ? strtoull(text, NULL, 10) : 0;
        if (wanted != seed)
            use(wanted);
    }
    n_warps = warps_of_block;
    for (int i = 0; i < n_warps; i++)
        warps[i] = i;
    for (int i = 0; i < LANES; i++)
        lanes[i] = i;
    blocks.clear();
    if (!seed)
        return;
    blocks.resize(n_blocks);
    for (uint64_t i = 0; i < n_blocks; i++)
        blocks[i] = i;
    shuffle(blocks.data(), n_blocks);
}

uint64_t order_block(uint64_t i)
{
    return blocks.empty() ? i : blocks[i];
}

const unsigned *order_warps()
{
    if (seed)
        shuffle(warps, n_warps);
    return warps;
}

const unsigned *order_lanes()
{
    if (seed)
        shuffle(lanes, LANES);
    return lanes;
}

bool order_at_once_drawn()
{
    return draw() % 2;
}

} // namespace shim
