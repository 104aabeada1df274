/* Merging a head into an encoder whose files lack the classifier's pooler: the adapter brings it, or the head is refused; so is one
 * of another width. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "error.h"
#include "file.h"
#include "merge.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HIDDEN = 8, LABELS = 3, N_SAVED = 4 };

static const char config[] = "{\"model_type\":\"bert\",\"vocab_size\":20,\"hidden_size\":8,\"num_hidden_layers\":1,"
                             "\"num_attention_heads\":2,\"intermediate_size\":12,\"max_position_embeddings\":16}";
static const float numbers[512] = {0.5f, 0.25f};
static char root[] = "/tmp/rlhf-hpc-test-XXXXXX";

static int make_root(void **state)
{
    (void)state;
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state)
{
    (void)state;
    return file_remove_tree(root);
}

static void done(int rc)
{
    if (rc)
        fail_msg("%s", error_message());
}

/* A masked language model: the encoder without its pooler. */
static void write_encoder(struct arch *a)
{
    char *path = file_join(root, "config.json"), *weights = file_join(root, "model.safetensors");
    struct arch_tensor *tensor;
    int n = 0;
    done(file_write_atomic(path, config, strlen(config)));
    done(arch_read(a, root, ARCH_BACKBONE));
    struct safetensors_out *list = hf_folder_list(a, DTYPE_F32, &tensor);
    for (int i = 0; i < arch_tensors(a); i++) {
        list[n] = list[i];
        list[n].data = numbers;
        n += tensor[i].role != ROLE_POOLER;
    }
    assert_int_equal(n, arch_tensors(a) - 2);
    done(safetensors_write(weights, list, n));
    free(list);
    free(tensor);
    free(weights);
    free(path);
}

/* An adapter on the query layer, with the first n of the head's tensors; width: the input of the score. */
static void write_adapter(const char *folder, const struct arch *a, int n, int width)
{
    const struct safetensors_out saved[N_SAVED] = {
        {.name = "classifier.weight", .dtype = DTYPE_F32, .n_dims = 2, .shape = {LABELS, width}, .data = numbers},
        {.name = "classifier.bias", .dtype = DTYPE_F32, .n_dims = 1, .shape = {LABELS}, .data = numbers},
        {.name = "bert.pooler.dense.weight", .dtype = DTYPE_F32, .n_dims = 2, .shape = {HIDDEN, HIDDEN}, .data = numbers},
        {.name = "bert.pooler.dense.bias", .dtype = DTYPE_F32, .n_dims = 1, .shape = {HIDDEN}, .data = numbers}};
    const struct peft_out out = {.slot = LIN_Q, .a = numbers, .b = numbers};
    struct peft_config c = {.r = 1, .lora_alpha = 1};
    peft_targets_add(&c.target_modules, "query");
    done(peft_write(folder, &c, a, &out, 1, saved, n));
    peft_config_free(&c);
}

static void test_pooler(void **state)
{
    (void)state;
    const struct merge_options o = {.dtype = -1, .threads = 1};
    struct arch a;
    struct hf_folder folder;
    char *adapter_path = file_join(root, "adapter"), *result = file_join(root, "result");
    write_encoder(&a);
    done(hf_folder_open(&folder, root, ARCH_BACKBONE));
    for (int n = 0; n <= N_SAVED; n += 2) {
        struct peft_adapter adapter;
        struct merge m;
        write_adapter(adapter_path, &a, n, HIDDEN);
        done(peft_open(&adapter, adapter_path, &folder.arch));
        assert_int_equal(adapter.n_saved, n);
        if (n == 2) { /* a head without a pooler */
            assert_int_equal(merge_open(&m, &folder, &adapter, &o), -1);
            assert_non_null(strstr(error_message(), "tensor bert.pooler.dense.weight is missing"));
        } else {
            struct safetensors merged;
            done(file_make_folders(result));
            done(merge_open(&m, &folder, &adapter, &o));
            assert_int_equal(m.n_added, n);
            done(merge_write_shard(&m, 0, result));
            done(safetensors_open(&merged, result));
            assert_true(!safetensors_find(&merged, "bert.pooler.dense.weight") == !n);
            const struct safetensors_entry *e = safetensors_find(&merged, "bert.encoder.layer.0.attention.self.query.weight");
            assert_non_null(e);
            float first;
            done(safetensors_floats(&first, e, 0, 1));
            assert_true(first == 0.75f); /* 0.5 + 0.5 * 0.5 */
            safetensors_close(&merged);
        }
        merge_close(&m);
        peft_close(&adapter);
    }
    hf_folder_close(&folder);
    free(adapter_path);
    free(result);
}

static void test_head_of_another_model(void **state)
{
    (void)state;
    const struct merge_options o = {.dtype = -1, .threads = 1};
    struct arch a;
    struct hf_folder folder;
    struct peft_adapter adapter;
    struct merge m;
    char *adapter_path = file_join(root, "adapter");
    write_encoder(&a);
    done(hf_folder_open(&folder, root, ARCH_BACKBONE));
    write_adapter(adapter_path, &a, N_SAVED, HIDDEN + 1);
    done(peft_open(&adapter, adapter_path, &folder.arch));
    assert_int_equal(merge_open(&m, &folder, &adapter, &o), -1);
    assert_non_null(strstr(error_message(), "classifier.weight is [3, 9], must be [1 to 10000, 8]"));
    merge_close(&m);
    peft_close(&adapter);
    hf_folder_close(&folder);
    free(adapter_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_pooler), cmocka_unit_test(test_head_of_another_model)};
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
