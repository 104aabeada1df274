/* Opening, planning and loading. The plan is the layout itself, run on an arena that only counts. */
#include "engine.h"

#include "error.h"
#include "log.h"
#include "weights.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NODES_SHOWN = 8 };

static const char *device_name(enum device_choice d)
{
    return d == DEVICE_CHOICE_CUDA ? "cuda" : d == DEVICE_CHOICE_CPU ? "cpu" : "auto";
}

static enum dtype file_dtype(const struct engine *e)
{
    if (e->settings->model.init == MODEL_INIT_RANDOM)
        return DTYPE_F32;
    return (enum dtype)hf_folder_find(&e->folder, ROLE_EMBEDDING, 0, 0, false)->dtype;
}

static int open_files(struct engine *e)
{
    const struct settings_model *m = &e->settings->model;
    const enum arch_use use = e->settings->task == TASK_REWARD ? ARCH_BACKBONE : ARCH_LANGUAGE_MODEL;
    if (m->init == MODEL_INIT_RANDOM)
        TRY(arch_read(&e->folder.arch, m->path, use));
    else
        TRY(hf_folder_open(&e->folder, m->path, use));
    const char *tokenizer = e->settings->pretrain.tokenizer[0] ? e->settings->pretrain.tokenizer : m->path;
    TRY(tokenizer_open(&e->tokenizer, tokenizer));
    if (tokenizer_vocab_size(e->tokenizer) > e->folder.arch.vocab)
        return error_set(ERR_FILE, "%s: the tokenizer has ids up to %d, the model's vocabulary ends at %d", tokenizer,
                         tokenizer_vocab_size(e->tokenizer) - 1, e->folder.arch.vocab - 1);
    if (m->adapter[0])
        TRY(peft_open(&e->adapter, m->adapter, &e->folder.arch));
    if (strcmp(m->ref_adapter, "none") && strcmp(m->ref_adapter, "start"))
        TRY(peft_open(&e->reference, m->ref_adapter, &e->folder.arch));
    return 0;
}

int engine_check_widths(const struct engine *e, const struct arch *a, const char *path)
{
    const struct backend_ops *ops = e->be.ops;
    const struct {
        const char *name;
        int width, most;
    } widths[] = {{"hidden_size", a->hidden, ops->width_most},
                  {"intermediate_size", a->intermediate, ops->width_most},
                  {"the embeddings' width", a->embedding_width, ops->width_most},
                  {"the head size", a->head_dim, ops->head_dim_most},
                  {"the heads' width", a->heads * a->head_dim, ops->width_most}};
    const int multiple = ops->width_multiple;
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        if (widths[i].width % multiple != 0 || widths[i].width > widths[i].most)
            return error_set(ERR_FILE, "%s: %s is %d: the %s backend needs a multiple of %d up to %d; set run.device = \"cpu\"",
                             path, widths[i].name, widths[i].width, ops->name, multiple, widths[i].most);
    return 0;
}

static int open_backend(struct engine *e, bool plan_only)
{
    e->threads = placement_threads(e->comm, (int)e->settings->run.threads, NULL);
    struct backend_choice choice = {device_name(e->settings->run.device), e->threads, comm_node_rank(e->comm), plan_only};
    TRY(comm_agree(e->comm, backend_open(&e->be, &choice)));
    TRY(comm_agree(e->comm, engine_check_widths(e, &e->folder.arch, e->settings->model.path)));
    _Static_assert((int)PLACE_DEVICE_BYTES == (int)DEVICE_ID_BYTES, "a device's own bytes");
    e->places = placement_gather(e->comm, e->be.ops->name, e->be.ops->device_id(&e->be));
    return placement_check(e->places, comm_size(e->comm), e->settings->run.share_device);
}

int engine_open(struct engine *e, const struct settings *s, struct comm *comm, bool plan_only)
{
    *e = (struct engine){.settings = s, .comm = comm};
    TRY(comm_agree(comm, open_files(e)));
    return open_backend(e, plan_only);
}

int engine_open_synthetic(struct engine *e, const struct settings *s, struct comm *comm, bool plan_only)
{
    CHECK(s->model.init == MODEL_INIT_RANDOM && !s->model.adapter[0], "a synthetic model with files");
    *e = (struct engine){.settings = s, .comm = comm};
    TRY(comm_agree(comm, arch_read(&e->folder.arch, s->model.path, ARCH_LANGUAGE_MODEL)));
    return open_backend(e, plan_only);
}

int engine_context(const struct engine *e)
{
    int limit = e->folder.arch.max_positions;
    int64_t asked = e->settings->data.max_length;
    return asked > 0 && asked < limit ? (int)asked : limit;
}

/* One line: what the adapter is, and which settings it has taken the place of. */
static void log_adapter(const struct settings *s, const struct peft_config *c)
{
    const struct settings_lora *l = &s->lora;
    struct text other = {0};
    if (l->r != c->r)
        text_format(&other, ", lora.r = %lld", (long long)l->r);
    if ((double)l->lora_alpha != c->lora_alpha)
        text_format(&other, ", lora.lora_alpha = %lld", (long long)l->lora_alpha);
    if (l->use_rslora != c->use_rslora)
        text_format(&other, ", lora.use_rslora = %s", l->use_rslora ? "true" : "false");
    if (l->target_modules.n)
        text_add_string(&other, ", lora.target_modules");
    if (l->exclude_modules.n)
        text_add_string(&other, ", lora.exclude_modules");
    log_line("adapter %s: r %d, lora_alpha %g%s%s%s", s->model.adapter, c->r, c->lora_alpha, c->use_rslora ? ", rslora" : "",
             other.n ? "; not used: " : "", other.n ? text_string(&other) + 2 : "");
    text_free(&other);
}

static void set_targets(struct peft_targets *t, const struct settings_strings *s)
{
    if (s->n == 1 && (!strcmp(s->item[0], "all-linear") || strpbrk(s->item[0], "*\\[(|")))
        peft_targets_set_string(t, s->item[0]);
    else
        for (int i = 0; i < s->n; i++)
            peft_targets_add(t, s->item[i]);
}

/* The adapters of model.adapter where it is given, else those that lora.* asks for. Dropout belongs to the training, not to the
 * adapter: it is the run's own; so is what the model is trained for. */
static void describe_adapters(struct engine *e)
{
    const struct settings_lora *l = &e->settings->lora;
    if (e->settings->model.adapter[0]) {
        e->peft = e->adapter.config;
        e->adapter.config = (struct peft_config){0};
        e->peft.lora_dropout = l->lora_dropout;
        for (int i = 0; !e->need.scores && i < e->adapter.n_saved; i++)
            log_warn("adapter %s: its trained %s is not used by this task", e->settings->model.adapter, e->adapter.saved[i].name);
        if (!e->peft.base_model_name_or_path)
            e->peft.base_model_name_or_path = strdup(e->settings->model.path);
        log_adapter(e->settings, &e->peft);
    } else {
        e->peft = (struct peft_config){.r = (int)l->r,
                                       .lora_alpha = (double)l->lora_alpha,
                                       .lora_dropout = l->lora_dropout,
                                       .use_rslora = l->use_rslora,
                                       .base_model_name_or_path = strdup(e->settings->model.path)};
        set_targets(&e->peft.target_modules, &l->target_modules);
        set_targets(&e->peft.exclude_modules, &l->exclude_modules);
    }
    free(e->peft.task_type);
    e->peft.task_type = strdup(e->need.scores ? "SEQ_CLS" : "CAUSAL_LM");
}

/* The adapter of the reference policy; NULL: it has none. */
static const struct peft_adapter *reference_adapter(const struct engine *e)
{
    const struct peft_adapter *adapter = strcmp(e->settings->model.ref_adapter, "start") ? &e->reference : &e->adapter;
    return adapter->n ? adapter : NULL;
}

static int build_model(struct engine *e)
{
    const struct settings_model *s = &e->settings->model;
    bool int8 = s->quantization == QUANTIZATION_INT8 && !e->need.all_weights;
    enum dtype file = e->need.all_weights ? DTYPE_F32 : file_dtype(e);
    struct model_options o = {.dtype = int8 ? DTYPE_I8 : file,
                              .file_dtype = file,
                              .matmul = s->matmul == MATMUL_CHOICE_DEQUANT ? MATMUL_DEQUANT : MATMUL_LLM_INT8,
                              .outlier_threshold = (float)s->outlier_threshold,
                              .train_all = e->need.all_weights};
    model_init(&e->model, &e->folder.arch, &e->be, &o);
    if (e->need.adapters)
        TRY(lora_attach(&e->model, &e->peft, (uint64_t)e->settings->run.seed));
    for (int i = 0; i < e->need.n_frozen; i++)
        TRY(lora_attach_frozen(&e->model, e->need.frozen[i]) < 0 ? -1 : 0);
    if (reference_adapter(e)) {
        e->model.reference = lora_attach_frozen(&e->model, reference_adapter(e));
        TRY(e->model.reference < 0 ? -1 : 0);
    }
    if (e->need.value_head)
        model_add_value_head(&e->model);
    if (e->need.scores)
        model_add_score_head(&e->model, e->need.scores, e->folder.arch.bidirectional, true, arch_head_module(&e->folder.arch));
    if (e->need.train)
        gradient_init(&e->gradient, &e->model, e->comm, e->settings->run.share_device);
    return 0;
}

static void layout(struct engine *e, struct arena *a)
{
    model_layout(&e->model, a, &e->shape);
    micro_batch_layout(&e->micro_batch, &e->model, a);
    if (e->shape.slots)
        generator_layout(&e->generator, &e->model, a);
    if (e->need.train)
        gradient_layout(&e->gradient, a);
    if (e->need.layout)
        e->need.layout(e->need.context, a);
}

/* Estimate of what libraries take of the device. */
static size_t overhead(const struct engine *e)
{
    return e->be.ops->overhead_bytes((struct backend *)&e->be, e->gradient.on_device ? comm_size(e->comm) : 1);
}

/* Bytes of the device, with what libraries take. */
static size_t counted(struct engine *e)
{
    e->arena = (struct arena){0};
    layout(e, &e->arena);
    return arena_device_bytes(&e->arena, &e->be) + overhead(e);
}

static void set_shape(struct engine *e, int micro_batch, int slots, int kept_layers)
{
    const struct engine_need *n = &e->need;
    int decoded = decode_rows(&e->be, slots), rows = micro_batch * n->longest_targets;
    e->shape = (struct model_shape){.batch_tokens = micro_batch * n->longest > decoded ? micro_batch * n->longest : decoded,
                                    .batch_seqs = micro_batch > decoded ? micro_batch : decoded,
                                    .head_rows = rows > decoded ? rows : decoded,
                                    .slots = slots,
                                    .cache_tokens = slots ? n->longest : 0,
                                    .kept_layers = kept_layers};
}

/* Bytes that the plan may have. The ranks of a node share its memory, those on a device apart the device's. */
static int memory_limit(struct engine *e, double *bytes)
{
    const struct settings_run *run = &e->settings->run;
    const size_t available = e->be.ops->memory_free(&e->be);
    const int ranks = e->be.ops->host_memory ? comm_node_size(e->comm)
                                             : placement_sharing(e->places, comm_size(e->comm), comm_rank(e->comm));
    if (!run->memory_limit.set && available == SIZE_MAX)
        return error_set(ERR_INPUT, "run.memory_limit: no %s device is here to ask; give its memory in GiB", e->be.ops->name);
    *bytes = run->memory_limit.set ? run->memory_limit.value * 1073741824.0
                                   : 0.97 * (double)available / ranks;
    return 0;
}

static int larger(int a, int b)
{
    return a > b ? a : b;
}

/* Training all weights: on which backend, and of which models. Positions, norms of q and k and what stands about the layers have
 * no gradients of their weights. */
static int check_all_weights(const struct engine *e)
{
    const struct arch *a = &e->folder.arch;
    if (!e->be.ops->trains_weights)
        return error_set(ERR_INPUT, "run.device: the %s backend trains adapters only; this task trains all weights: set it to \"cpu\"",
                         e->be.ops->name);
    for (int i = 0; i < arch_tensors(a); i++) {
        struct arch_tensor t;
        arch_tensor(&t, a, i);
        if (t.role != ROLE_EMBEDDING && t.role != ROLE_ATTN_NORM && t.role != ROLE_MLP_NORM && t.role != ROLE_LINEAR &&
            t.role != ROLE_FINAL_NORM && t.role != ROLE_HEAD)
            return error_set(ERR_INPUT,
                             "model.path: this task trains all weights, and there are no gradients of a %s model's %s; "
                             "task = \"sft\" trains adapters of it",
                             arch_model_type(a), t.name);
    }
    return 0;
}

int engine_plan(struct engine *e, const struct engine_need *need)
{
    if (need->all_weights)
        TRY(check_all_weights(e));
    int layers = e->folder.arch.layers;
    e->need = *need;
    e->need.adapters |= e->settings->model.adapter[0] != 0;
    if (e->need.adapters)
        describe_adapters(e);
    TRY(build_model(e));
    double limit = 0;
    TRY(memory_limit(e, &limit));
    const int least = larger(need->micro_least, 1);
    int micro = need->micro_batch, slots = need->slots, kept = need->train ? layers : 0;
    for (;;) {
        double total = INFINITY; /* a pass of more tokens than an int can count */
        if ((int64_t)micro * need->longest <= INT_MAX) {
            set_shape(e, micro, slots, kept);
            total = (double)counted(e);
        }
        if (total <= limit)
            return 0;
        if (kept > 1)
            kept = 1;
        else if (micro > least)
            micro = larger((micro + 1) / 2, least);
        else if (slots > 1) {
            slots = (slots + 1) / 2;
            micro = need->micro_batch;
        } else
            return error_set(ERR_INPUT,
                             "the smallest plan needs %.2f GiB, there are %.2f: raise run.memory_limit, or lower "
                             "data.max_length or generate.max_new_tokens, or use model.quantization = \"int8\"%s",
                             total / 1073741824.0, limit / 1073741824.0,
                             e->arena.used[MEM_REWARD] ? "; for the reward model reward.N.quantization = \"int8\", or a smaller "
                                                         "reward.N.max_length"
                                                       : "");
    }
}

static void print_bytes(const char *what, size_t bytes)
{
    log_line("  %-24s %14zu bytes  %8.3f GiB", what, bytes, (double)bytes / 1073741824.0);
}

/* Which device each rank has taken: a line a node. */
static void print_devices(const struct engine *e)
{
    const int ranks = comm_size(e->comm);
    struct text line = {0};
    int nodes = 0;
    if (ranks == 1 || !e->places[0].has_device)
        return;
    log_line("devices of the ranks%s", !e->need.train          ? ""
                                       : e->gradient.on_device ? "; they sum gradients among themselves"
                                                               : "; the host sums gradients");
    for (int r = 0; r < ranks; r++) {
        if (e->places[r].leader != r || nodes++ >= NODES_SHOWN)
            continue;
        text_clear(&line);
        placement_describe(&line, e->places, ranks, r);
        log_line("  %s", text_string(&line));
    }
    if (nodes > NODES_SHOWN)
        log_line("  and %d more nodes", nodes - NODES_SHOWN);
    text_free(&line);
}

void engine_print_plan(const struct engine *e)
{
    const struct model_shape *s = &e->shape;
    const struct backend_ops *ops = e->be.ops;
    print_devices(e);
    log_line("memory plan (a rank)");
    for (int p = 0; p < MEM_PURPOSES; p++)
        if (e->arena.used[p] && (p != MEM_HOST || ops->host_memory))
            print_bytes(memory_name((enum memory)p), e->arena.used[p]);
    if (overhead(e))
        print_bytes("context, libraries (est.)", overhead(e));
    print_bytes("total", arena_device_bytes(&e->arena, &e->be) + overhead(e));
    if (!ops->host_memory)
        print_bytes("beside it, on the host", e->arena.used[MEM_HOST]);
    log_line("  longest sequence %d tokens; pass of %d tokens, %d sequences; %d decode slots; activations of %d of %d layers",
             e->need.longest, s->batch_tokens, s->batch_seqs, s->slots, s->kept_layers, e->folder.arch.layers);
}

static int fill(struct engine *e)
{
    struct model *m = &e->model;
    uint64_t seed = (uint64_t)e->settings->run.seed;
    bool shared = !e->need.all_weights && e->be.ops->host_memory;
    if (!shared || comm_node_rank(e->comm) == 0) {
        model_fill_tables(m);
        if (e->settings->model.init == MODEL_INIT_RANDOM)
            weights_random(m, seed);
        else
            TRY(weights_read(m, &e->folder));
    }
    if (e->need.adapters || e->need.value_head || e->need.scores)
        lora_init(m, seed);
    if (e->need.scores && e->settings->model.init == MODEL_INIT_WEIGHTS)
        TRY(lora_read_score(m, &e->folder.weights));
    if (e->settings->model.adapter[0])
        TRY(lora_read(m, &e->adapter, e->settings->model.adapter));
    for (int i = 0; i < e->need.n_frozen; i++)
        TRY(lora_read_frozen(m, e->need.frozen[i], 1 + i));
    if (m->reference >= 0)
        TRY(lora_read_frozen(m, reference_adapter(e), m->reference));
    return 0;
}

int engine_load(struct engine *e)
{
    void *shared = NULL;
    if (e->need.train)
        TRY(gradient_open(&e->gradient, (double)e->settings->run.hang_timeout));
    if (!e->need.all_weights && e->be.ops->host_memory && comm_node_size(e->comm) > 1)
        TRY(comm_node_shared(e->comm, &shared, arena_shared_bytes(&e->arena)));
    TRY(comm_agree(e->comm, arena_place(&e->arena, &e->be, shared)));
    layout(e, &e->arena);
    int rc = comm_agree(e->comm, fill(e));
    comm_node_barrier(e->comm);
    arena_freeze(&e->arena);
    return rc;
}

int64_t engine_parameters(const struct engine *e)
{
    return (e->need.all_weights ? 0 : arch_parameters(&e->folder.arch)) + e->model.trainable.n;
}

void engine_close(struct engine *e)
{
    model_free(&e->model);
    if (e->be.ops)
        e->be.ops->close(&e->be);
    free(e->places);
    peft_config_free(&e->peft);
    peft_close(&e->adapter);
    peft_close(&e->reference);
    tokenizer_close(e->tokenizer);
    hf_folder_close(&e->folder);
}
