/* Settings: input.cfg (libconfig syntax) and --set, checked against one table, into one struct.
 *
 * The table (settings_table.c) has one row a key: type, default, range, one line of documentation. Loading, writing,
 * input/reference.cfg and the error messages all come from it. Every problem of an input is reported at once, each with
 * its line, in one message of several lines (ERR_INPUT).
 *
 * Conventions: strings are never NULL ("" is "not given"); sizes are global, over all ranks; relative paths are relative
 * to the current directory, not to input.cfg. @include is not supported: the text that is read is the whole input.
 */
#ifndef RLHF_SRC_SETTINGS_H
#define RLHF_SRC_SETTINGS_H

#include "text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SETTINGS_REWARDS_MAX = 16 };

enum task_id {
    TASK_TOKENIZE,
    TASK_PRETRAIN,
    TASK_SFT,
    TASK_REWARD,
    TASK_MERGE,
    TASK_PPO,
    TASK_DPO,
    TASK_GENERATE,
    TASK_EVALUATE,
    TASK_COUNT
};

enum model_init { MODEL_INIT_WEIGHTS, MODEL_INIT_RANDOM };
enum quantization { QUANTIZATION_INT8, QUANTIZATION_NONE };
enum matmul_choice { MATMUL_CHOICE_LLM_INT8, MATMUL_CHOICE_DEQUANT };
enum data_format { DATA_FORMAT_JSONL, DATA_FORMAT_TEXT, DATA_FORMAT_CSV, DATA_FORMAT_IMDB };
enum reward_choice {
    REWARD_TYPE_LEXICON,
    REWARD_TYPE_PROGRAM,
    REWARD_TYPE_CLASSIFIER,
    REWARD_TYPE_ADAPTER
};
enum function_choice { FUNCTION_NONE, FUNCTION_SOFTMAX, FUNCTION_SIGMOID };
enum kl_choice { KL_CHOICE_KL, KL_CHOICE_ABS, KL_CHOICE_MSE, KL_CHOICE_K3 };
enum evaluate_choice { EVALUATE_CHOICE_AUTO, EVALUATE_CHOICE_TEXTS, EVALUATE_CHOICE_RESPONSES };
enum truncation { TRUNCATION_KEEP_START, TRUNCATION_KEEP_END, TRUNCATION_ERROR };
enum packing { PACKING_AUTO, PACKING_WRAPPED, PACKING_NONE };
enum reward_loss { REWARD_LOSS_PAIRWISE, REWARD_LOSS_CROSS_ENTROPY };
enum merge_base { MERGE_BASE_ORIGINAL, MERGE_BASE_DEQUANTIZED };
enum merge_dtype { MERGE_DTYPE_AUTO, MERGE_DTYPE_FLOAT32, MERGE_DTYPE_FLOAT16, MERGE_DTYPE_BFLOAT16 };
enum scheduler_type {
    SCHEDULER_CONSTANT,
    SCHEDULER_CONSTANT_WITH_WARMUP,
    SCHEDULER_LINEAR,
    SCHEDULER_COSINE
};
enum device_choice { DEVICE_CHOICE_AUTO, DEVICE_CHOICE_CPU, DEVICE_CHOICE_CUDA };
enum on_nan { ON_NAN_STOP, ON_NAN_SKIP };

/* Names of the enums above, in their order, NULL at the end. */
extern const char *const settings_task_names[],
    *const settings_reward_names[], *const settings_kl_names[], *const settings_scheduler_names[];

struct settings_optional {
    bool set; /* false: off, value is 0 */
    double value;
};

struct settings_range {
    int64_t min, max; /* drawn from [min, max); a fixed n is {n, n + 1}; max == 0: not given */
};

struct settings_strings {
    char **item; /* [n], owned */
    int n;
};

struct settings_model {
    char *path;
    enum model_init init;
    enum quantization quantization;
    enum matmul_choice matmul;
    double outlier_threshold;
    char *adapter, *ref_adapter;
};

struct settings_lora {
    int64_t r, lora_alpha;
    double lora_dropout;
    struct settings_strings target_modules; /* n == 0: the family's defaults */
    struct settings_strings exclude_modules;
    bool use_rslora;
};

struct settings_data {
    char *path, *eval_path;
    enum data_format format;
    char *text_field, *prompt_field, *completion_field, *messages_field, *chosen_field, *rejected_field, *label_field;
    char *chat_template; /* "": the model's */
    enum truncation truncation;
    int64_t max_length, min_chars; /* 0: no limit */
    bool add_special_tokens;
    struct settings_range prompt_tokens; /* max == 0: the whole prompt */
};

struct settings_generate {
    struct settings_range max_new_tokens;
    int64_t min_new_tokens;
    double temperature;
    int64_t top_k; /* 0: off */
    double top_p;
    struct settings_strings stop_strings;
    bool ignore_eos;
    int64_t slots; /* 0: planned */
};

struct settings_reward {
    enum reward_choice type;
    char *name;
    double weight;
    char *path, *command, *label;
    enum function_choice function_to_apply;
    enum quantization quantization;
    int64_t max_length;
    double timeout; /* seconds */
};

struct settings_pretrain {
    int64_t vocab_size, block_size; /* vocab_size 0: what config.json says */
    char *tokenizer;
    int64_t batch_size, micro_batch_size; /* micro_batch_size 0: planned */
};

struct settings_sft {
    double num_train_epochs; /* where run.max_steps is 0 */
    int64_t batch_size, micro_batch_size, block_size;
    enum packing packing;
    bool separator, completion_only_loss;
};

struct settings_reward_model {
    enum reward_loss loss;
    double num_train_epochs;
    int64_t batch_size, micro_batch_size;
    struct settings_optional center_rewards_coefficient;
    struct settings_strings label_names; /* n == 0: the data's, else LABEL_0, LABEL_1, .. */
    bool head_only;
};

struct settings_merge {
    enum merge_base base;
    enum merge_dtype dtype;
};

struct settings_evaluate {
    enum evaluate_choice what; /* auto: responses where there is a reward, else texts */
    int64_t micro_batch_size;
};

struct settings_ppo {
    int64_t batch_size, mini_batch_size, micro_batch_size, ppo_epochs;
    double init_kl_coef;
    bool adap_kl_ctrl;
    double target, horizon;
    enum kl_choice kl_penalty;
    double gamma, lam, cliprange, cliprange_value, vf_coef, ent_coef, ratio_threshold;
    bool early_stopping;
    struct settings_optional target_kl;
    bool use_score_scaling, use_score_norm;
    struct settings_optional score_clip;
    bool whiten_rewards;
    struct settings_optional missing_eos_penalty;
};

struct settings_optim {
    double learning_rate, adam_beta1, adam_beta2, adam_epsilon, weight_decay;
    struct settings_optional max_grad_norm;
    enum scheduler_type lr_scheduler_type;
    int64_t warmup_steps;
};

struct settings_run {
    char *output_dir;
    int64_t seed;
    int64_t max_steps; /* 0: one pass over the data */
    int64_t save_steps, save_total_limit, sample_steps,
        eval_steps;                        /* 0: off; save_total_limit 0: all */
    int64_t max_walltime;                  /* seconds; 0: none */
    struct settings_optional memory_limit; /* GiB a device */
    int64_t threads;                       /* a rank; 0: cores / ranks */
    enum device_choice device;
    bool share_device;
    enum on_nan on_nan;
    int64_t hang_timeout; /* seconds; 0: no watchdog */
};

struct settings {
    enum task_id task;
    struct settings_model model;
    struct settings_lora lora;
    struct settings_data data;
    struct settings_generate generate;
    struct settings_reward reward[SETTINGS_REWARDS_MAX]; /* [n_rewards]; strings beyond are NULL */
    int n_rewards;
    struct settings_ppo ppo;
    struct settings_sft sft;
    struct settings_reward_model reward_model;
    struct settings_pretrain pretrain;
    struct settings_merge merge;
    struct settings_evaluate evaluate;
    struct settings_optim optim;
    struct settings_run run;
};

/* Reads text[n], the contents of the file path (path is used in messages alone), then overrides[n_overrides], each
 * "KEY=VALUE" with a dotted key ("ppo.batch_size", "reward.0.weight"). VALUE is what stands behind the = in the file;
 * quotes may be left out where a string is expected. s is written whatever happens; free it in either case.
 * Errors: ERR_INPUT, one line a problem, in the order of the file.
 * Ranks: local; every rank calls with the same arguments.
 */
int settings_load(struct settings *s, const char *path, const char *text, size_t n,
                  const char *const *overrides, int n_overrides);
void settings_free(struct settings *s);

/* Appends an input.cfg with every setting resolved; it loads again to equal settings. */
void settings_write(struct text *out, const struct settings *s);

/* Appends input/reference.cfg: every key once, with its documentation, range and default; itself a valid input. */
void settings_reference(struct text *out);

#endif
