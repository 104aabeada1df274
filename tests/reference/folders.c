/* For peft_roundtrip.py: writes small model and adapter folders, or opens an adapter folder that peft wrote.
 *
 *   folders write DIR TARGETS           DIR/model (config from DIR/config.json) and DIR/adapter with a value head
 *   folders read DIR ADAPTER            opens DIR/model and ADAPTER; prints layer, slot, and sums of a and b
 *   folders rewrite MODEL ADAPTER OUT   reads an adapter and writes what was read
 *   folders logits MODEL ADAPTER ID..   logits of the ids, a token a line; ADAPTER "-": none
 *   folders scores MODEL ADAPTER ID..   scores of the ids by the head of the adapter; ADAPTER "-": by that of a classifier
 */
#include "error.h"
#include "file.h"
#include "hf_folder.h"
#include "log.h"
#include "peft.h"
#include "support/logits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { R = 4 };

/* Numbers in [-0.5, 0.5), a simple sequence. */
static float *numbers(int64_t n, uint32_t seed)
{
    float *x = malloc((size_t)(n ? n : 1) * sizeof *x);
    CHECK(x, "out of memory");
    for (int64_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 16777216.0f - 0.5f;
    }
    return x;
}

static int write_model(const char *folder, const struct arch *a)
{
    struct arch_tensor *names;
    struct safetensors_out *list = hf_folder_list(a, DTYPE_F32, &names);
    const int n = arch_tensors(a);
    for (int i = 0; i < n; i++)
        list[i].data = numbers(names[i].shape[0] * (names[i].n_dims == 2 ? names[i].shape[1] : 1),
                               (uint32_t)i);
    int rc = hf_folder_write(folder, a, list, n, NULL);
    for (int i = 0; i < n; i++)
        free((void *)list[i].data);
    free(list);
    free(names);
    return rc;
}

static int write_adapter(const char *folder, const char *base, const struct arch *a,
                         const char *targets)
{
    struct peft_config c = {
        .r = R, .lora_alpha = 8, .lora_dropout = 0.05, .base_model_name_or_path = (char *)base};
    if (*targets)
        peft_targets_set_string(&c.target_modules, targets);
    bool *match = calloc((size_t)a->layers * ARCH_LINEARS_MAX, sizeof *match);
    CHECK(match, "out of memory");
    const int most = peft_match_all(match, &c, a);
    if (most < 0)
        return -1;
    struct peft_out *out = calloc((size_t)most, sizeof *out);
    CHECK(out, "out of memory");
    int n = 0;
    for (int k = 0; k < a->layers * ARCH_LINEARS_MAX; k++) {
        const struct arch_linear *l = &a->linear[k % ARCH_LINEARS_MAX];
        if (match[k])
            out[n] = (struct peft_out){k / ARCH_LINEARS_MAX, (enum arch_slot)(k % ARCH_LINEARS_MAX),
                                       numbers((int64_t)R * l->in, (uint32_t)(1000 + n)),
                                       numbers((int64_t)R * l->out, (uint32_t)(2000 + n))},
            n++;
    }
    float *head = numbers(a->hidden, 7);
    int rc = peft_write(folder, &c, a, out, n, NULL, 0);
    if (!rc)
        rc = peft_write_value_head(folder, head, 0.25f, a->hidden);
    for (int i = 0; i < n; i++) {
        free((void *)out[i].a);
        free((void *)out[i].b);
    }
    free(head);
    free(out);
    free(match);
    peft_targets_free(&c.target_modules);
    return rc;
}

static double sum(const struct safetensors_entry *e)
{
    float *x = numbers(e->n, 0);
    double s = 0;
    if (safetensors_floats(x, e, 0, e->n) == 0)
        for (int64_t i = 0; i < e->n; i++)
            s += x[i];
    free(x);
    return s;
}

static int read_adapter(const char *model, const char *folder)
{
    struct hf_folder f;
    struct peft_adapter p;
    TRY(hf_folder_open(&f, model, ARCH_LANGUAGE_MODEL));
    TRY(peft_open(&p, folder, &f.arch));
    printf("r %d alpha %g dropout %g rslora %d pairs %d\n", p.config.r, p.config.lora_alpha,
           p.config.lora_dropout, p.config.use_rslora, p.n);
    for (int i = 0; i < p.n; i++) {
        char name[ARCH_NAME_MAX];
        arch_module_name(name, sizeof name, &f.arch, p.pair[i].layer, p.pair[i].slot);
        printf("%s %.17g %.17g\n", name, sum(p.pair[i].a), sum(p.pair[i].b));
    }
    peft_close(&p);
    hf_folder_close(&f);
    return 0;
}

static float *floats_of(const struct safetensors_entry *e)
{
    float *x = numbers(e->n, 0);
    CHECK(safetensors_floats(x, e, 0, e->n) == 0, "%s", error_message());
    return x;
}

static int rewrite(const char *model, const char *folder, const char *to)
{
    struct hf_folder f;
    struct peft_adapter p;
    TRY(hf_folder_open(&f, model, ARCH_LANGUAGE_MODEL));
    TRY(peft_open(&p, folder, &f.arch));
    struct peft_out *out = calloc((size_t)p.n, sizeof *out);
    struct safetensors_out *saved = calloc((size_t)p.n_saved + 1, sizeof *saved);
    CHECK(out && saved, "out of memory");
    for (int i = 0; i < p.n; i++)
        out[i] = (struct peft_out){p.pair[i].layer, p.pair[i].slot, floats_of(p.pair[i].a), floats_of(p.pair[i].b)};
    for (int i = 0; i < p.n_saved; i++) {
        const struct safetensors_entry *e = p.saved[i].entry;
        saved[i] = (struct safetensors_out){.name = p.saved[i].name, .dtype = DTYPE_F32, .n_dims = e->n_dims, .data = floats_of(e)};
        memcpy(saved[i].shape, e->shape, sizeof saved[i].shape);
    }
    int rc = peft_write(to, &p.config, &f.arch, out, p.n, saved, p.n_saved);
    for (int i = 0; i < p.n; i++) {
        free((void *)out[i].a);
        free((void *)out[i].b);
    }
    for (int i = 0; i < p.n_saved; i++)
        free((void *)saved[i].data);
    free(out);
    free(saved);
    peft_close(&p);
    hf_folder_close(&f);
    return rc;
}

enum { IDS = 128 };

/* At most IDS; returns their number. */
static int read_ids(int32_t *ids, char **id, int n)
{
    n = n < IDS ? n : IDS;
    for (int i = 0; i < n; i++)
        ids[i] = atoi(id[i]);
    return n;
}

static int print_logits(const char *model, const char *adapter, char **id, int n)
{
    int32_t ids[IDS];
    int vocab;
    const bool off = !strcmp(adapter, "-");
    n = read_ids(ids, id, n);
    float *logits = logits_of(model, off ? NULL : adapter, off ? LOGITS_OFF : LOGITS_TRAINED, ids, n, &vocab);
    for (int i = 0; logits && i < n * vocab; i++)
        printf("%.9g%s", logits[i], (i + 1) % vocab ? " " : "\n");
    free(logits);
    return logits ? 0 : -1;
}

static int print_scores(const char *model, const char *adapter, char **id, int n)
{
    int32_t ids[IDS];
    int scores;
    n = read_ids(ids, id, n);
    float *score = scores_of(model, strcmp(adapter, "-") ? adapter : NULL, ids, n, &scores);
    for (int i = 0; score && i < scores; i++)
        printf("%.9g%s", score[i], i + 1 < scores ? " " : "\n");
    free(score);
    return score ? 0 : -1;
}

int main(int argc, char **argv)
{
    int rc = -1;
    log_init(true);
    struct arch a;
    char *model = argc > 2 ? file_join(argv[2], "model") : NULL;
    char *adapter = argc > 2 ? file_join(argv[2], "adapter") : NULL;
    if (argc == 4 && !strcmp(argv[1], "write")) {
        rc = arch_read(&a, argv[2], ARCH_LANGUAGE_MODEL);
        if (!rc)
            rc = write_model(model, &a);
        if (!rc)
            rc = write_adapter(adapter, model, &a, argv[3]);
    } else if (argc == 4 && !strcmp(argv[1], "read")) {
        rc = read_adapter(model, argv[3]);
    } else if (argc == 5 && !strcmp(argv[1], "rewrite")) {
        rc = rewrite(argv[2], argv[3], argv[4]);
    } else if (argc > 5 && !strcmp(argv[1], "logits")) {
        rc = print_logits(argv[2], argv[3], argv + 4, argc - 4);
    } else if (argc > 4 && !strcmp(argv[1], "scores")) {
        rc = print_scores(argv[2], argv[3], argv + 4, argc - 4);
    } else {
        error_set(ERR_INPUT, "usage: folders write DIR TARGETS | read DIR ADAPTER | rewrite MODEL ADAPTER OUT | "
                  "logits MODEL ADAPTER ID.. | scores MODEL ADAPTER ID..");
    }
    free(model);
    free(adapter);
    if (rc)
        fprintf(stderr, "%s\n", error_message());
    return rc ? 1 : 0;
}
