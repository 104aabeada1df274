/* task = "generate": completions of prompts, from data.path or, with data.path = "-", line by line from standard input.
 * Completions go to generate.jsonl, and to standard output when the prompts came from standard input. */
#include "actor.h"
#include "conversation.h"
#include "engine.h"
#include "error.h"
#include "file.h"
#include "jsonl.h"
#include "log.h"
#include "rollout.h"
#include "run.h"
#include "task.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void read_stdin(struct text *out)
{
    char buffer[65536];
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, stdin)) > 0;)
        text_add(out, buffer, n);
}

/* One prompt a line; empty lines are passed over. */
static int dataset_from_lines(struct dataset *d, const struct text *lines)
{
    *d = (struct dataset){.path = strdup("standard input")};
    const char *at = text_string(lines), *end = at + lines->n;
    for (int64_t line = 1; at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t n = (size_t)((stop ? stop : end) - at);
        if (n) {
            d->row = realloc(d->row, (size_t)(d->n + 1) * sizeof *d->row);
            CHECK(d->row, "out of memory");
            d->row[d->n++] = (struct dataset_row){.prompt = strndup(at, n), .n_prompt = n, .line = line};
        }
        at += n + 1;
    }
    return d->n ? 0 : error_set(ERR_FILE, "standard input: no prompts");
}

static int load_prompts(struct prompt_list *prompts, const struct engine *e, const struct text *lines)
{
    struct dataset data = {0};
    int rc = lines ? dataset_from_lines(&data, lines) : dataset_load(&data, &e->settings->data, 0);
    if (!rc)
        rc = conversation_render(&data, e->settings, CONVERSATION_PROMPTS);
    if (!rc)
        rc = actor_encode(prompts, e, &data);
    dataset_free(&data);
    return rc;
}

static int write_completions(struct run *run, const struct sample_list *samples, bool to_stdout)
{
    struct text out = {0};
    for (int64_t i = 0; i < samples->n; i++) {
        const struct sample *s = &samples->sample[i];
        json_t *row = json_pack("{s:s%,s:s%,s:i,s:b}", "prompt", text_string(&s->prompt_text), s->prompt_text.n, "response",
                                text_string(&s->response_text), s->response_text.n, "n_tokens", s->n_response, "ended",
                                (int)s->finished);
        jsonl_add(&out, row, JSON_COMPACT);
        json_decref(row);
    }
    if (to_stdout)
        fwrite(text_string(&out), 1, out.n, stdout);
    char *path = run_path(run, "generate.jsonl");
    int rc = file_write_atomic(path, text_string(&out), out.n);
    if (!rc && !to_stdout)
        log_line("%lld completions; wrote %s", (long long)samples->n, path);
    free(path);
    text_free(&out);
    return rc;
}

static int generate(struct engine *e, struct run *run, const struct options *o, const struct text *lines,
                    struct prompt_list *prompts)
{
    const struct settings *s = e->settings;
    TRY(comm_agree(e->comm, load_prompts(prompts, e, lines)));
    int64_t share = (prompts->n + comm_size(e->comm) - 1) / comm_size(e->comm);
    int64_t slots = s->generate.slots > 0 ? s->generate.slots : share < 32 ? share : 32;
    struct rollout r = {.prompts = *prompts, .shape = {prompts->n, actor_longest(e, prompts), actor_new_tokens(e)}};
    actor_rollout(&r, e, &run->timing);
    struct engine_need need = {.longest = r.shape.n_prompt + r.shape.n_response, .longest_targets = 1, .micro_batch = 4,
                               .slots = (int)slots, .layout = rollout_layout, .context = &r};
    TRY(comm_agree(e->comm, engine_plan(e, &need)));
    if (o->plan) {
        engine_print_plan(e);
        return 0;
    }
    TRY(engine_load(e));
    struct sample_list samples = {0};
    struct rollout_request ask = {.prompts = prompts, .n = prompts->n, .adapter = s->model.adapter[0] ? 0 : -1, .in_order = true,
                                  .temperature = (float)s->generate.temperature};
    int rc = rollout_run(&r, &samples, &ask);
    if (!rc)
        rc = comm_agree(e->comm, comm_rank(e->comm) == 0 ? write_completions(run, &samples, lines != NULL) : 0);
    rollout_free(&r);
    sample_list_free(&samples);
    return rc;
}

int task_generate(const struct settings *s, struct comm *comm, const struct options *o)
{
    struct engine e = {0};
    struct run run;
    struct prompt_list prompts = {0};
    struct text lines = {0};
    bool from_stdin = !strcmp(s->data.path, "-");
    int rc = run_open(&run, s, comm, true);
    if (!rc && from_stdin) {
        if (comm_rank(comm) == 0)
            read_stdin(&lines);
        comm_broadcast_text(comm, &lines);
    }
    if (!rc)
        rc = engine_open(&e, s, comm, o->plan);
    if (!rc)
        rc = generate(&e, &run, o, from_stdin ? &lines : NULL, &prompts);
    prompts_free(&prompts);
    text_free(&lines);
    engine_close(&e);
    run_close(&run);
    return rc;
}
