/* The targets. Each opens, uses a little of what was opened, and closes. */
#include "targets.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "arch.h"
#include "conversation.h"
#include "dataset.h"
#include "error.h"
#include "file.h"
#include "jinja.h"
#include "jsonl.h"
#include "manifest.h"
#include "peft.h"
#include "reward_lexicon.h"
#include "safetensors.h"
#include "settings.h"
#include "tokenizer.h"
#include "unicode.h"

/* A refusal has a message of one printable line and a wrong-input exit code. */
static int refused(int rc)
{
    const char *message = error_message();
    if (!rc)
        return 0;
    CHECK(*message, "refused without a message");
    CHECK(error_exit_code() == 1 || error_exit_code() == 2, "exit code %d", error_exit_code());
    for (const char *p = message; *p; p++)
        CHECK((unsigned char)*p >= 0x20 || (*p == '\n' && error_kind() == ERR_INPUT), "byte %d in a message", *p);
    return 1;
}

static void run_safetensors(const char *folder, const char *path, const char *bytes, size_t n)
{
    (void)folder, (void)bytes, (void)n;
    struct safetensors s;
    if (refused(safetensors_open(&s, path)))
        return;
    for (int i = 0; i < s.n; i++) {
        const struct safetensors_entry *e = &s.entry[i];
        const int64_t some = e->n < 4096 ? e->n : 4096;
        float values[4096];
        CHECK(safetensors_find(&s, e->name) == e, "%s is not found", e->name);
        if (safetensors_is_float(e)) {
            refused(safetensors_floats(values, e, 0, some));
            refused(safetensors_floats(values, e, e->n - some, some));
        }
    }
    safetensors_close(&s);
}

static void run_shards(const char *folder, const char *path, const char *bytes, size_t n)
{
    (void)path, (void)bytes, (void)n;
    struct safetensors s;
    if (!refused(safetensors_open(&s, folder)))
        safetensors_close(&s);
}

static void run_config(const char *folder, const char *path, const char *bytes, size_t n)
{
    (void)path, (void)bytes, (void)n;
    static const enum arch_use uses[] = {ARCH_LANGUAGE_MODEL, ARCH_CLASSIFIER, ARCH_BACKBONE};
    bool taken = false;
    for (int i = 0; i < 3; i++) {
        struct arch a;
        struct arch_tensor t;
        if (refused(arch_read(&a, folder, uses[i])))
            continue;
        taken = true;
        CHECK(arch_parameters(&a) > 0 && a.layers > 0 && a.heads % a.kv_heads == 0 && a.max_positions > 0, "a sound shape");
        CHECK(a.window >= 0 && a.rotary_dims <= a.head_dim && a.attention_scale > 0, "sound attention");
        CHECK(uses[i] != ARCH_CLASSIFIER || a.n_labels > 0, "a classifier without labels");
        arch_tensor(&t, &a, arch_tensors(&a) - 1);
    }
    if (taken)
        error_clear();
}

static void run_adapter(const char *folder, const char *path, const char *bytes, size_t n)
{
    (void)path, (void)bytes, (void)n;
    struct arch a;
    struct peft_adapter p;
    float weight[4096], bias;
    bool found;
    CHECK(arch_read(&a, folder, ARCH_LANGUAGE_MODEL) == 0, "%s", error_message());
    if (!refused(peft_open(&p, folder, &a))) {
        for (int i = 0; i < p.n; i++)
            CHECK(p.pair[i].a->shape[0] == p.pair[i].size.r && p.pair[i].b->shape[1] == p.pair[i].size.r, "shape of an adapter");
        peft_close(&p);
    }
    refused(peft_read_value_head(weight, &bias, &found, folder, a.hidden));
}

/* Texts that reach every stage. */
static const char *const texts[] = {"A film.  It's 2024, and I LOVED it!\n\n\tBut why?", " \xe2\x96\x81x\xe2\x96\x81 ",
                                    "caf\xc3\xa9 cafe\xcc\x81 \xed\x95\x9c\xea\xb5\xad\xec\x96\xb4 \xf0\x9f\x98\x80\xf0\x9f\x8f\xbd",
                                    "broken \xff\xc3 \xe2\x96 end<|endoftext|></s>", ""};

static void run_tokenizer(const char *folder, const char *path, const char *bytes, size_t n)
{
    (void)folder, (void)bytes, (void)n;
    struct tokenizer *t = NULL;
    if (refused(tokenizer_open(&t, path)))
        return;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct token_list ids = {0};
        struct text back = {0};
        if (!refused(tokenizer_encode(t, &ids, texts[i], strlen(texts[i]), true))) {
            for (int64_t k = 0; k < ids.n; k++)
                CHECK(ids.ids[k] >= 0 && ids.ids[k] < tokenizer_vocab_size(t), "id %d", ids.ids[k]);
            refused(tokenizer_decode(t, &back, ids.ids, ids.n, false));
            ids.n = 0;
            if (!refused(tokenizer_encode_truncated(t, &ids, texts[i], strlen(texts[i]), 5)))
                CHECK(ids.n <= 5, "%lld ids, at most 5 were asked for", (long long)ids.n);
        }
        token_list_free(&ids);
        text_free(&back);
    }
    tokenizer_close(t);
}

/* The embedded model's tokenizer is byte-level: every text that is UTF-8 comes back as it was. */
static void run_encode(const char *folder, const char *path, const char *bytes, size_t n)
{
    (void)path;
    static struct tokenizer *t;
    if (!t && tokenizer_open(&t, folder) != 0)
        CHECK(0, "%s", error_message());
    struct token_list ids = {0}, again = {0};
    struct text once = {0}, twice = {0};
    CHECK(tokenizer_encode(t, &ids, bytes, n, false) == 0, "%s", error_message());
    CHECK(tokenizer_decode(t, &once, ids.ids, ids.n, false) == 0, "%s", error_message());
    CHECK(tokenizer_encode(t, &again, text_string(&once), once.n, false) == 0, "%s", error_message());
    CHECK(tokenizer_decode(t, &twice, again.ids, again.n, false) == 0, "%s", error_message());
    CHECK(once.n == twice.n && !memcmp(text_string(&once), text_string(&twice), once.n), "a text changed on its way");
    CHECK(utf8_check(bytes, n) < n || (once.n == n && !memcmp(text_string(&once), bytes, n)), "UTF-8 changed on its way");
    token_list_free(&ids);
    token_list_free(&again);
    text_free(&once);
    text_free(&twice);
}

/* Rows of messages go through a template of the source tree; it keeps them in one piece. */
static void load_data(const char *path, enum data_format format, int n_needs)
{
    char text[] = "text", prompt[] = "prompt", chosen[] = "chosen", rejected[] = "rejected", label[] = "label",
         completion[] = "completion", messages[] = "messages";
    struct settings s = {.model = {.path = fuzz_source("tests/reference/templates")},
                         .data = {.path = (char *)path,
                                  .format = format,
                                  .text_field = text,
                                  .prompt_field = prompt,
                                  .completion_field = completion,
                                  .messages_field = messages,
                                  .chosen_field = chosen,
                                  .rejected_field = rejected,
                                  .label_field = label,
                                  .chat_template = fuzz_source("tests/reference/templates/llama-3-instruct.jinja")}};
    static const unsigned needs[] = {
        0, DATASET_TEXT, DATASET_TEXT | DATASET_LABEL, DATASET_PROMPT, DATASET_PAIR, DATASET_TEXT | DATASET_COMPLETION};
    for (int i = 0; i < n_needs; i++) {
        struct dataset d;
        if (!refused(dataset_load(&d, &s.data, needs[i])) && !refused(conversation_render(&d, &s, CONVERSATION_PROMPTS)))
            CHECK(d.n > 0 && !d.row[0].chat, "a data set without rows");
        dataset_free(&d);
    }
    free(s.model.path);
    free(s.data.chat_template);
}

static void run_jsonl(const char *folder, const char *path, const char *bytes, size_t n)
{
    (void)folder, (void)bytes, (void)n;
    load_data(path, DATA_FORMAT_JSONL, 6);
}

static void run_csv(const char *folder, const char *path, const char *bytes, size_t n)
{
    (void)folder, (void)bytes, (void)n;
    load_data(path, DATA_FORMAT_CSV, 6);
}

static void run_text(const char *folder, const char *path, const char *bytes, size_t n)
{
    (void)folder, (void)bytes, (void)n;
    load_data(path, DATA_FORMAT_TEXT, 2);
}

/* Those of the recorded templates, and what chat templates see besides. */
static json_t *template_variables(void)
{
    char *path = fuzz_source("tests/reference/jinja.jsonl");
    struct text recorded = {0};
    struct jsonl j;
    json_t *row;
    CHECK(file_read(&recorded, path) == 0, "%s", error_message());
    jsonl_open(&j, path, recorded.bytes, recorded.n);
    CHECK(jsonl_next(&j, &row) == 1, "%s", error_message());
    json_t *variables = json_incref(json_object_get(row, "variables"));
    json_t *more = json_pack("{s:s, s:s, s:b, s:[{s:s, s:{s:s, s:s}}]}", "bos_token", "<s>", "eos_token", "</s>",
                             "add_generation_prompt", 1, "tools", "type", "function", "function", "name", "f", "description", "d");
    CHECK(json_object_update(variables, more) == 0, "the variables");
    json_decref(more);
    json_decref(row);
    text_free(&recorded);
    free(path);
    return variables;
}

/* A template that is taken renders, or refuses; either way it ends. */
static void run_jinja(const char *folder, const char *path, const char *bytes, size_t n)
{
    (void)folder;
    static json_t *variables;
    struct text out = {0};
    if (!variables)
        variables = template_variables();
    struct jinja *j = jinja_parse(path, bytes, n);
    if (!refused(j ? 0 : -1))
        refused(jinja_render(j, &out, variables, 0));
    jinja_free(j);
    text_free(&out);
}

/* What loads is written, and what is written loads to the same. */
static void run_settings(const char *folder, const char *path, const char *bytes, size_t n)
{
    (void)folder, (void)path;
    struct settings s, again;
    struct text written = {0}, rewritten = {0};
    if (!refused(settings_load(&s, "input.cfg", bytes, n, NULL, 0))) {
        settings_write(&written, &s);
        CHECK(settings_load(&again, "written.cfg", written.bytes, written.n, NULL, 0) == 0, "%s", error_message());
        settings_write(&rewritten, &again);
        CHECK(!strcmp(written.bytes, rewritten.bytes), "settings changed when they were written");
        settings_free(&again);
    }
    settings_free(&s);
    text_free(&written);
    text_free(&rewritten);
}

static void run_manifest(const char *folder, const char *path, const char *bytes, size_t n)
{
    (void)path, (void)bytes, (void)n;
    refused(manifest_check(folder, -1));
}

static void run_lexicon(const char *folder, const char *path, const char *bytes, size_t n)
{
    (void)folder;
    struct reward_spec spec = {.type = "lexicon", .name = "lexicon", .weight = 1, .path = path};
    struct reward_text text = {.response = bytes, .response_bytes = n, .prompt = ""};
    void *state;
    double score;
    if (refused(reward_lexicon_open(&state, &spec)))
        return;
    reward_lexicon_score(state, &text, 1, &score);
    CHECK(score - score == 0, "a score that is not finite");
    reward_lexicon_close(state);
}

/* ---- running ---- */

char *fuzz_source(const char *name)
{
    const char *srcdir = getenv("srcdir");
    return file_join(srcdir ? srcdir : ".", name);
}

void fuzz_target_prepare(const struct fuzz_target *t, const char *folder)
{
    for (int i = 0; i < 4 && t->beside[i]; i++) {
        char *from = fuzz_source(t->beside[i]), *to = file_join(folder, strrchr(t->beside[i], '/') + 1);
        CHECK(file_copy(to, from) == 0, "%s", error_message());
        free(from);
        free(to);
    }
}

void fuzz_target_run(const struct fuzz_target *t, const char *folder, const char *bytes, size_t n)
{
    char *path = file_join(folder, t->file);
    unlink(path); /* some file systems flush a file that is cut and written again */
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n && close(fd) == 0, "%s: cannot write", path);
    error_clear();
    t->run(folder, path, bytes, n);
    free(path);
}

#define ADAPTERS "tests/reference/adapters/"
#define FAMILIES "tests/reference/families/"
#define LLAMA    "tests/reference/llama-gqa/"
#define NEOX     "tests/reference/neox-parallel/"
#define TEMPLATES "tests/reference/templates/"
#define UNTIED   "tests/reference/llama-untied/"
const struct fuzz_target fuzz_targets[] = {
    {.name = "adapter_config", .file = "adapter_config.json", .run = run_adapter,
     .beside = {LLAMA "config.json", LLAMA "adapter/adapter_model.safetensors", LLAMA "adapter/model.safetensors"},
     .seeds = {LLAMA "adapter/adapter_config.json"}},
    {.name = "adapter_patterns", .file = "adapter_config.json", .run = run_adapter,
     .beside = {LLAMA "config.json", ADAPTERS "patterns/adapter_model.safetensors"},
     .seeds = {ADAPTERS "patterns/adapter_config.json"}},
    {.name = "adapter_layers", .file = "adapter_config.json", .run = run_adapter,
     .beside = {LLAMA "config.json", ADAPTERS "layers/adapter_model.safetensors"},
     .seeds = {ADAPTERS "layers/adapter_config.json"}},
    {.name = "adapter_head", .file = "adapter_model.safetensors", .run = run_adapter,
     .beside = {UNTIED "config.json", ADAPTERS "score/adapter_config.json"},
     .seeds = {ADAPTERS "score/adapter_model.safetensors"}},
    {.name = "adapter_model", .file = "adapter_model.safetensors", .run = run_adapter,
     .beside = {NEOX "config.json", NEOX "adapter/adapter_config.json", NEOX "adapter/model.safetensors"},
     .seeds = {NEOX "adapter/adapter_model.safetensors"}},
    {.name = "config", .file = "config.json", .run = run_config,
     .seeds = {LLAMA "config.json", NEOX "config.json", "input/tiny/config.json", FAMILIES "gpt2/config.json",
               FAMILIES "gpt-neo/config.json", FAMILIES "opt-post-norm/config.json", FAMILIES "llama-yarn/config.json",
               FAMILIES "mistral/config.json", FAMILIES "qwen2-window/config.json", FAMILIES "qwen3/config.json",
               FAMILIES "distilbert/config.json", FAMILIES "bert/config.json", FAMILIES "roberta/config.json"}},
    {.name = "csv", .file = "data.csv", .run = run_csv, .seeds = {"tests/fuzz/seeds/data.csv"}},
    {.name = "encode", .file = "text.txt", .run = run_encode, .beside = {"input/tiny/tokenizer.json"}, .seeds = {"tests/fuzz/seeds/texts.txt", "input/tiny/prompts.heldout.jsonl"}},
    {.name = "jinja", .file = "chat_template.jinja", .run = run_jinja,
     .seeds = {TEMPLATES "llama-3.1.jinja", TEMPLATES "qwen3.jinja", TEMPLATES "mistral-v0.3.jinja", "tests/fuzz/seeds/constructs.jinja"}},
    {.name = "jsonl", .file = "data.jsonl", .run = run_jsonl, .seeds = {"tests/fuzz/seeds/data.jsonl", "tests/fuzz/seeds/chat.jsonl"}},
    {.name = "lexicon", .file = "lexicon.tsv", .run = run_lexicon, .seeds = {"input/tiny/lexicon.tsv"}},
    {.name = "manifest", .file = "MANIFEST.json", .run = run_manifest, .beside = {"tests/fuzz/seeds/state.h5", "input/tiny/config.json"}, .seeds = {"tests/fuzz/seeds/MANIFEST.json"}},
    {.name = "safetensors", .file = "model.safetensors", .run = run_safetensors, .seeds = {NEOX "adapter/model.safetensors", NEOX "ppo.safetensors"}},
    {.name = "settings", .file = "input.cfg", .run = run_settings, .seeds = {"input/tiny-ppo.cfg", "input/reference.cfg"}},
    {.name = "shards", .file = "model.safetensors.index.json", .run = run_shards,
     .beside = {"tests/reference/llama-untied/model-00001-of-00002.safetensors", "tests/reference/llama-untied/model-00002-of-00002.safetensors"},
     .seeds = {"tests/reference/llama-untied/model.safetensors.index.json"}},
    {.name = "text", .file = "data.txt", .run = run_text, .seeds = {"tests/fuzz/seeds/texts.txt"}},
    {.name = "tokenizer", .file = "tokenizer.json", .run = run_tokenizer, .seeds = {"input/tiny/tokenizer.json", "tests/fuzz/seeds/metaspace.json"}},
    {.name = "wordpiece", .file = "tokenizer.json", .run = run_tokenizer, .seeds = {"tests/fuzz/seeds/wordpiece.json"}},
};
const int fuzz_n_targets = sizeof fuzz_targets / sizeof *fuzz_targets;

const struct fuzz_target *fuzz_target_find(const char *name)
{
    for (int i = 0; i < fuzz_n_targets; i++)
        if (!strcmp(fuzz_targets[i].name, name))
            return &fuzz_targets[i];
    return NULL;
}
