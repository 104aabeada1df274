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

/* How large samples are, or may become. */
struct sample_size {
    int32_t n_prompt, n_response, n_parts;
    size_t prompt_bytes, response_bytes; /* of the texts */
};

/* Owns all it points to. The zeroed struct is a valid empty sample. Memory is kept when the sample is cleared, so that one
 * which has met its largest size allocates no more. */
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
    float *array[SAMPLE_ARRAYS]; /* [n_response] of those that the sample has */
    uint32_t arrays;             /* bit i: has array[i] */
    struct sample_size room;     /* of the memory behind the pointers; texts know their own */
};

void sample_clear(struct sample *s);
void sample_free(struct sample *s);

/* The ids are copied. The response drops every per-token array, since its length may change. */
void sample_set_prompt(struct sample *s, const int32_t *ids, int32_t n);
void sample_set_response(struct sample *s, const int32_t *ids, int32_t n);

/* The array, made of zeros where the sample has none yet. */
float *sample_array(struct sample *s, enum sample_array which);
bool sample_has(const struct sample *s, enum sample_array which);

void sample_set_parts(struct sample *s, const double *part, int32_t n);

/* Prompt and response in one array of n_prompt + n_response ids; returns how many. */
int32_t sample_ids(int32_t *ids, const struct sample *s);

/* The sample as sample_bytes bytes: header, ids, texts, parts, the arrays there are. Native byte order:
 * records go between ranks of one run, not to files. */
size_t sample_bytes(const struct sample *s);
size_t sample_bytes_max(const struct sample_size *size); /* of the largest record */
void sample_write(void *out, const struct sample *s);

/* Reads one record of exactly n bytes; what the sample held is gone. Errors: ERR_RUN for a record that is
 * cut short, too long, or contradicts itself; s is empty then. */
int sample_read(struct sample *s, const void *bytes, size_t n);

struct sample_list {
    struct sample *sample; /* [n]; those up to room keep their memory */
    int64_t n, room;
};

/* Room for n samples of at most that size: filling them does not allocate. */
void sample_list_reserve(struct sample_list *list, int64_t n, const struct sample_size *size);
struct sample *
sample_list_add(struct sample_list *list); /* an empty sample at the end, until the next add */
int64_t sample_list_tokens(const struct sample_list *list); /* response tokens of all */
void sample_list_clear(struct sample_list *list);           /* keeps the room */
void sample_list_free(struct sample_list *list);

#endif
