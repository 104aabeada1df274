/* Tests of src/settings.c, mostly driven by the table itself: every key misspelt, of the wrong type, out of range.
 * With --reference it prints input/reference.cfg instead (make reference).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "file.h"
#include "kl.h"
#include "nearest.h"
#include "schedule.h"
#include "settings.h"
#include "settings_scan.h"
#include "settings_table.h"

#define BASE                                                                                       \
    "task = \"ppo\";\n"                                                                            \
    "model: { path = \"m\"; };\n"                                                                  \
    "data: { path = \"d\"; };\n"                                                                   \
    "run: { output_dir = \"o\"; };\n"                                                              \
    "reward = ( { type = \"lexicon\"; path = \"l\"; } );\n"

static int load(struct settings *s, const char *text)
{
    error_clear();
    return settings_load(s, "input.cfg", text, strlen(text), NULL, 0);
}

static int load_with(struct settings *s, const char *text, const char *override)
{
    error_clear();
    return settings_load(s, "input.cfg", text, strlen(text), &override, 1);
}

static void expect_error(const char *text, const char *message)
{
    struct settings s;
    assert_int_equal(load(&s, text), -1);
    assert_int_equal(error_kind(), ERR_INPUT);
    assert_string_equal(error_message(), message);
    settings_free(&s);
}

static void expect_override_error(const char *override, const char *message)
{
    struct settings s;
    assert_int_equal(load_with(&s, BASE, override), -1);
    assert_int_equal(error_exit_code(), 2);
    assert_string_equal(error_message(), message);
    settings_free(&s);
}

static void assert_contains(const char *where, const char *what)
{
    if (!strstr(where, what))
        fail_msg("\"%s\" is not in \"%s\"", what, where);
}

/* "group: { key = value; };" or "key = value;" in one line. */
static void line_of(struct text *out, const char *path, const char *value)
{
    const char *dot = strchr(path, '.');
    if (dot)
        text_format(out, "%.*s: { %s = %s; };", (int)(dot - path), path, dot + 1, value);
    else
        text_format(out, "%s = %s;", path, value);
}

static void test_defaults_by_task(void **state)
{
    (void)state;
    struct settings s;
    assert_int_equal(load(&s, BASE), 0);
    assert_int_equal(s.task, TASK_PPO);
    assert_string_equal(s.model.path, "m");
    assert_string_equal(s.model.adapter, "");
    assert_int_equal(s.ppo.batch_size, 256);
    assert_int_equal(s.ppo.mini_batch_size, 16);
    assert_true(s.optim.learning_rate == 1.41e-5);
    assert_true(s.optim.max_grad_norm.set && s.optim.max_grad_norm.value == 1);
    assert_false(s.ppo.score_clip.set);
    assert_true(s.lora.lora_dropout == 0);
    assert_int_equal(s.generate.max_new_tokens.min, 4);
    assert_int_equal(s.generate.max_new_tokens.max, 16);
    assert_int_equal(s.data.prompt_tokens.max, 0);
    assert_true(s.generate.ignore_eos);
    assert_int_equal(s.run.hang_timeout, 600);
    assert_int_equal(s.n_rewards, 1);
    assert_string_equal(s.reward[0].name, "lexicon");
    assert_true(s.reward[0].weight == 1);
    settings_free(&s);
    assert_int_equal(load_with(&s, BASE, "task=sft"), 0);
    assert_true(s.lora.lora_dropout == 0.05);
    assert_int_equal(s.optim.lr_scheduler_type, SCHEDULER_LINEAR);
    settings_free(&s);
    assert_int_equal(load_with(&s, BASE, "task=pretrain"), 0);
    assert_true(s.optim.learning_rate == 1e-3);
    assert_int_equal(s.model.init, MODEL_INIT_RANDOM);
    settings_free(&s);
    settings_free(&s);
}

static void test_values(void **state)
{
    (void)state;
    struct settings s;
    const char *text =
        "// all kinds of values\n"
        "task = \"ppo\"\n"
        "model: { path = \"a \\\"b\\\" \\\\ c\"; matmul = \"dequant\"; }\n"
        "data: { path = \"d\"; prompt_tokens = [2, 8]; }\n"
        "lora: { target_modules = [\"q_proj\", \"v_proj\"]; }\n"
        "generate: { max_new_tokens = 7; stop_strings = (\"\\n\"); temperature = 1; }\n"
        "ppo: { score_clip = 5; target_kl = 1e-1; }\n"
        "optim: { max_grad_norm = \"none\"; learning_rate = 3e-6; }\n"
        "run: { output_dir = \"o\"; seed = 5000000000; max_walltime = \"1-02:03:04\"; hang_timeout "
        "= 0x10; }\n"
        "reward = ( { type = \"classifier\"; path = \"c\"; label = 1; },\n"
        "           { type = \"program\"; command = \"./score.py\"; weight = -0.5; } )\n";
    assert_int_equal(load(&s, text), 0);
    assert_string_equal(s.model.path, "a \"b\" \\ c");
    assert_int_equal(s.model.matmul, MATMUL_CHOICE_DEQUANT);
    assert_int_equal(s.data.prompt_tokens.min, 2);
    assert_int_equal(s.data.prompt_tokens.max, 8);
    assert_int_equal(s.lora.target_modules.n, 2);
    assert_string_equal(s.lora.target_modules.item[1], "v_proj");
    assert_int_equal(s.generate.max_new_tokens.min, 7);
    assert_int_equal(s.generate.max_new_tokens.max, 8);
    assert_string_equal(s.generate.stop_strings.item[0], "\n");
    assert_true(s.ppo.score_clip.set && s.ppo.score_clip.value == 5);
    assert_true(s.ppo.target_kl.value == 0.1);
    assert_false(s.optim.max_grad_norm.set);
    assert_true(s.run.seed == 5000000000);
    assert_int_equal(s.run.max_walltime, ((24 + 2) * 60 + 3) * 60 + 4);
    assert_int_equal(s.run.hang_timeout, 16);
    assert_int_equal(s.n_rewards, 2);
    assert_string_equal(s.reward[0].label, "1");
    assert_int_equal(s.reward[1].type, REWARD_TYPE_PROGRAM);
    assert_true(s.reward[1].weight == -0.5);
    settings_free(&s);
}

static void test_every_key_misspelt(void **state)
{
    (void)state;
    for (int i = 0; i < settings_n_rows; i++)
        for (int way = 0; way < 3; way++) {
            const char *path = settings_rows[i].path;
            size_t n = strlen(path);
            char wrong[160], expected[400];
            if (way == 0)
                snprintf(wrong, sizeof wrong, "%s%c", path, path[n - 1]); /* a letter twice */
            else if (way == 1)
                snprintf(wrong, sizeof wrong, "%.*sx%s", (int)n - 1, path,
                         path + n - 1); /* one too many */
            else {                      /* two swapped */
                if (n < 3 || path[n - 2] == '.' || path[n - 1] == path[n - 2])
                    continue;
                snprintf(wrong, sizeof wrong, "%.*s%c%c", (int)n - 2, path, path[n - 1],
                         path[n - 2]);
            }
            struct text text = {0};
            text_add_string(&text, "\n");
            line_of(&text, wrong, "1");
            struct settings s;
            assert_int_equal(load(&s, text.bytes), -1);
            snprintf(expected, sizeof expected,
                     "input.cfg:2: %s: unknown setting; did you mean %s?\n", wrong, path);
            assert_contains(error_message(), expected);
            settings_free(&s);
            text_free(&text);
        }
    for (int i = 0; i < SETTINGS_REWARD_ROWS; i++) {
        struct text text = {0};
        char expected[200];
        const char *key = settings_reward_rows[i].path;
        text_format(&text, "reward = ( { %sx = 1; } );", key);
        struct settings s;
        assert_int_equal(load(&s, text.bytes), -1);
        snprintf(expected, sizeof expected,
                 "reward.0.%sx: unknown setting; did you mean reward.0.%s?", key, key);
        assert_contains(error_message(), expected);
        settings_free(&s);
        text_free(&text);
    }
}

static void test_unknown_names(void **state)
{
    (void)state;
    expect_error(BASE "ppo: { cliprage = 0.1; };\n",
                 "input.cfg:6: ppo.cliprage: unknown setting; did you mean ppo.cliprange?");
    expect_error(BASE "ppo: { quite_something_else = 0.1; };\n",
                 "input.cfg:6: ppo.quite_something_else: unknown setting");
    expect_error(BASE "learning_rate = 0.1;\n",
                 "input.cfg:6: learning_rate: unknown setting; did you mean optim.learning_rate?");
    expect_error(
        BASE "ppo: { learning_rate = 0.1; };\n",
        "input.cfg:6: ppo.learning_rate: unknown setting; did you mean optim.learning_rate?");
    expect_error(BASE "genrate: { top_k = 1; };\n",
                 "input.cfg:6: genrate: unknown setting; did you mean generate?");
    expect_error(BASE "rewards = ();\n",
                 "input.cfg:6: rewards: unknown setting; did you mean reward?");
}

static const char *wrong_value(enum setting_type type)
{
    return type == SETTING_STRING || type == SETTING_ENUM ? "1.5" : "{ a = 1; }";
}

static void test_every_key_of_wrong_type(void **state)
{
    (void)state;
    for (int i = 0; i < settings_n_rows; i++)
        for (int way = 0; way < 2; way++) {
            const struct setting_row *row = &settings_rows[i];
            struct text text = {0};
            if (way && (row->type == SETTING_STRINGS || row->type == SETTING_STRING ||
                        row->type == SETTING_ENUM))
                continue;
            line_of(&text, row->path, way ? "\"word\"" : wrong_value(row->type));
            struct settings s;
            assert_int_equal(load(&s, text.bytes), -1);
            char expected[200];
            snprintf(expected, sizeof expected, "input.cfg:1: %s: must be ", row->path);
            assert_contains(error_message(), expected);
            settings_free(&s);
            text_free(&text);
        }
}

static void expect_out_of_range(const char *path, double x, bool is_float)
{
    struct text text = {0};
    char number[64], expected[200];
    snprintf(number, sizeof number, is_float ? "%.17e" : "%.0f", x);
    line_of(&text, path, number);
    struct settings s;
    assert_int_equal(load(&s, text.bytes), -1);
    snprintf(expected, sizeof expected, "input.cfg:1: %s: %.12g is out of range: ", path, x);
    assert_contains(error_message(), expected);
    settings_free(&s);
    text_free(&text);
}

static void test_every_ranged_key_out_of_range(void **state)
{
    (void)state;
    int n = 0;
    for (int i = 0; i < settings_n_rows; i++) {
        const struct setting_row *row = &settings_rows[i];
        bool is_float = row->type == SETTING_FLOAT || row->type == SETTING_OPTIONAL;
        bool is_int =
            row->type == SETTING_INT || row->type == SETTING_RANGE || row->type == SETTING_DURATION;
        if (!is_float && !is_int)
            continue;
        double step = is_float ? 1e-3 : 1;
        expect_out_of_range(row->path, row->min - (row->above ? 0 : step), is_float);
        if (isfinite(row->max))
            expect_out_of_range(row->path, row->max + step * (row->max > 1e9 ? 2 : 1), is_float);
        n++;
    }
    assert_true(n > 40);
    expect_error(BASE "optim: { learning_rate = 1e999; };",
                 "input.cfg:6: optim.learning_rate: inf is out of range: "
                 "0 to 1000");
}

static void test_ranges(void **state)
{
    (void)state;
    expect_error(BASE "generate: { max_new_tokens = [4, 4]; };",
                 "input.cfg:6: generate.max_new_tokens: [4, 4] is empty: max itself is not drawn");
    expect_error(BASE "generate: { max_new_tokens = [0, 4]; };",
                 "input.cfg:6: generate.max_new_tokens: [0, 4] is out of range: both ends at least "
                 "1, at most "
                 "1000000000");
    expect_error(BASE "generate: { max_new_tokens = [1, 2, 3]; };",
                 "input.cfg:6: generate.max_new_tokens: must be an integer or [min, max] (drawn "
                 "from min .. max - 1)");
    const char *clocks[] = {"1:2",      "00:60:00", "00:00:60", "1:2:3x", "-1:00:00",
                            "1-:00:00", "",         "1:2:3:4",  "a"};
    for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++) {
        struct text text = {0};
        text_format(&text, "run: { max_walltime = \"%s\"; };", clocks[i]);
        struct settings s;
        assert_int_equal(load(&s, text.bytes), -1);
        assert_contains(error_message(), "run.max_walltime: must be seconds");
        settings_free(&s);
        text_free(&text);
    }
}

static void test_missing_keys(void **state)
{
    (void)state;
    expect_error("", "input.cfg: task: is missing; one of \"tokenize\", \"pretrain\", \"sft\", "
                     "\"reward\", \"merge\", "
                     "\"ppo\", \"dpo\", \"generate\", \"evaluate\"");
    expect_error(
        "task = \"ppo\";",
        "input.cfg: model.path: is missing; task ppo needs it\n"
        "input.cfg: data.path: is missing; task ppo needs it\n"
        "input.cfg: run.output_dir: is missing; task ppo needs it\n"
        "input.cfg: reward: is missing; task ppo needs at least one: reward = ( { type = .. } )");
    expect_error("task = \"merge\"; model: { path = \"m\"; }; run: { output_dir = \"\"; };",
                 "input.cfg:1: run.output_dir: is empty; task merge needs it\n"
                 "input.cfg: model.adapter: is missing; task merge needs it");
    expect_error("task = \"pppo\";",
                 "input.cfg:1: task: unknown name \"pppo\"; did you mean \"ppo\"? (one of "
                 "\"tokenize\", \"pretrain\", "
                 "\"sft\", \"reward\", \"merge\", \"ppo\", \"dpo\", \"generate\", \"evaluate\")");
}

static void test_all_problems_at_once_in_order_of_lines(void **state)
{
    (void)state;
    expect_error(
        "task = \"ppo\";\n"
        "ppo:\n"
        "{\n"
        "  mini_batch_size = 7;\n"
        "  cliprage = 0.2;\n"
        "  gamma = 2.0;\n"
        "};\n"
        "model: { path = 3; quantization = \"int4\"; };\n"
        "generate: { min_new_tokens = 16; };\n",
        "input.cfg:4: ppo.mini_batch_size: ppo.mini_batch_size = 7 does not divide ppo.batch_size "
        "= 256\n"
        "input.cfg:5: ppo.cliprage: unknown setting; did you mean ppo.cliprange?\n"
        "input.cfg:6: ppo.gamma: 2 is out of range: 0 to 1\n"
        "input.cfg:8: model.path: must be a string, not an integer\n"
        "input.cfg:8: model.quantization: unknown name \"int4\"; did you mean \"int8\"? (one of "
        "\"int8\", \"none\")\n"
        "input.cfg:9: generate.min_new_tokens: 16 exceeds the longest response of "
        "generate.max_new_tokens, 15\n"
        "input.cfg: data.path: is missing; task ppo needs it\n"
        "input.cfg: run.output_dir: is missing; task ppo needs it\n"
        "input.cfg: reward: is missing; task ppo needs at least one: reward = ( { type = .. } )");
}

static void test_long_reports_are_cut_at_a_line(void **state)
{
    (void)state;
    struct text text = {0};
    for (int i = 0; i < 1000; i++)
        text_format(&text, "unknown_%d = 1;\n", i);
    struct settings s;
    assert_int_equal(load(&s, text.bytes), -1);
    assert_contains(error_message(), "input.cfg:100: unknown_99: unknown setting\n");
    assert_string_equal(strrchr(error_message(), '\n'), "\n.. and more");
    settings_free(&s);
    text_free(&text);
}

static void test_contradictions(void **state)
{
    (void)state;
    expect_error(
        BASE "ppo: { batch_size = 8; };",
        "input.cfg:6: ppo.batch_size: ppo.mini_batch_size = 16 exceeds ppo.batch_size = 8");
    expect_error(
        BASE "ppo: { mini_batch_size = 512; };",
        "input.cfg:6: ppo.mini_batch_size: ppo.mini_batch_size = 512 exceeds ppo.batch_size = 256");
    expect_error(BASE "ppo: { early_stopping = true; };",
                 "input.cfg:6: ppo.early_stopping: needs ppo.target_kl");
    expect_error(BASE "ppo: { missing_eos_penalty = 1.0; };",
                 "input.cfg:6: ppo.missing_eos_penalty: needs generate.ignore_eos = false");
    expect_error(BASE "optim: { warmup_steps = 3; };",
                 "input.cfg:6: optim.warmup_steps: optim.lr_scheduler_type = \"constant\" takes no "
                 "warm-up; use "
                 "\"constant_with_warmup\"");
    expect_override_error("run.eval_steps=5", "--set run.eval_steps=5: needs data.eval_path");
    expect_error("task = \"reward\"; model: { path = \"m\"; adapter = \"a\"; }; data: { path = \"d\"; };\n"
                 "run: { output_dir = \"o\"; }; reward_model: { head_only = true; };",
                 "input.cfg:2: reward_model.head_only: the head is trained without adapters: model.adapter has no part in it; "
                 "merge it first (task = \"merge\")");
    expect_error("task = \"evaluate\"; model: { path = \"m\"; }; data: { path = \"d\"; };\n"
                 "run: { output_dir = \"o\"; }; evaluate: { what = \"responses\"; };",
                 "input.cfg:2: evaluate.what: \"responses\" needs a reward: reward = ( { type = .. } )");
    expect_error(BASE "run: {};", "input.cfg:6: duplicate setting name");
}

static void test_rewards(void **state)
{
    (void)state;
    const char *head = "task = \"ppo\"; model: { path = \"m\"; }; data: { path = \"d\"; }; run: { "
                       "output_dir = \"o\"; };\n";
    static const struct {
        const char *reward, *message;
    } cases[] = {
        {"reward = 3;",
         "input.cfg:2: reward: must be a list of groups: reward = ( { type = .. }, { .. } )\n"
         "input.cfg: reward: is missing; task ppo needs at least one: reward = ( { type = .. } )"},
        {"reward = ( 3 );", "input.cfg:2: reward.0: must be a group { type = ..; .. }\n"
                            "input.cfg: reward.0.type: is missing; task ppo needs it"},
        {"reward = ( { type = \"program\"; } );",
         "input.cfg:2: reward.0.command: is missing; a program needs it"},
        {"reward = ( { type = \"classifier\"; weight = \"x\"; path = \"p\"; } );",
         "input.cfg:2: reward.0.weight: must be a number, not a string"},
        {"reward = ( { type = \"lexicon\"; path = 1; } );", "input.cfg:2: reward.0.path: must be a string, not an integer"},
        {"reward = ( { type = 1; } );", "input.cfg:2: reward.0.type: must be one of \"lexicon\", \"program\", "
                                        "\"classifier\", \"adapter\", not an integer"},
        {"reward = ( { type = \"lexicon\"; path = \"p\"; }, { type = \"lexicon\"; path = \"q\"; } "
         ");",
         "input.cfg:2: reward.1.name: \"lexicon\" is the name of reward.0 too: give each its own"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text text = {0};
        text_format(&text, "%s%s", head, cases[i].reward);
        expect_error(text.bytes, cases[i].message);
        text_free(&text);
    }
    struct text many = {0};
    text_format(&many, "%sreward = (", head);
    for (int i = 0; i < 17; i++)
        text_format(&many, "%s{ type = \"lexicon\"; path = \"p\"; name = \"r%d\"; }", i ? ", " : "",
                    i);
    text_add_string(&many, ");");
    expect_error(many.bytes, "input.cfg:2: reward: more than 16 rewards");
    text_free(&many);
}

static void test_overrides(void **state)
{
    (void)state;
    struct settings s;
    const char *overrides[] = {
        "ppo.batch_size=64",      "ppo.batch_size=32",         "run.output_dir=/tmp/a b=c",
        "data.path=\"quoted\"",   "optim.learning_rate=1e-5",  "data.prompt_tokens=[2,9]",
        "reward.0.weight=2",      "reward.1.type=program",     "reward.1.command=cat; x",
        "model.adapter=12",       "ppo.kl_penalty=k3",         "lora.target_modules=q",
        "ppo.adap_kl_ctrl=false", "run.max_walltime=00:30:00", "optim.max_grad_norm=none",
        "data.text_field=true"};
    int n = sizeof overrides / sizeof *overrides;
    error_clear();
    assert_int_equal(settings_load(&s, "input.cfg", BASE, strlen(BASE), overrides, n), 0);
    assert_int_equal(s.ppo.batch_size, 32);
    assert_string_equal(s.run.output_dir, "/tmp/a b=c");
    assert_string_equal(s.data.path, "quoted");
    assert_true(s.optim.learning_rate == 1e-5);
    assert_int_equal(s.data.prompt_tokens.max, 9);
    assert_true(s.reward[0].weight == 2);
    assert_int_equal(s.n_rewards, 2);
    assert_string_equal(s.reward[1].command, "cat; x");
    assert_string_equal(s.model.adapter, "12");
    assert_int_equal(s.ppo.kl_penalty, KL_CHOICE_K3);
    assert_string_equal(s.lora.target_modules.item[0], "q");
    assert_false(s.ppo.adap_kl_ctrl);
    assert_int_equal(s.run.max_walltime, 1800);
    assert_false(s.optim.max_grad_norm.set);
    assert_string_equal(s.data.text_field, "true");
    settings_free(&s);
    /* an override takes the place of a faulty value of the file */
    assert_int_equal(load_with(&s, BASE "ppo: { gamma = \"x\"; };", "ppo.gamma=0.9"), 0);
    settings_free(&s);
}

static void test_override_errors(void **state)
{
    (void)state;
    expect_override_error("ppo.batch_sze=64",
                          "--set ppo.batch_sze=64: unknown setting; did you mean ppo.batch_size?");
    expect_override_error("ppo.batch_size=abc",
                          "--set ppo.batch_size=abc: must be an integer, not a string");
    expect_override_error("ppo.batch_size=",
                          "--set ppo.batch_size=: must be an integer, not a string");
    expect_override_error("ppo.batch_size=0",
                          "--set ppo.batch_size=0: 0 is out of range: at least 1");
    expect_override_error("ppo.batch_size=1; x = 2",
                          "--set ppo.batch_size=1; x = 2: must be an integer, not a string");
    expect_override_error("ppo.batch_size",
                          "--set ppo.batch_size: must be KEY=VALUE, as in ppo.batch_size=64");
    expect_override_error("=3", "--set =3: must be KEY=VALUE, as in ppo.batch_size=64");
    expect_override_error("ppo=3", "--set ppo=3: set its keys one by one, as in ppo.batch_size=64");
    expect_override_error("reward.2.weight=3",
                          "--set reward.2.weight=3: there are 1 rewards, counted from 0");
    expect_override_error("reward.0.wight=3",
                          "--set reward.0.wight=3: unknown setting; did you mean reward.0.weight?");
    expect_override_error(
        "reward.x.weight=3",
        "--set reward.x.weight=3: must be reward.N.KEY with N from 0, as in reward.0.weight");
    expect_override_error("lora.target_modules=[a",
                          "--set lora.target_modules=[a: syntax error in the value");
    expect_override_error("ppo.mini_batch_size=24",
                          "--set ppo.mini_batch_size=24: ppo.mini_batch_size = 24 does not divide "
                          "ppo.batch_size = 256");
    expect_override_error("run.seed=99999999999999999999",
                          "--set run.seed=99999999999999999999: must be an integer, not a string");
}

static void test_syntax_errors(void **state)
{
    (void)state;
    expect_error("task = \"ppo\";\nmodel = {\npath = m;\n}",
                 "input.cfg:3: syntax error (here or just before; strings need quotes)");
    expect_error("a = 1;\nb = \"open\n", "input.cfg:2: a string begins here and does not end");
    expect_error("a = 1;\n/* b\n", "input.cfg:2: a comment begins here and does not end");
    expect_error("\n@include \"/etc/passwd\"\n", "input.cfg:2: @include is not supported");
    expect_error("# @include \"x\" and \"\n\na = 123456789012345678901;",
                 "input.cfg:3: an integer beyond 64 bits");
    struct settings s;
    error_clear();
    assert_int_equal(settings_load(&s, "input.cfg", "a = 1;\n\0b", 9, NULL, 0), -1);
    assert_string_equal(error_message(), "input.cfg:2: a NUL byte: this is no text file");
    settings_free(&s);
    struct text deep = {0};
    for (int i = 0; i < 100000; i++)
        text_add_string(&deep, "a = (");
    expect_error(deep.bytes, "input.cfg:1: nested too deeply");
    text_free(&deep);
}

static void test_every_prefix_of_reference_fails_or_loads(void **state)
{
    (void)state;
    struct text text = {0};
    settings_reference(&text);
    for (size_t n = 0; n < text.n; n += 97) {
        struct settings s;
        error_clear();
        if (settings_load(&s, "input.cfg", text.bytes, n, NULL, 0) != 0)
            assert_true(error_kind() == ERR_INPUT && *error_message());
        settings_free(&s);
    }
    text_free(&text);
}

static void test_scan_marks_long_integers(void **state)
{
    (void)state;
    struct text out = {0};
    int line;
    const char *what, *in = "a = 5000000000; b = -3000000000; c = 5L; d = 1e-5; e9999999999 = "
                            "\"9999999999\"; # 9999999999";
    assert_int_equal(settings_scan(&out, in, strlen(in), &line, &what), 0);
    assert_string_equal(out.bytes,
                        "a = 5000000000L; b = -3000000000L; c = 5L; d = 1e-5; e9999999999 = "
                        "\"9999999999\"; # 9999999999");
    text_free(&out);
}

static void test_written_settings_load_to_equal(void **state)
{
    (void)state;
    for (int task = 0; task < TASK_COUNT; task++) {
        char override[6][100];
        const char *list[6];
        snprintf(override[0], 100, "task=%s", settings_task_names[task]);
        snprintf(override[1], 100, "run.seed=9007199254740992");
        snprintf(override[2], 100, "model.adapter=\"quote \\\" slash \\\\ tab \\t end \xc3\xa9\"");
        snprintf(override[3], 100, "generate.stop_strings=[\"\\n\\x01\", \"b\"]");
        snprintf(override[4], 100, "optim.learning_rate=0.1000000000000000055511");
        snprintf(override[5], 100, "generate.max_new_tokens=[3, 4]");
        for (int i = 0; i < 6; i++)
            list[i] = override[i];
        struct settings s, t;
        error_clear();
        assert_int_equal(settings_load(&s, "input.cfg", BASE, strlen(BASE), list, 6), 0);
        struct text first = {0}, second = {0};
        settings_write(&first, &s);
        if (load(&t, first.bytes) != 0)
            fail_msg("%s", error_message());
        assert_true(t.task == (enum task_id)task && t.run.seed == 9007199254740992);
        assert_string_equal(t.model.adapter, "quote \" slash \\ tab \t end \xc3\xa9");
        assert_string_equal(t.generate.stop_strings.item[0], "\n\x01");
        assert_true(t.optim.learning_rate == s.optim.learning_rate);
        assert_int_equal(t.generate.max_new_tokens.max, 4);
        settings_write(&second, &t);
        assert_string_equal(first.bytes, second.bytes);
        text_free(&first);
        text_free(&second);
        settings_free(&s);
        settings_free(&t);
    }
}

static void test_reference_holds_every_key_once(void **state)
{
    (void)state;
    const char *srcdir = getenv("srcdir");
    char path[4096];
    snprintf(path, sizeof path, "%s/input/reference.cfg", srcdir ? srcdir : ".");
    struct text expected = {0}, committed = {0};
    settings_reference(&expected);
    if (file_read(&committed, path) != 0)
        fail_msg("%s", error_message());
    if (committed.n != expected.n || memcmp(committed.bytes, expected.bytes, expected.n) != 0)
        fail_msg("%s differs from the table: run make reference", path);
    for (int i = 0; i < settings_n_rows; i++) {
        const char *dot = strchr(settings_rows[i].path, '.');
        char line[160];
        snprintf(line, sizeof line, "\n%s%s = ", dot ? "    " : "",
                 dot ? dot + 1 : settings_rows[i].path);
        assert_contains(expected.bytes, line);
        assert_true(strlen(settings_rows[i].doc) > 10);
    }
    for (const char *at = expected.bytes, *end; *at; at = end + 1) {
        end = strchr(at, '\n');
        assert_non_null(end);
        assert_true(end - at <= 100);
    }
    struct settings s, defaults;
    if (load(&s, committed.bytes) != 0)
        fail_msg("%s", error_message());
    /* its values are the defaults: only the examples differ */
    const char *overrides[] = {"model.path=input/tiny", "data.path=input/tiny/prompts.jsonl",
                               "run.output_dir=out/reference",
                               "reward.0.path=input/tiny/lexicon.tsv"};
    error_clear();
    assert_int_equal(settings_load(&defaults, "input.cfg", BASE, strlen(BASE), overrides, 4), 0);
    struct text a = {0}, b = {0};
    settings_write(&a, &s);
    settings_write(&b, &defaults);
    assert_string_equal(a.bytes, b.bytes);
    text_free(&a);
    text_free(&b);
    text_free(&expected);
    text_free(&committed);
    settings_free(&s);
    settings_free(&defaults);
}

static void test_names_are_those_of_the_algorithms(void **state)
{
    (void)state;
    int n_kl, n_schedules, n = 0;
    kl_table(&n_kl);
    schedule_table(&n_schedules);
    for (; settings_kl_names[n]; n++)
        assert_non_null(kl_find(settings_kl_names[n]));
    assert_int_equal(n, n_kl);
    for (n = 0; settings_scheduler_names[n]; n++)
        assert_non_null(schedule_find(settings_scheduler_names[n]));
    assert_int_equal(n, n_schedules);
}

static void test_nearest(void **state)
{
    (void)state;
    assert_int_equal(nearest_distance("", ""), 0);
    assert_int_equal(nearest_distance("abc", ""), 3);
    assert_int_equal(nearest_distance("kitten", "sitting"), 3);
    assert_int_equal(nearest_distance("lam", "alm"), 1);
    assert_int_equal(nearest_distance("cliprage", "cliprange"), 1);
    char far[300];
    memset(far, 'a', sizeof far - 1);
    far[sizeof far - 1] = 0;
    assert_int_equal(nearest_distance(far, "a"), 1000);
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--reference") == 0) {
        struct text text = {0};
        settings_reference(&text);
        fwrite(text.bytes, 1, text.n, stdout);
        text_free(&text);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults_by_task),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_every_key_misspelt),
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_every_key_of_wrong_type),
        cmocka_unit_test(test_every_ranged_key_out_of_range),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_missing_keys),
        cmocka_unit_test(test_all_problems_at_once_in_order_of_lines),
        cmocka_unit_test(test_long_reports_are_cut_at_a_line),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_rewards),
        cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_override_errors),
        cmocka_unit_test(test_syntax_errors),
        cmocka_unit_test(test_every_prefix_of_reference_fails_or_loads),
        cmocka_unit_test(test_scan_marks_long_integers),
        cmocka_unit_test(test_written_settings_load_to_equal),
        cmocka_unit_test(test_reference_holds_every_key_once),
        cmocka_unit_test(test_names_are_those_of_the_algorithms),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
