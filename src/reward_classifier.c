/* A classifier, its classes' names, and what of its logits is the score. */
#include "reward_classifier.h"

#include "classifier.h"
#include "error.h"
#include "labels.h"
#include "reward_output.h"

#include <stdlib.h>

struct state {
    struct classifier classifier;
    struct reward_output output;
};

static int open_files(struct state *s, const struct reward_spec *spec)
{
    const struct classifier_options o = {.path = spec->path,
                                         .int8 = spec->int8,
                                         .max_length = spec->max_length,
                                         .text_bytes = 2 * spec->text_bytes,
                                         .progress = spec->progress};
    struct labels labels = {0};
    TRY(classifier_open(&s->classifier, spec->engine, &o));
    int rc = labels_read(&labels, spec->path);
    if (!rc)
        rc = reward_output_choose(&s->output, spec, &labels);
    labels_free(&labels);
    return rc;
}

int reward_classifier_open(void **state, const struct reward_spec *spec)
{
    *state = NULL;
    if (!spec->path || !*spec->path)
        return error_set(ERR_INPUT, "path is missing: a classifier is a folder with config.json, weights and tokenizer.json");
    CHECK(spec->engine, "a classifier without an engine");
    struct state *s = calloc(1, sizeof *s);
    CHECK(s, "out of memory");
    if (open_files(s, spec) != 0) {
        reward_classifier_close(s);
        return -1;
    }
    *state = s;
    return 0;
}

void reward_classifier_layout(void *state, struct arena *a)
{
    struct state *s = state;
    classifier_layout(&s->classifier, a);
}

int reward_classifier_load(void *state)
{
    struct state *s = state;
    return classifier_load(&s->classifier);
}

int reward_classifier_score(void *state, const struct reward_text *texts, int64_t n, double *score)
{
    struct state *s = state;
    for (int64_t done = 0; done < n;) {
        const int k = classifier_pass(&s->classifier, texts + done, n - done);
        if (k < 0)
            return -1;
        for (int i = 0; i < k; i++)
            score[done + i] = reward_output_score(&s->output, s->classifier.logit + (int64_t)i * s->output.n);
        done += k;
    }
    return 0;
}

void reward_classifier_close(void *state)
{
    struct state *s = state;
    if (!s)
        return;
    classifier_close(&s->classifier);
    free(s);
}
