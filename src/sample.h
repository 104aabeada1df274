/* A sample: one prompt, the response to it, and what is known about each of its tokens. Lists of
 * them; byte records.
 *
 * Samples are known by their global index, which does not depend on ranks. A rank fills its own,
 * turns each into a record, and comm_gather_records gives every rank all of them.
 */
#ifndef RLHF_SRC_SAMPLE_H
#define RLHF_SRC_SAMPLE_H

#include "text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Per-token arrays a sample may have; each [n_response] float. */
enum sample_array {
    SAMPLE_DRAWN_LOGPROB, /* as decoding saw it */
    SAMPLE_LOGPROB,       /* recomputed by the training forward: PPO's old log-probability */
    SAMPLE_REF_LOGPROB,   /* of the reference policy */
    SAMPLE_VALUE,
    SAMPLE_ENTROPY,
    SAMPLE_REWARD,
    SAMPLE_ADVANTAGE,
    SAMPLE_RETURN,
    SAMPLE_ARRAYS
};

/* Owns all it points to. The zeroed struct is a valid empty sample. */
struct sample {
    int64_t index;  /* global, counted over the run */
    int64_t source; /* row of the data set that the prompt came from */
    int32_t n_prompt, n_response;
    int32_t *prompt, *response; /* token ids */
    bool finished;              /* the response ends with an EOS token (counted in n_response) */
    struct text prompt_text, response_text;
    double raw_score, score; /* as the rewards gave it; after score_process */
    int32_t n_parts;
    double *part;                /* [n_parts] unweighted, one a configured reward */
    float *array[SAMPLE_ARRAYS]; /* [n_response], or NULL */
};

void sample_free(struct sample *s);

/* Copies of the ids become the sample's. The response drops every per-token array, since its length
 * may change. */
void sample_set_prompt(struct sample *s, const int32_t *ids, int32_t n);
void sample_set_response(struct sample *s, const int32_t *ids, int32_t n);

/* The array, made of zeros where the sample has none yet. */
float *sample_array(struct sample *s, enum sample_array which);

void sample_set_parts(struct sample *s, const double *part, int32_t n);

/* Appends the sample as bytes: header, ids, texts, parts, the arrays there are. Native byte order:
 * records go between ranks of one run, not to files. */
void sample_write(struct text *out, const struct sample *s);

/* Reads one record of exactly n bytes into an empty sample. Errors: ERR_RUN for a record that is
 * cut short, too long, or contradicts itself; s is empty then. */
int sample_read(struct sample *s, const void *bytes, size_t n);

struct sample_list {
    struct sample *sample; /* [n] */
    int64_t n, room;
};

struct sample *
sample_list_add(struct sample_list *list); /* an empty sample at the end, until the next add */
void sample_list_sort(struct sample_list *list);            /* by index, which must be distinct */
int64_t sample_list_tokens(const struct sample_list *list); /* response tokens of all */
void sample_list_clear(struct sample_list *list);           /* frees the samples, keeps the room */
void sample_list_free(struct sample_list *list);

#endif
