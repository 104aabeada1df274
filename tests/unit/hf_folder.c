/* Model folders: written and opened again, damaged, and real ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "error.h"
#include "file.h"
#include "hf_folder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/rlhf-hpc-test-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return file_remove_tree(folder);
}

static const char llama[] =
    "{\"model_type\":\"llama\",\"vocab_size\":10,\"hidden_size\":8,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"intermediate_size\":6}";
static const char neox[] =
    "{\"model_type\":\"gpt_neox\",\"vocab_size\":10,\"hidden_size\":16,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"intermediate_size\":6}";

/* The architecture of a config, through a scratch folder. */
static void arch_of(struct arch *a, const char *config)
{
    char path[160], inner[128];
    snprintf(inner, sizeof inner, "%s/scratch", folder);
    snprintf(path, sizeof path, "%s/config.json", inner);
    assert_int_equal(file_make_folders(inner), 0);
    assert_int_equal(file_write_atomic(path, config, strlen(config)), 0);
    assert_int_equal(arch_read(a, inner, ARCH_LANGUAGE_MODEL), 0);
}

static float zeros[1024];

static void write_model(const char *where, const struct arch *a,
                        void (*change)(struct safetensors_out *, int *))
{
    struct arch_tensor *names;
    struct safetensors_out *list = hf_folder_list(a, DTYPE_F32, &names);
    int n = arch_tensors(a);
    for (int i = 0; i < n; i++) {
        list[i].data = zeros;
        assert_true(names[i].shape[0] * (names[i].n_dims == 2 ? names[i].shape[1] : 1) <= 1024);
    }
    if (change)
        change(list, &n);
    assert_int_equal(hf_folder_write(where, a, list, n, NULL), 0);
    free(list);
    free(names);
}

static void test_written_folder_opens(void **state)
{
    (void)state;
    const char *const configs[] = {llama, neox};
    for (int i = 0; i < 2; i++) {
        struct arch a;
        struct hf_folder f;
        arch_of(&a, configs[i]);
        write_model(folder, &a, NULL);
        assert_int_equal(hf_folder_open(&f, folder, ARCH_LANGUAGE_MODEL), 0);
        assert_int_equal(f.weights.n, arch_tensors(&a));
        for (int k = 0; k < arch_tensors(&a); k++) {
            struct arch_tensor t;
            arch_tensor(&t, &a, k);
            const struct safetensors_entry *e = hf_folder_tensor(&f, &t);
            assert_non_null(e);
            assert_ptr_equal(e, hf_folder_find(&f, t.role, t.layer, t.slot, t.bias));
        }
        assert_null(hf_folder_find(&f, ROLE_LINEAR, 0, i ? LIN_Q : LIN_QKV, false));
        assert_null(hf_folder_find(&f, ROLE_HEAD, 0, 0, true));
        assert_true(!hf_folder_find(&f, ROLE_FINAL_NORM, 0, 0, true) == !i);
        hf_folder_close(&f);
        hf_folder_close(&f);
    }
}

static void drop_one_bend_one(struct safetensors_out *list, int *n)
{
    list[0].shape[0] = 11;
    list[3].dtype = DTYPE_I32;
    --*n;
}

static void test_all_problems_are_told(void **state)
{
    (void)state;
    struct arch a;
    struct hf_folder f;
    arch_of(&a, llama);
    write_model(folder, &a, drop_one_bend_one);
    assert_int_equal(hf_folder_open(&f, folder, ARCH_LANGUAGE_MODEL), -1);
    assert_non_null(strstr(error_message(), "model.safetensors: weights do not fit config.json: "));
    assert_non_null(strstr(
        error_message(), "tensor model.embed_tokens.weight is [11, 8], config.json needs [10, 8]"));
    assert_non_null(
        strstr(error_message(), "tensor model.layers.0.self_attn.q_proj.weight has dtype I32"));
    assert_non_null(strstr(error_message(), "tensor lm_head.weight [10, 8] is missing"));
}

static void keep_three(struct safetensors_out *list, int *n)
{
    (void)list;
    *n = 3;
}

static void test_many_problems_are_counted(void **state)
{
    (void)state;
    struct arch a;
    struct hf_folder f;
    arch_of(&a, llama);
    write_model(folder, &a, keep_three);
    assert_int_equal(hf_folder_open(&f, folder, ARCH_LANGUAGE_MODEL), -1);
    assert_non_null(strstr(error_message(), "; and 6 more")); /* 21 tensors, 3 kept, 12 told */
}

static void strip_prefix(struct safetensors_out *list, int *n)
{
    for (int i = 0; i < *n; i++)
        if (!strncmp(list[i].name, "gpt_neox.", 9))
            list[i].name += 9;
}

static void test_names_without_prefix(void **state)
{
    (void)state;
    struct arch a;
    struct hf_folder f;
    arch_of(&a, neox);
    write_model(folder, &a, strip_prefix);
    assert_int_equal(hf_folder_open(&f, folder, ARCH_LANGUAGE_MODEL), 0);
    assert_string_equal(hf_folder_find(&f, ROLE_EMBEDDING, 0, 0, false)->name, "embed_in.weight");
    hf_folder_close(&f);
}

static const char *data_folder(char *path, size_t room, const char *model)
{
    const char *data = getenv("RLHF_HPC_DATA");
    snprintf(path, room, "%s/models/%s", data ? data : "", model);
    if (data && file_is_folder(path))
        return path;
    printf("skipped: no %s under RLHF_HPC_DATA\n", model);
    skip();
    return NULL;
}

static void test_real_neox(void **state)
{
    (void)state;
    char path[512];
    struct hf_folder f;
    if (hf_folder_open(&f, data_folder(path, sizeof path, "mini-gpt-neox-imdb"), ARCH_LANGUAGE_MODEL) != 0)
        fail_msg("%s", error_message());
    assert_true(f.arch.hidden == 96 && f.arch.layers == 4 && f.arch.rotary_dims == 6);
    assert_int_equal(arch_parameters(&f.arch),
                     840768); /* counted from the file by another program, without buffers */
    hf_folder_close(&f);
}

static void test_real_llama(void **state)
{
    (void)state;
    char path[512];
    struct hf_folder f;
    if (hf_folder_open(&f, data_folder(path, sizeof path, "stories260K"), ARCH_LANGUAGE_MODEL) != 0)
        fail_msg("%s", error_message());
    assert_true(f.arch.hidden == 64 && f.arch.layers == 5 && f.arch.kv_heads == 4 &&
                f.arch.tied_head);
    assert_true(f.arch.n_eos == 2 && f.arch.eos[0] == 1 && f.arch.eos[1] == 2);
    int64_t elements = 0;
    for (int i = 0; i < f.weights.n; i++)
        elements += f.weights.entry[i].n;
    assert_int_equal(arch_parameters(&f.arch), elements);
    /* and written again, with its tokenizer */
    struct arch_tensor *names;
    struct safetensors_out *list = hf_folder_list(&f.arch, DTYPE_F32, &names);
    for (int i = 0; i < arch_tensors(&f.arch); i++)
        list[i].data = hf_folder_tensor(&f, &names[i])->bytes;
    char copy[128], tokenizer[160];
    snprintf(copy, sizeof copy, "%s/copy", folder);
    snprintf(tokenizer, sizeof tokenizer, "%s/tokenizer.json", copy);
    assert_int_equal(hf_folder_write(copy, &f.arch, list, arch_tensors(&f.arch), path), 0);
    struct hf_folder g;
    assert_int_equal(hf_folder_open(&g, copy, ARCH_LANGUAGE_MODEL), 0);
    assert_true(file_exists(tokenizer));
    for (int i = 0; i < f.weights.n; i++) {
        assert_int_equal(g.weights.entry[i].n_bytes, f.weights.entry[i].n_bytes);
        assert_memory_equal(g.weights.entry[i].bytes, f.weights.entry[i].bytes,
                            f.weights.entry[i].n_bytes);
    }
    hf_folder_close(&g);
    hf_folder_close(&f);
    free(list);
    free(names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_written_folder_opens),
        cmocka_unit_test(test_all_problems_are_told),
        cmocka_unit_test(test_many_problems_are_counted),
        cmocka_unit_test(test_names_without_prefix),
        cmocka_unit_test(test_real_neox),
        cmocka_unit_test(test_real_llama),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
