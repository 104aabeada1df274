/* Reward by a PEFT adapter with a score head on the policy's own base: a reward model without a second model in memory.
 *
 * The folder is what PEFT writes for task_type SEQ_CLS: LoRA, and the trained `score` in modules_to_save. It sees the policy's
 * tokens, prompt and response one behind the other as they were generated, not a text that is tokenised again, and is read at the
 * last one, as TRL's get_reward reads a reward model. No end token is put behind a response: a reward model that was trained on
 * texts with their end (TRL's RewardTrainer adds it) is to be given responses that end (generate.ignore_eos = false,
 * ppo.missing_eos_penalty). As in transformers, tokens that are config.json's pad_token_id are passed over at the end.
 */
#ifndef RLHF_SRC_REWARD_ADAPTER_H
#define RLHF_SRC_REWARD_ADAPTER_H

#include "reward.h"

/* Errors: a missing path; peft_open's; no score head, or heads that are none of the base's; reward_output_choose's. */
int reward_adapter_open(void **state, const struct reward_spec *spec);

/* Lists the adapter among the engine's frozen ones. Errors: ERR_INPUT: the base has no room for one more. */
int reward_adapter_need(void *state, struct engine_need *need);

void reward_adapter_layout(void *state, struct arena *a);
int reward_adapter_load(void *state);

/* Texts are read by their ids. */
int reward_adapter_score(void *state, const struct reward_text *texts, int64_t n, double *score);
void reward_adapter_close(void *state);

#endif
