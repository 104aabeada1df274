/* The two-pass arena. */
#include "arena.h"

#include "backend.h"
#include "error.h"

static const char *const names[MEM_PURPOSES] = {
    "base weights", "scales, norms",   "embedding, head", "adapters, value head", "gradient accumulators", "optimizer",
    "KV cache",     "activations",     "workspace",       "batch, head rows",     "reward model",
    "reward model, passes", "host staging"};

static bool is_shared(int purpose)
{
    return purpose == MEM_WEIGHTS || purpose == MEM_SCALES || purpose == MEM_EMBEDDING || purpose == MEM_REWARD_WEIGHTS;
}

const char *memory_name(enum memory purpose)
{
    return names[purpose];
}

void *arena_take(struct arena *a, enum memory purpose, size_t n)
{
    CHECK(!a->frozen, "memory for %s requested after the plan was frozen", names[purpose]);
    if (!n)
        return NULL;
    if (a->reward && purpose != MEM_WORKSPACE && purpose != MEM_HOST)
        purpose = is_shared(purpose) ? MEM_REWARD_WEIGHTS : MEM_REWARD;
    n = (n + 63) & ~(size_t)63;
    size_t at = purpose == MEM_WORKSPACE ? 0 : a->used[purpose];
    a->used[purpose] = at + n > a->used[purpose] ? at + n : a->used[purpose];
    if (!a->placing)
        return NULL;
    CHECK(a->used[purpose] <= a->size[purpose], "%s: %zu bytes placed, %zu planned", names[purpose],
          a->used[purpose], a->size[purpose]);
    return a->base[purpose] + at;
}

size_t arena_shared_bytes(const struct arena *a)
{
    size_t total = 0;
    for (int p = 0; p < MEM_PURPOSES; p++)
        total += is_shared(p) ? a->used[p] : 0;
    return total;
}

int arena_place(struct arena *a, struct backend *be, void *shared)
{
    unsigned char *next = shared;
    a->placing = true;
    for (int p = 0; p < MEM_PURPOSES; p++) {
        a->size[p] = a->used[p];
        a->used[p] = 0;
        if (shared && is_shared(p)) {
            a->base[p] = next;
            next += a->size[p];
            continue;
        }
        a->base[p] = p == MEM_HOST ? be->ops->host_alloc(be, names[p], a->size[p])
                                   : be->ops->region_alloc(be, names[p], a->size[p]);
        if (!a->base[p] && a->size[p])
            return error_set(ERR_SYSTEM, "no memory for %s: %zu bytes", names[p], a->size[p]);
    }
    return 0;
}

void arena_freeze(struct arena *a)
{
    for (int p = 0; p < MEM_PURPOSES; p++)
        CHECK(a->used[p] == a->size[p], "%s: %zu bytes placed, %zu planned", names[p], a->used[p], a->size[p]);
    a->frozen = true;
}

size_t arena_device_bytes(const struct arena *a, const struct backend *be)
{
    size_t total = 0;
    for (int p = 0; p < MEM_PURPOSES; p++)
        total += p == MEM_HOST && !be->ops->host_memory ? 0 : a->used[p];
    return total;
}
