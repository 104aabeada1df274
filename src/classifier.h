/* A sequence-classification model beside the policy, on the same backend: texts in, a logit a class out. It has its own folder,
 * tokenizer, weights and passes; workspace is shared with the policy. Forward only.
 *
 *   classifier_open -> classifier_layout twice (arena.h) -> classifier_load -> classifier_pass, .. -> classifier_close
 */
#ifndef RLHF_SRC_CLASSIFIER_H
#define RLHF_SRC_CLASSIFIER_H

#include "hf_folder.h"
#include "micro_batch.h"
#include "token_list.h"

struct engine;
struct reward_text;
struct tokenizer;

struct classifier_options {
    const char *path;          /* Hugging Face folder: an encoder's classifier, or a causal model with a score head */
    bool int8;                 /* linear layers in int8, multiplied as the policy's; else in the type of the file */
    int max_length;            /* tokens of a text at most */
    size_t text_bytes;         /* of the longest text: up to it, a pass does not allocate */
    struct progress *progress; /* may be NULL */
};

struct classifier {
    struct engine *engine;
    struct hf_folder folder;
    struct tokenizer *tokenizer;
    struct model model;
    struct micro_batch micro_batch;
    int max_length; /* that of the options, or the model's positions where they are fewer */
    size_t text_bytes;
    struct token_list ids;     /* of the texts of a pass, one behind the other */
    struct text text;          /* prompt and response */
    struct sequence *sequence; /* [CLASSIFIER_TEXTS] */
    float *logit;              /* [CLASSIFIER_TEXTS][classes] of the last pass */
};

/* Texts and tokens of a pass at most (tokens: at least one text's max_length). Which texts share a pass changes nothing in their
 * logits (row invariance). */
enum { CLASSIFIER_TEXTS = 64, CLASSIFIER_TOKENS = 2048 };

/* Reads config.json, the tokenizer and what tensors there are; e is opened. Ranks: local. Errors: of the files, by name: no
 * sequence classification, no tokenizer or one with more ids than the model; widths that the backend lacks. *c is to be closed
 * in either case. */
int classifier_open(struct classifier *c, struct engine *e, const struct classifier_options *o);

/* Places weights as MEM_REWARD_WEIGHTS, which ranks on one CPU node share, and the rest as MEM_REWARD. */
void classifier_layout(struct classifier *c, struct arena *a);

/* Reads the weights, where no other rank does. Ranks: local; those of a node wait for each other before the first pass. */
int classifier_load(struct classifier *c);

/* Scores as many of the n texts, from the first, as one pass takes; returns their number. A text is its prompt and its response,
 * joined as strings, with the tokens that the tokenizer puts around it, cut at its end to max_length tokens. Logits of text i:
 * c->logit[i * classes ..]. A causal model's are read at the last token that is not config.json's padding, as in transformers.
 * Ranks: local. Errors (-1): of the device, of the tokenizer, a text without tokens. */
int classifier_pass(struct classifier *c, const struct reward_text *texts, int64_t n);

void classifier_close(struct classifier *c);

#endif
