/* What responses are worth: a weighted sum of the configured rewards, each part kept by its name.
 *
 *   reward_open(&r, specs, n)                     before the plan: settings and files are checked
 *   reward_need(r, &need)                         what the engine is to hold for them
 *   reward_layout(r, &arena), twice               as all that has planned memory (arena.h)
 *   reward_load(r)                                weights in, programs started
 *   reward_score(r, texts, n, score, parts)       as often as there are texts;  reward_close(r)
 *
 * A reward sees texts, knows nothing of PPO, and must be deterministic: the same text, the same score on any rank. A type
 * is a row of a table.
 */
#ifndef RLHF_SRC_REWARD_H
#define RLHF_SRC_REWARD_H

#include "settings.h"

#include <stddef.h>
#include <stdint.h>

struct arena;
struct engine;
struct engine_need;
struct progress;
struct reward;

/* One entry of reward = ( { .. }, .. ) in input.cfg. Strings are borrowed by reward_open. */
struct reward_spec {
    const char *type; /* "lexicon", "program", "classifier", "adapter" */
    const char *name; /* of its part in metrics; NULL: the type */
    double weight;
    const char *path;    /* lexicon: the word list; classifier, adapter: the folder */
    const char *command; /* program: run by /bin/sh -c */
    double timeout_sec;  /* program: longest wait without any progress; 0: REWARD_TIMEOUT_SEC */
    const char *label;   /* classifier, adapter: the class that counts; NULL or "": the last one */
    enum function_choice function; /* of its logit */
    bool int8;           /* classifier: linear layers in int8 */
    int max_length;      /* classifier: tokens of a text at most */
    size_t text_bytes;   /* of the longest prompt or response: up to it, scoring does not allocate */
    struct progress *progress; /* ticks while a batch is scored; may be NULL */
    struct engine *engine;     /* opened: the device, and the base that adapters are for; types that compute nothing take NULL */
};

enum { REWARD_TIMEOUT_SEC = 300 };

/* UTF-8, lengths in bytes, may hold NUL; borrowed. */
struct reward_text {
    int64_t index; /* global index of the sample */
    const char *prompt, *response;
    size_t prompt_bytes, response_bytes;
    const int32_t *ids; /* [n_ids] the policy's tokens of both, as it was given and gave them */
    int n_ids;
};

/* A type of reward. open reads what the plan depends on and refuses what is wrong; it starts nothing and is called under --plan
 * too. score writes one unweighted, finite number a text. close takes the NULL state too. */
struct reward_type {
    const char *name;
    int (*open)(void **state, const struct reward_spec *spec);
    int (*need)(void *state, struct engine_need *need);        /* NULL: nothing of the policy's own model */
    void (*layout)(void *state, struct arena *a);              /* NULL: no planned memory */
    int (*load)(void *state);                                  /* NULL: nothing to load or start */
    int (*score)(void *state, const struct reward_text *texts, int64_t n, double *score);
    void (*close)(void *state);
};

const struct reward_type *reward_table(int *n);

/* Opens all rewards. Errors: ERR_INPUT for an unknown type, no reward at all, two of one name, a missing path
 * or command, a weight that is not finite; ERR_FILE, ERR_SYSTEM from the types. *out is NULL then. */
int reward_open(struct reward **out, const struct reward_spec *specs, int n);

/* Adds to a task's need what the rewards compute with in the policy's own model. Errors: those of the types. */
int reward_need(struct reward *r, struct engine_need *need);

/* Places what the rewards compute with. */
void reward_layout(struct reward *r, struct arena *a);

/* Reads weights and starts programs. Weights that the ranks of a node share are read by the node's leader: the caller sees to
 * it that the others wait. Ranks: local. Errors: those of the types, with the reward's name in front. */
int reward_load(struct reward *r);

/* Scores n texts.
 *
 * score  [n] sum over the rewards, in their order, of weight * part
 * parts  [n_parts][n] unweighted
 *
 * Ranks: local. Errors: those of the types, with the reward's name in front; a part that is not
 * finite.
 */
int reward_score(struct reward *r, const struct reward_text *texts, int64_t n, double *score,
                 double *parts);

void reward_close(struct reward *r); /* takes NULL */

int reward_n_parts(const struct reward *r);
const char *reward_part_name(const struct reward *r, int i); /* borrowed */

#endif
