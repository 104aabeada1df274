/* Packing sequences. Which of them share a micro-batch changes nothing in the results (row invariance, gradients by sample). */
#include "micro_batch.h"

#include "error.h"

#include <string.h>

void micro_batch_layout(struct micro_batch *mb, struct model *m, struct arena *a)
{
    size_t N = (size_t)m->shape.batch_tokens, S = (size_t)m->shape.batch_seqs, R = (size_t)m->shape.head_rows;
    mb->model = m;
    mb->id = arena_take(a, MEM_HOST, N * 4);
    mb->position = arena_take(a, MEM_HOST, N * 4);
    mb->sequence = arena_take(a, MEM_HOST, N * 4);
    mb->start = arena_take(a, MEM_HOST, (S + 1) * 4);
    mb->slot = arena_take(a, MEM_HOST, S * 4);
    mb->sample = arena_take(a, MEM_HOST, S * 8);
    mb->row = arena_take(a, MEM_HOST, R * 4);
    mb->target = arena_take(a, MEM_HOST, R * 4);
    float **arrays[] = {&mb->logprob, &mb->entropy, &mb->value, &mb->dlogprob, &mb->dentropy, &mb->dvalue};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        *arrays[i] = arena_take(a, MEM_HOST, R * sizeof(float));
}

int micro_batch_take(const struct micro_batch *mb, const struct sequence *s, int n, int max_seqs)
{
    const struct model_shape *shape = &mb->model->shape;
    int tokens = 0, rows = 0, k = 0;
    int limit = max_seqs > 0 && max_seqs < shape->batch_seqs ? max_seqs : shape->batch_seqs;
    for (; k < n && k < limit; k++) {
        tokens += s[k].n;
        rows += s[k].n - s[k].first;
        if (tokens > shape->batch_tokens || rows > shape->head_rows)
            break;
    }
    CHECK(k > 0 || n == 0, "a sequence of %d tokens does not fit a pass of %d", s[0].n, shape->batch_tokens);
    return k;
}

/* The tokens of n sequences, one behind the other. */
static void pack(struct micro_batch *mb, const struct sequence *s, int n)
{
    int N = 0;
    for (int i = 0; i < n; i++) {
        mb->start[i] = N;
        mb->sample[i] = s[i].sample;
        mb->slot[i] = 0;
        for (int t = 0; t < s[i].n; t++) {
            mb->id[N + t] = s[i].ids[t];
            mb->position[N + t] = t;
            mb->sequence[N + t] = i;
        }
        N += s[i].n;
    }
    mb->start[n] = N;
    const struct batch b = {N, n, mb->id, mb->position, mb->sequence, mb->start, mb->slot, mb->sample};
    model_batch(mb->model, &b);
}

int micro_batch_forward(struct micro_batch *mb, struct sequence *s, int n, const struct model_pass *pass, float temperature)
{
    int rows = 0; /* the state before each target */
    pack(mb, s, n);
    for (int i = 0; i < n; i++) {
        for (int t = s[i].first; t < s[i].n; t++, rows++) {
            mb->row[rows] = mb->start[i] + t - 1;
            mb->target[rows] = s[i].ids[t];
        }
    }
    mb->rows = model_rows(mb->model, rows, mb->row, mb->target);
    model_send(mb->model);
    model_forward(mb->model, pass);
    TRY(model_evaluate_rows(mb->model, &mb->rows, pass, temperature, mb->logprob, mb->entropy, s[0].value ? mb->value : NULL));
    for (int i = 0, R = 0; i < n; R += s[i].n - s[i].first, i++) {
        size_t bytes = (size_t)(s[i].n - s[i].first) * sizeof(float);
        memcpy(s[i].logprob, mb->logprob + R, bytes);
        if (s[i].entropy)
            memcpy(s[i].entropy, mb->entropy + R, bytes);
        if (s[i].value)
            memcpy(s[i].value, mb->value + R, bytes);
    }
    return 0;
}

int micro_batch_backward(struct micro_batch *mb, const struct sequence *s, int n, const struct model_pass *pass,
                         float temperature)
{
    int R = 0;
    for (int i = 0; i < n; R += s[i].n - s[i].first, i++) {
        size_t bytes = (size_t)(s[i].n - s[i].first) * sizeof(float);
        memcpy(mb->dlogprob + R, s[i].dlogprob, bytes);
        if (s[i].dentropy)
            memcpy(mb->dentropy + R, s[i].dentropy, bytes);
        if (s[i].dvalue)
            memcpy(mb->dvalue + R, s[i].dvalue, bytes);
    }
    CHECK(R == mb->rows.n, "backward of %d rows, forward had %d", R, mb->rows.n);
    return model_backward_rows(mb->model, &mb->rows, temperature, mb->dlogprob, s[0].dentropy ? mb->dentropy : NULL,
                               s[0].dvalue ? mb->dvalue : NULL, pass);
}

int micro_batch_scores(struct micro_batch *mb, const struct sequence *s, int n, const struct model_pass *pass, float *score)
{
    pack(mb, s, n);
    for (int i = 0; i < n; i++)
        mb->row[i] = mb->model->arch->bidirectional ? mb->start[i] : mb->start[i + 1] - 1;
    mb->rows = model_rows(mb->model, n, mb->row, NULL);
    model_send(mb->model);
    model_forward(mb->model, pass);
    return model_score_rows(mb->model, &mb->rows, score);
}

int micro_batch_backward_scores(struct micro_batch *mb, const float *dscore, const struct model_pass *pass)
{
    return model_backward_scores(mb->model, &mb->rows, dscore, pass);
}

int sequences_evaluate(struct micro_batch *mb, struct sequence *s, int n, const struct model_pass *pass, float temperature)
{
    for (int done = 0; done < n;) {
        int k = micro_batch_take(mb, s + done, n - done, 0);
        TRY(micro_batch_forward(mb, s + done, k, pass, temperature));
        done += k;
    }
    return 0;
}

int sequences_score(struct micro_batch *mb, const struct sequence *s, int n, const struct model_pass *pass, float *score)
{
    for (int done = 0; done < n;) {
        int k = micro_batch_take(mb, s + done, n - done, 0);
        TRY(micro_batch_scores(mb, s + done, k, pass, score + (int64_t)done * mb->model->score.n));
        done += k;
    }
    return 0;
}
