/* Prompts, rewards and rollouts of an engine. */
#include "actor.h"

#include "error.h"
#include "log.h"

int actor_new_tokens(const struct engine *e)
{
    return (int)e->settings->generate.max_new_tokens.max - 1;
}

int actor_prompt_room(const struct engine *e)
{
    const int room = engine_context(e) - actor_new_tokens(e);
    if (room < 1)
        return error_set(ERR_INPUT, "generate.max_new_tokens leaves no room for a prompt: the context has %d tokens",
                         engine_context(e));
    return room;
}

int actor_encode(struct prompt_list *out, const struct engine *e, const struct dataset *data)
{
    const struct settings_data *s = &e->settings->data;
    const int room = actor_prompt_room(e);
    if (room < 0)
        return -1;
    TRY(prompts_encode(out, data, e->tokenizer, s, room, e->folder.arch.vocab));
    if (out->n_cut && s->prompt_tokens.max == 0)
        log_warn("%s: %lld prompts are longer than %d tokens and were cut", data->path, (long long)out->n_cut, room);
    return 0;
}

int actor_longest(const struct engine *e, const struct prompt_list *prompts)
{
    const int64_t most = e->settings->data.prompt_tokens.max - 1;
    return (int)(most > 0 && most < prompts->longest ? most : prompts->longest);
}

int actor_open_rewards(struct reward **out, struct engine *e, size_t text_bytes, struct progress *progress)
{
    const struct settings *s = e->settings;
    struct reward_spec specs[SETTINGS_REWARDS_MAX];
    for (int i = 0; i < s->n_rewards; i++) {
        const struct settings_reward *r = &s->reward[i];
        specs[i] = (struct reward_spec){.type = settings_reward_names[r->type],
                                        .name = r->name,
                                        .weight = r->weight,
                                        .path = r->path,
                                        .command = r->command,
                                        .timeout_sec = r->timeout,
                                        .label = r->label,
                                        .function = r->function_to_apply,
                                        .int8 = r->quantization == QUANTIZATION_INT8,
                                        .max_length = (int)r->max_length,
                                        .text_bytes = text_bytes,
                                        .progress = progress,
                                        .engine = e};
    }
    return comm_agree(e->comm, reward_open(out, specs, s->n_rewards));
}

int actor_load_rewards(struct reward *r, struct engine *e)
{
    TRY(comm_agree(e->comm, r ? reward_load(r) : 0));
    comm_node_barrier(e->comm);
    return 0;
}

void actor_rollout(struct rollout *r, struct engine *e, struct timing *timing)
{
    r->settings = e->settings;
    r->comm = e->comm;
    r->model = &e->model;
    r->generator = &e->generator;
    r->micro_batch = &e->micro_batch;
    r->tokenizer = e->tokenizer;
    r->timing = timing;
    r->eos = e->folder.arch.eos;
    r->n_eos = e->settings->generate.ignore_eos ? 0 : e->folder.arch.n_eos;
}
