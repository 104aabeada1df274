/* Logits of a model folder, by the model itself, for tests and for the scripts that compare with the reference stack. */
#ifndef RLHF_TESTS_SUPPORT_LOGITS_H
#define RLHF_TESTS_SUPPORT_LOGITS_H

#include <stdint.h>

/* Which adapter the pass applies: read as the trained one, or as a frozen one beside it. */
enum logits_adapter { LOGITS_OFF, LOGITS_TRAINED, LOGITS_FROZEN };

/* Logits [n][V] of one sequence, the caller's to free; *vocab is set. Weights as the folder has them, on the backend of
 * $RLHF_TEST_DEVICE (cpu). adapter: a PEFT folder, read whatever `which` says; NULL: none. NULL with an error in the slot. */
float *logits_of(const char *model, const char *adapter, enum logits_adapter which, const int32_t *ids, int n, int *vocab);

/* Scores of one sequence, the caller's to free; *n_scores is set. adapter: a PEFT folder with a trained score head, on a model folder
 * of any use; NULL: the model folder is a classifier's. NULL with an error in the slot. */
float *scores_of(const char *model, const char *adapter, const int32_t *ids, int n, int *n_scores);

#endif
