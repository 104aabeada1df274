/* Which way the sums over ranks go is settled by gradient_init; what differs between the ways is where comm_sum_i64 finds its
 * values, or that it is not needed. */
#include "gradient.h"

#include "comm.h"
#include "error.h"
#include "log.h"

void gradient_init(struct gradient *g, struct model *m, struct comm *comm, bool share_device)
{
    const struct backend_ops *ops = m->be->ops;
    *g = (struct gradient){.model = m, .comm = comm};
    g->on_device = comm_size(comm) > 1 && ops->reduce_start && !share_device;
    if (comm_size(comm) > 1 && !ops->reduce_start && !ops->host_memory && !share_device)
        log_warn("the %s backend was built without NCCL: the sums over ranks go through the host, which is slower", ops->name);
}

void gradient_layout(struct gradient *g, struct arena *a)
{
    const struct trainable *t = &g->model->trainable;
    bool staged = comm_size(g->comm) > 1 && !g->on_device && !g->model->be->ops->host_memory;
    g->staging = staged ? arena_take(a, MEM_HOST, (size_t)t->n * sizeof *g->staging) : NULL;
}

/* For a rank that the others wait for in a call that it cannot complete. */
static void end_run(const struct gradient *g)
{
    error_context("rank %d", comm_rank(g->comm));
    comm_abort(error_message());
}

int gradient_open(struct gradient *g, double timeout_sec)
{
    struct backend *be = g->model->be;
    unsigned char id[REDUCE_ID_BYTES] = {0};
    if (!g->on_device)
        return 0;
    TRY(comm_agree(g->comm, comm_rank(g->comm) == 0 ? be->ops->reduce_id(be, id) : 0));
    comm_broadcast(g->comm, id, sizeof id, 0);
    comm_wait_begin(g->comm);
    if (be->ops->reduce_open(be, id, comm_rank(g->comm), comm_size(g->comm), timeout_sec) != 0)
        end_run(g);
    comm_wait_end(g->comm);
    return 0;
}

void gradient_begin(struct model *m, int64_t n_samples)
{
    m->trainable.grads.limit = (float)(16384.0 / (double)(n_samples > 0 ? n_samples : 1));
    m->be->ops->grads_zero(m->be, &m->trainable.grads);
}

void gradient_sum_start(struct gradient *g)
{
    struct backend *be = g->model->be;
    struct trainable *t = &g->model->trainable;
    if (comm_size(g->comm) == 1)
        return;
    if (g->on_device) {
        be->ops->reduce_start(be, &t->grads);
        return;
    }
    if (g->staging) {
        be->ops->copy_out(be, g->staging, t->grads.sum, (size_t)t->n * sizeof *g->staging);
        if (be->ops->sync(be) != 0)
            end_run(g);
    }
    comm_sum_i64_start(g->comm, g->staging ? g->staging : t->grads.sum, t->n);
}

void gradient_sum_finish(struct gradient *g)
{
    struct backend *be = g->model->be;
    struct trainable *t = &g->model->trainable;
    if (comm_size(g->comm) == 1)
        return;
    if (g->on_device) {
        comm_wait_begin(g->comm);
        if (be->ops->reduce_finish(be) != 0)
            end_run(g);
        comm_wait_end(g->comm);
        return;
    }
    comm_sum_i64_finish(g->comm);
    if (g->staging)
        be->ops->copy_in(be, t->grads.sum, g->staging, (size_t)t->n * sizeof *g->staging);
}

/* Entries are few, so that their places are agreed as ints: the largest for the first. */
const char *gradient_overflow(const struct gradient *g)
{
    struct backend *be = g->model->be;
    const struct trainable *t = &g->model->trainable;
    int64_t overflow = 0;
    int place = 0;
    be->ops->copy_out(be, &overflow, t->grads.overflow, sizeof overflow);
    if (overflow)
        place = t->n_entries - (int)(trainable_at(t, overflow - 1) - t->entry);
    place = comm_max_flag(g->comm, place);
    return place ? t->entry[t->n_entries - place].name : NULL;
}
