/* The table of settings, in the order of input/reference.cfg. Keys and names are those of TRL, PEFT and Hugging Face
 * where they have one; a new key is a field in settings.h and a row here, then `make reference` renews reference.cfg.
 */
#include "settings_table.h"

#include <math.h>

const char *const settings_task_names[] = {"tokenize", "pretrain", "sft",      "reward",   "merge",
                                           "ppo",      "dpo",      "generate", "evaluate", NULL};
const char *const settings_reward_names[] = {"lexicon", "program", "classifier", "adapter", NULL};
const char *const settings_kl_names[] = {"kl", "abs", "mse", "k3", NULL};
const char *const settings_scheduler_names[] = {"constant", "constant_with_warmup", "linear",
                                                "cosine", NULL};
static const char *const init_names[] = {"weights", "random", NULL};
static const char *const quantization_names[] = {"int8", "none", NULL};
static const char *const matmul_names[] = {"llm.int8", "dequant", NULL};
static const char *const function_names[] = {"none", "softmax", "sigmoid", NULL};
static const char *const format_names[] = {"jsonl", "text", "csv", "imdb", NULL};
static const char *const truncation_names[] = {"keep_start", "keep_end", "error", NULL};
static const char *const evaluate_names[] = {"auto", "texts", "responses", NULL};
static const char *const packing_names[] = {"auto", "wrapped", "none", NULL};
static const char *const reward_loss_names[] = {"pairwise", "cross_entropy", NULL};
static const char *const merge_base_names[] = {"original", "dequantized", NULL};
static const char *const merge_dtype_names[] = {"auto", "float32", "float16", "bfloat16", NULL};
static const char *const device_names[] = {"auto", "cpu", "cuda", NULL};
static const char *const on_nan_names[] = {"stop", "skip", NULL};

/* The key is the field: "ppo.batch_size" lies at ppo.batch_size. A field of another type does not compile. */
#define FIELD_OF(in, c_type, field)                                                                \
#field, offsetof(in, field) + 0 * sizeof(char[_Generic(((in *)0)->field, c_type : 1, default   \
                                                           : -1)])
#define ROW_OF(in, field, setting, c_type, ...)                                                    \
    ROW_PUT(FIELD_OF(in, c_type, field), setting, __VA_ARGS__)
#define ROW_PUT(...) ROW_PUT_(__VA_ARGS__)
#define ROW_PUT_(key, at, setting, ...)                                                            \
    {                                                                                              \
        .path = key, .offset = at, .type = setting, __VA_ARGS__                                    \
    }
#define ROW(field, setting, c_type, ...)                                                           \
    ROW_OF(struct settings, field, setting, c_type, __VA_ARGS__)
#define INT(field, low, high, ...)                                                                 \
    ROW(field, SETTING_INT, int64_t, .min = (low), .max = (high), __VA_ARGS__)
#define FLOAT(field, low, high, ...)                                                               \
    ROW(field, SETTING_FLOAT, double, .min = (low), .max = (high), __VA_ARGS__)
#define OPTIONAL(field, low, high, ...)                                                            \
    ROW(field, SETTING_OPTIONAL, struct settings_optional, .min = (low), .max = (high), __VA_ARGS__)
#define RANGE(field, low, high, ...)                                                               \
    ROW(field, SETTING_RANGE, struct settings_range, .min = (low), .max = (high), __VA_ARGS__)
#define DURATION(field, ...)                                                                       \
    ROW(field, SETTING_DURATION, int64_t, .min = 0, .max = SIZE_LIMIT, __VA_ARGS__)
#define BOOL(field, ...)       ROW(field, SETTING_BOOL, bool, __VA_ARGS__)
#define STRING(field, ...)     ROW(field, SETTING_STRING, char *, __VA_ARGS__)
#define STRINGS(field, ...)    ROW(field, SETTING_STRINGS, struct settings_strings, __VA_ARGS__)
#define ENUM(field, list, ...) ROW(field, SETTING_ENUM, unsigned, .names = list, __VA_ARGS__)

#define SIZE_LIMIT 1e9 /* far above any use, far below overflow of products in int64 */
#define T(task)    (1u << TASK_##task)
#define T_ALL      ((1u << TASK_COUNT) - 1)

const struct setting_row settings_rows[] = {
    ENUM(task, settings_task_names, .required = T_ALL, .example = "ppo", .doc = "What to do."),

    STRING(model.path, .required = T_ALL, .example = "input/tiny",
           .doc =
               "Hugging Face folder of the model: config.json, model.safetensors (or shards with "
               "their index), "
               "tokenizer.json. Relative paths, here and below, start at the current directory."),
    ENUM(model.init, init_names, .standard = "weights", .by_task = "pretrain=random",
         .doc = "Read the weights of the folder, or draw them from run.seed (only config.json is "
                "read)."),
    ENUM(model.quantization, quantization_names, .standard = "int8", .by_task = "pretrain=none",
         .doc = "How the frozen linear layers are stored: int8 with one scale a row, or the type "
                "of the file."),
    ENUM(model.matmul, matmul_names, .standard = "llm.int8",
         .doc = "Products with int8 weights: llm.int8 quantises activations too and keeps outliers "
                "apart; dequant "
                "expands the weights."),
    FLOAT(model.outlier_threshold, 0, INFINITY, .standard = "6.0",
          .doc =
              "llm.int8: activations of at least this magnitude are multiplied in floating point."),
    STRING(model.adapter, .required = T(MERGE), .example = "",
           .doc = "PEFT folder of an adapter to start from, to merge or to evaluate. Its r, alpha, "
                  "modules and rslora take the place of lora.* (but for lora_dropout), and the value "
                  "head beside it is taken up where there is one."),

    STRING(model.ref_adapter, .standard = "none", .by_task = "ppo=start dpo=start",
           .doc = "The reference policy, which KL is measured against: none: the model without adapters; start: model.adapter as the "
                  "run starts from it (as TRL does; without model.adapter the same as none); else a PEFT folder. In a run that "
                  "evaluates a policy of ppo, give what ppo had."),

    INT(lora.r, 1, 4096, .standard = "16", .doc = "Rank of the adapters."),
    INT(lora.lora_alpha, 1, SIZE_LIMIT, .standard = "32",
        .doc = "Their output is scaled by lora_alpha / r."),
    FLOAT(lora.lora_dropout, 0, 0.99, .standard = "0", .by_task = "sft=0.05 reward=0.05",
          .doc = "Dropout on their input while training."),
    STRINGS(lora.target_modules, .doc = "Names of the linear layers that get adapters; [] takes "
                                        "the defaults of the model family, [\"all-linear\"] all of the blocks. One entry with an "
                                        "operator in it is a regular expression for the whole path of a layer."),
    STRINGS(lora.exclude_modules, .doc = "Names, or one regular expression, of layers that get none all the same."),
    BOOL(lora.use_rslora, .standard = "false", .doc = "Scale by lora_alpha / sqrt(r) instead."),

    STRING(data.path, .required = T_ALL & ~T(MERGE), .example = "input/tiny/prompts.jsonl",
           .doc = "Prompts, texts or reviews: a file, or for imdb a folder."),
    STRING(data.eval_path,
           .doc = "Data of the evaluations of run.eval_steps, all of it each time, in the same format; "
                  "for imdb the aclImdb folder again (its test split is taken)."),
    ENUM(data.format, format_names, .standard = "jsonl",
         .doc = "jsonl: an object a line; csv: a header line with field names; text: a text a "
                "line, or texts "
                "separated by lines <|endoftext|>; imdb: the folder tree of aclImdb."),
    STRING(data.text_field, .standard = "text", .filled = true,
           .doc = "Field of the texts (jsonl, csv)."),
    STRING(data.prompt_field, .standard = "prompt", .filled = true, .doc = "Field of the prompts."),
    STRING(data.completion_field, .standard = "completion", .filled = true,
           .doc = "Field of the completions of prompts."),
    STRING(data.messages_field, .standard = "messages", .filled = true,
           .doc = "Field of conversations (jsonl): a list of {role, content}. Texts, prompts, completions and answers may be "
                  "such lists too; strings stand before messages where a row has both."),
    STRING(data.chosen_field, .standard = "chosen", .filled = true,
           .doc = "Field of the preferred answers."),
    STRING(data.rejected_field, .standard = "rejected", .filled = true,
           .doc = "Field of the other answers."),
    STRING(data.label_field, .standard = "label", .filled = true,
           .doc = "Field of the labels: integers, or names of classes."),
    STRING(data.chat_template,
           .doc = "Jinja file that messages are rendered with; empty: the chat template of the model folder."),
    INT(data.max_length, 0, SIZE_LIMIT, .standard = "0",
        .doc = "Cut texts to this many tokens; 0: do not."),
    ENUM(data.truncation, truncation_names, .standard = "keep_start",
         .doc = "Texts and prompts that are longer than the model's context (less the response): keep their first or last "
                "tokens, or stop. How many there are is told."),
    INT(data.min_chars, 0, SIZE_LIMIT, .standard = "0",
        .doc = "Leave out rows whose text (or prompt) has fewer characters; 0: none. The recipe's len(review) > 200 is "
               "201."),
    BOOL(data.add_special_tokens, .standard = "true",
         .doc = "Add the tokens that the tokenizer puts around a text, as transformers does."),
    RANGE(data.prompt_tokens, 0, SIZE_LIMIT, .standard = "0",
          .doc = "Prompts are the first n tokens: a fixed n, or [min, max] for n drawn from min .. "
                 "max - 1 a sample; "
                 "0: the whole prompt."),

    RANGE(generate.max_new_tokens, 1, SIZE_LIMIT, .standard = "50", .by_task = "ppo=[4,16]",
          .doc = "Length limit of a response: a fixed n, or [min, max] for a limit drawn from min "
                 ".. max - 1."),
    INT(generate.min_new_tokens, 0, SIZE_LIMIT, .standard = "0",
        .doc = "End tokens are not drawn before this many tokens. Above 0 it biases the KL "
               "estimate of ppo."),
    FLOAT(generate.temperature, 0, 1000, .standard = "1.0",
          .doc = "Logits are divided by it, in sampling and in log-probabilities; 0: greedy (not in "
                 "ppo)."),
    INT(generate.top_k, 0, SIZE_LIMIT, .standard = "0",
        .doc = "Draw from the k most likely tokens; 0: from all. Filters bias the KL estimate of "
               "ppo."),
    FLOAT(generate.top_p, 0, 1, .above = true, .standard = "1.0",
          .doc = "Draw from the smallest set of tokens with this probability; 1: from all."),
    STRINGS(generate.stop_strings, .doc = "A response ends behind the first of these."),
    BOOL(generate.ignore_eos, .standard = "false", .by_task = "ppo=true",
         .doc = "End tokens do not end a response: every response has its drawn length."),
    INT(generate.slots, 0, 65536, .standard = "0",
        .doc = "Sequences decoded at a time on a rank; 0: as many as the memory plan allows. Does "
               "not change results."),

    INT(ppo.batch_size, 1, SIZE_LIMIT, .standard = "256",
        .doc = "Samples of a step, over all ranks (TRL counts them per process)."),
    INT(ppo.mini_batch_size, 1, SIZE_LIMIT, .standard = "16",
        .doc = "Samples of an optimizer update, over all ranks (TRL: per process); divides "
               "batch_size."),
    INT(ppo.micro_batch_size, 0, SIZE_LIMIT, .standard = "0",
        .doc = "Samples of one forward and backward pass on a rank; 0: planned. Does not change "
               "results."),
    INT(ppo.ppo_epochs, 1, 1000, .standard = "4", .doc = "Passes over the samples of a step."),
    FLOAT(ppo.init_kl_coef, 0, INFINITY, .standard = "0.2",
          .doc = "First weight of the KL penalty."),
    BOOL(ppo.adap_kl_ctrl, .standard = "true", .doc = "Adapt that weight towards ppo.target."),
    FLOAT(ppo.target, 0, INFINITY, .above = true, .standard = "6.0",
          .doc = "KL (summed over a response) that the controller aims at."),
    FLOAT(ppo.horizon, 0, INFINITY, .above = true, .standard = "10000.0",
          .doc = "Samples over which the controller adapts."),
    ENUM(ppo.kl_penalty, settings_kl_names, .standard = "kl",
         .doc = "Per-token KL estimate, of d = log-probability minus the reference's: kl: d; abs: "
                "|d|; mse: d^2 / 2; "
                "k3: exp(-d) - 1 + d."),
    FLOAT(ppo.gamma, 0, 1, .standard = "1.0", .doc = "Discount of rewards."),
    FLOAT(ppo.lam, 0, 1, .standard = "0.95", .doc = "Lambda of generalised advantage estimation."),
    FLOAT(ppo.cliprange, 0, INFINITY, .above = true, .standard = "0.2",
          .doc = "Clip range of the probability ratio."),
    FLOAT(ppo.cliprange_value, 0, INFINITY, .above = true, .standard = "0.2",
          .doc = "Clip range of values."),
    FLOAT(ppo.vf_coef, 0, INFINITY, .standard = "0.1", .doc = "Weight of the value loss."),
    FLOAT(ppo.ent_coef, 0, INFINITY, .standard = "0.0", .doc = "Weight of an entropy bonus."),
    FLOAT(ppo.ratio_threshold, 0, INFINITY, .above = true, .standard = "10.0",
          .doc = "A mini-batch whose mean ratio exceeds this is left out."),
    BOOL(ppo.early_stopping, .standard = "false",
         .doc = "End the epochs of a step when the policy's KL exceeds 1.5 * target_kl."),
    OPTIONAL(ppo.target_kl, 0, INFINITY, .above = true, .doc = "For early_stopping (TRL: 1.0)."),
    BOOL(ppo.use_score_scaling, .standard = "false",
         .doc = "Divide scores by their running standard deviation."),
    BOOL(ppo.use_score_norm, .standard = "false",
         .doc = "With use_score_scaling: subtract the running mean too."),
    OPTIONAL(ppo.score_clip, 0, INFINITY, .above = true,
             .doc = "Clip scores to plus or minus this."),
    BOOL(ppo.whiten_rewards, .standard = "false",
         .doc = "Whiten per-token rewards before advantages."),
    OPTIONAL(ppo.missing_eos_penalty, 0, INFINITY,
             .doc = "Subtract this from the score of a response without an end token."),

    FLOAT(sft.num_train_epochs, 0, 1e6, .above = true, .standard = "1.0",
          .doc = "Passes over the data, each in a new order; run.max_steps stands before it."),
    INT(sft.batch_size, 1, SIZE_LIMIT, .standard = "16",
        .doc = "Sequences of an update, over all ranks (TRL: per device, times accumulation steps)."),
    INT(sft.micro_batch_size, 0, SIZE_LIMIT, .standard = "0",
        .doc = "Sequences of one pass on a rank; 0: planned. Does not change results."),
    ENUM(sft.packing, packing_names, .standard = "auto",
         .doc = "wrapped: texts one behind the other, cut into blocks of block_size; the last one is dropped where it is not "
                "full. none: a text, a prompt with its completion or a conversation a sequence, cut to the model's context "
                "and data.max_length. auto: wrapped for texts, none for the others."),
    INT(sft.block_size, 2, SIZE_LIMIT, .standard = "1024", .doc = "Tokens of a packed sequence; less where the context is shorter."),
    BOOL(sft.separator, .standard = "true",
         .doc = "Packed texts have an end token behind them, as TRL packs; the recipe has none."),
    BOOL(sft.completion_only_loss, .standard = "true",
         .doc = "Where a row has a prompt and a completion, only the completion's tokens are learnt."),

    ENUM(reward_model.loss, reward_loss_names, .standard = "pairwise",
         .doc = "What task = \"reward\" trains: a reward, by pairs of a chosen and a rejected answer; or classes, by the label of each "
                "text."),
    FLOAT(reward_model.num_train_epochs, 0, 1e6, .above = true, .standard = "1.0",
          .doc = "Passes over the data, each in a new order; run.max_steps stands before it."),
    INT(reward_model.batch_size, 1, SIZE_LIMIT, .standard = "16", .doc = "Pairs or texts of an update, over all ranks."),
    INT(reward_model.micro_batch_size, 0, SIZE_LIMIT, .standard = "0",
        .doc = "Pairs or texts of one pass on a rank; 0: planned. Does not change results."),
    OPTIONAL(reward_model.center_rewards_coefficient, 0, INFINITY,
             .doc = "pairwise: weight of (chosen + rejected)^2 in the loss, which keeps rewards around 0 (TRL suggests 0.01)."),
    STRINGS(reward_model.label_names,
            .doc = "cross_entropy: the classes by number; []: the labels of the data where they are names, in the order of their "
                   "bytes, else LABEL_0, LABEL_1, .."),
    BOOL(reward_model.head_only, .standard = "false",
         .doc = "Train the score head alone; the adapter that is written beside it changes nothing."),

    INT(pretrain.vocab_size, 0, SIZE_LIMIT, .standard = "0",
        .doc = "Vocabulary of the new model; 0: what config.json says."),
    INT(pretrain.block_size, 2, SIZE_LIMIT, .standard = "256", .doc = "Tokens of a sequence."),
    STRING(pretrain.tokenizer, .doc = "Folder of the tokenizer; empty: model.path."),
    INT(pretrain.batch_size, 1, SIZE_LIMIT, .standard = "32",
        .doc = "Sequences of an update, over all ranks."),
    INT(pretrain.micro_batch_size, 0, SIZE_LIMIT, .standard = "0",
        .doc = "Sequences of one pass on a rank; 0: planned. Does not change results."),

    ENUM(merge.base, merge_base_names, .standard = "original",
         .doc = "Adapters go into the weights of model.path as they are (original), or as int8 holds them (dequantized): "
                "the merged model then is what the adapters were trained on, in 16 or 32 bits."),
    ENUM(merge.dtype, merge_dtype_names, .standard = "auto",
         .doc = "Type of the merged model's tensors; auto: each as it is in model.path."),

    ENUM(evaluate.what, evaluate_names, .standard = "auto",
         .doc = "texts: log-probabilities and perplexity of every text, and with a reward the score of "
                "the text as it stands. responses: a response of the policy to every prompt, its score "
                "and its KL to the reference. auto: responses where there is a reward, else texts."),
    INT(evaluate.micro_batch_size, 0, SIZE_LIMIT, .standard = "0",
        .doc = "Texts or responses of one pass on a rank; 0: planned. Does not change results."),

    FLOAT(optim.learning_rate, 0, 1e3, .standard = "1.41e-5",
          .by_task = "sft=5e-5 pretrain=1e-3 reward=1e-4 dpo=1e-6",
          .doc = "Peak learning rate of AdamW."),
    FLOAT(optim.adam_beta1, 0, 0.999999, .standard = "0.9", .doc = "Decay of the first moment."),
    FLOAT(optim.adam_beta2, 0, 0.99999999, .standard = "0.999",
          .doc = "Decay of the second moment."),
    FLOAT(optim.adam_epsilon, 0, 1, .above = true, .standard = "1e-8",
          .doc = "Added to the root of the second moment."),
    FLOAT(optim.weight_decay, 0, 1e3, .standard = "0.0", .doc = "Decoupled weight decay."),
    OPTIONAL(optim.max_grad_norm, 0, INFINITY, .above = true, .standard = "1.0",
             .doc = "Gradients are scaled down to this norm. TRL's PPO of 2023 had none."),
    ENUM(optim.lr_scheduler_type, settings_scheduler_names, .standard = "constant",
         .by_task = "sft=linear reward=linear dpo=linear pretrain=cosine",
         .doc = "Course of the learning rate over the updates of the run."),
    INT(optim.warmup_steps, 0, SIZE_LIMIT, .standard = "0",
        .doc = "Updates of linear warm-up; not with constant."),

    STRING(run.output_dir, .required = T_ALL, .example = "out/reference",
           .doc = "Folder of all that the run writes."),
    INT(run.seed, 0, 9007199254740992.0, .standard = "0", .doc = "Of all random numbers."),
    INT(run.max_steps, 0, SIZE_LIMIT, .standard = "0",
        .doc = "Steps of the run; 0: one pass over the data (sft, reward: as many as their num_train_epochs)."),
    INT(run.save_steps, 0, SIZE_LIMIT, .standard = "10", .by_task = "pretrain=100",
        .doc = "Write a checkpoint every so many steps; 0: only when the run ends."),
    INT(run.save_total_limit, 0, SIZE_LIMIT, .standard = "2",
        .doc = "Keep this many checkpoints; 0: all."),
    INT(run.sample_steps, 0, SIZE_LIMIT, .standard = "10",
        .doc = "Write responses to the first 4 prompts of data.eval_path (without it: data.path), beside "
               "the reference's, to samples.jsonl every so many steps; 0: never."),
    INT(run.eval_steps, 0, SIZE_LIMIT, .standard = "0",
        .doc = "Evaluate on data.eval_path every so many steps: eval/.. in metrics.jsonl, and adapter-best/ of the best so far. "
               "ppo: score of the policy's and the reference's responses, sampled and greedy, and KL; sft, reward: loss, "
               "at the start and the end in any case. 0: never."),
    DURATION(run.max_walltime, .standard = "0",
             .doc = "Stop with a checkpoint and exit code 75 in time for this limit: seconds or "
                    "\"HH:MM:SS\" "
                    "(\"D-HH:MM:SS\"); 0: none."),
    OPTIONAL(run.memory_limit, 0, 1e6, .above = true,
             .doc = "GiB a device may use; none: what it has free, less 3 percent."),
    INT(run.threads, 0, 4096, .standard = "0",
        .doc = "CPU threads of a rank; 0: cores / ranks. Does not change results."),
    ENUM(run.device, device_names, .standard = "auto",
         .doc = "Where the model runs; auto: cuda where there is one. A rank takes the visible device of its "
                "number on the node."),
    BOOL(run.share_device, .standard = "false",
         .doc = "Ranks may take the same device; the sums over ranks then go through the host."),
    ENUM(run.on_nan, on_nan_names, .standard = "stop",
         .doc = "At a loss or gradient that is not finite: stop the run, or skip the update."),
    DURATION(run.hang_timeout, .standard = "600",
             .doc = "End the run when a rank makes no progress for so long: seconds or "
                    "\"HH:MM:SS\"; 0: never. Longer than any one answer of a reward program."),
};
const int settings_n_rows = sizeof settings_rows / sizeof settings_rows[0];
_Static_assert(sizeof settings_rows / sizeof settings_rows[0] <= SETTINGS_ROWS_MAX,
               "raise SETTINGS_ROWS_MAX");

#define REWARD(field, setting, c_type, ...)                                                        \
    ROW_OF(struct settings_reward, field, setting, c_type, __VA_ARGS__)

const struct setting_row settings_reward_rows[] = {
    REWARD(type, SETTING_ENUM, unsigned, .names = settings_reward_names, .required = T_ALL,
           .example = "lexicon",
           .doc = "lexicon: weights of words; program: a command that reads JSON lines and answers "
                  "with scores; "
                  "classifier: a sequence classification model; adapter: a PEFT adapter with a "
                  "score head on the "
                  "base model."),
    REWARD(name, SETTING_STRING, char *,
           .doc = "In metrics and messages; empty: the type. Names differ."),
    REWARD(weight, SETTING_FLOAT, double, .standard = "1.0", .min = -INFINITY, .max = INFINITY,
           .doc = "The score of a sample is the weighted sum over the list."),
    REWARD(path, SETTING_STRING, char *, .example = "input/tiny/lexicon.tsv",
           .doc = "File of the lexicon, or folder of the classifier or adapter."),
    REWARD(command, SETTING_STRING, char *,
           .doc = "Command line of the program, run by the shell."),
    REWARD(timeout, SETTING_FLOAT, double, .standard = "60.0", .min = 0, .max = 1e9, .above = true,
           .doc = "Seconds a program may take for one answer."),
    REWARD(label, SETTING_STRING, char *, .number_too = true,
           .doc = "Class of the classifier (or adapter) whose score counts: its name in config.json or its number; empty: the "
                  "last class."),
    REWARD(function_to_apply, SETTING_ENUM, unsigned, .names = function_names, .standard = "none",
           .doc = "What makes the score of the class's logit, as in transformers' pipeline: none: the logit itself; softmax: the "
                  "class's probability among all; sigmoid: its probability by itself."),
    REWARD(quantization, SETTING_ENUM, unsigned, .names = quantization_names, .standard = "none",
           .doc = "How a classifier's linear layers are stored: the type of the file, or int8 with one scale a row (products as "
                  "model.matmul says)."),
    REWARD(max_length, SETTING_INT, int64_t, .min = 1, .max = SIZE_LIMIT, .standard = "1024",
           .doc = "A classifier reads so many tokens of a text, special ones counted, or as many as it has positions where that is "
                  "less; the rest is cut at the end (transformers' truncation)."),
};
_Static_assert(sizeof settings_reward_rows / sizeof settings_reward_rows[0] == SETTINGS_REWARD_ROWS,
               "keep in step");
