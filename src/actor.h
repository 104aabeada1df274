/* The policy of an engine as one that answers prompts: what the tasks ppo, generate and evaluate have in common. */
#ifndef RLHF_SRC_ACTOR_H
#define RLHF_SRC_ACTOR_H

#include "engine.h"
#include "rollout.h"

/* The data set's prompts as ids, each cut so that a response of generate.max_new_tokens has room behind it (with a warning).
 * Ranks: local. Errors: a context without room, prompts_encode's. Free the list in either case. */
int actor_encode(struct prompt_list *out, const struct engine *e, const struct dataset *data);

/* Tokens that the longest of the prompts has after the cut of data.prompt_tokens. */
int actor_longest(const struct engine *e, const struct prompt_list *prompts);

/* Tokens of the longest response. */
int actor_new_tokens(const struct engine *e);

/* Tokens that the context leaves to a prompt. Returns -1 where there is no room. */
int actor_prompt_room(const struct engine *e);

/* Opens the rewards of the settings; text_bytes: of the longest prompt or response, 0 where it is not known; progress: is told
 * of their answers, or NULL. Before engine_plan. Ranks: collective. Errors: reward_open's. */
int actor_open_rewards(struct reward **out, struct engine *e, size_t text_bytes, struct progress *progress);

/* reward_load of all ranks, which wait for each other; r may be NULL. After engine_load. Ranks: collective. */
int actor_load_rewards(struct reward *r, struct engine *e);

/* Sets what a rollout borrows of engine, settings and timing; its prompts, shape and reward are the caller's. */
void actor_rollout(struct rollout *r, struct engine *e, struct timing *timing);

#endif
