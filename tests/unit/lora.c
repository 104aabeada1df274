/* Adapters as peft wrote them: logits with the adapter, without it, and merged, against what transformers and peft compute
 * (tests/reference/record_adapters.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "document.h"
#include "error.h"
#include "file.h"
#include "merge.h"
#include "support/logits.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS_MAX = 64, PATH_BYTES = 512 };

static char scratch[] = "/tmp/rlhf-hpc-test-XXXXXX";

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(scratch) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return file_remove_tree(scratch);
}

struct reference {
    char adapter[PATH_BYTES], base[PATH_BYTES];
    int32_t ids[TOKENS_MAX];
    int n;
    struct safetensors expected;
};

static void open_reference(struct reference *r, const char *name)
{
    const char *srcdir = getenv("srcdir");
    snprintf(r->adapter, sizeof r->adapter, "%s/tests/reference/adapters/%s", srcdir ? srcdir : ".", name);
    char *path = file_join(r->adapter, "expected.json"), *values = file_join(r->adapter, "expected.safetensors");
    json_t *root = document_read(path), *ids = json_object_get(root, "ids");
    const char *base = json_string_value(json_object_get(root, "base"));
    assert_non_null(base);
    snprintf(r->base, sizeof r->base, "%s/tests/reference/%s%s", srcdir ? srcdir : ".", strcmp(base, "gpt2") ? "" : "adapters/", base);
    r->n = (int)json_array_size(ids);
    assert_in_range(r->n, 2, TOKENS_MAX);
    for (int i = 0; i < r->n; i++)
        r->ids[i] = (int32_t)json_integer_value(json_array_get(ids, (size_t)i));
    if (safetensors_open(&r->expected, values) != 0)
        fail_msg("%s", error_message());
    json_decref(root);
    free(path);
    free(values);
}

/* Within 1e-4 + 1e-5 |want|. With bf16 activations within 3 % of the largest. */
static void expect_logits(const struct reference *r, const char *name, const char *model, const char *adapter, enum logits_adapter which)
{
    const bool rounded = getenv("RLHF_TEST_DEVICE") != NULL;
    const struct safetensors_entry *e = safetensors_find(&r->expected, name);
    int vocab;
    float *got = logits_of(model, adapter, which, r->ids, r->n, &vocab);
    if (!got)
        fail_msg("%s", error_message());
    assert_non_null(e);
    assert_int_equal(e->n, (int64_t)r->n * vocab);
    float *want = malloc((size_t)e->n * sizeof *want), most = 0;
    assert_non_null(want);
    assert_int_equal(safetensors_floats(want, e, 0, e->n), 0);
    for (int64_t i = 0; i < e->n; i++)
        most = fmaxf(most, fabsf(want[i]));
    for (int64_t i = 0; i < e->n; i++) {
        const float bound = rounded ? 0.03f * most : 1e-4f + 1e-5f * fabsf(want[i]);
        if (!(fabsf(got[i] - want[i]) <= bound))
            fail_msg("%s, %s: logit %lld is %.9g, must be %.9g", r->adapter, name, (long long)i, got[i], want[i]);
    }
    free(want);
    free(got);
}

/* The base with the adapter in its weights, in float32, under scratch. */
static void merge(const struct reference *r, const char *to)
{
    struct hf_folder folder;
    struct peft_adapter adapter;
    struct merge m;
    const struct merge_options o = {.dtype = DTYPE_F32, .threads = 2};
    char *index = file_join(r->base, "model.safetensors.index.json"), *to_index = file_join(to, "model.safetensors.index.json");
    int rc = hf_folder_open(&folder, r->base, ARCH_LANGUAGE_MODEL);
    if (!rc)
        rc = peft_open(&adapter, r->adapter, &folder.arch);
    if (!rc)
        rc = merge_open(&m, &folder, &adapter, &o);
    if (!rc)
        rc = hf_folder_write_config(to, &folder.arch, DTYPE_F32, NULL);
    for (int i = 0; !rc && i < folder.weights.n_files; i++)
        rc = merge_write_shard(&m, i, to);
    if (!rc && file_exists(index))
        rc = file_copy(to_index, index);
    if (rc)
        fail_msg("%s", error_message());
    merge_close(&m);
    peft_close(&adapter);
    hf_folder_close(&folder);
    free(index);
    free(to_index);
}

static void check(const char *name)
{
    struct reference r;
    open_reference(&r, name);
    char *merged = file_join(scratch, name);
    merge(&r, merged);
    expect_logits(&r, "off", r.base, r.adapter, LOGITS_OFF);
    expect_logits(&r, "on", r.base, r.adapter, LOGITS_TRAINED);
    expect_logits(&r, "on", r.base, r.adapter, LOGITS_FROZEN);
    expect_logits(&r, "on", merged, NULL, LOGITS_OFF);
    safetensors_close(&r.expected);
    free(merged);
}

static void test_rank_and_alpha_patterns(void **state)
{
    (void)state;
    check("patterns");
}

static void test_layers_to_transform_and_pattern(void **state)
{
    (void)state;
    check("layers");
}

static void test_one_layer(void **state)
{
    (void)state;
    check("one-layer");
}

static void test_all_linear_with_exclusions(void **state)
{
    (void)state;
    check("exclude");
}

static void test_regular_expression_with_exclusions(void **state)
{
    (void)state;
    check("regex");
}

static void test_modules_to_save(void **state)
{
    (void)state;
    check("score");
}

static void test_conv1d(void **state)
{
    (void)state;
    check("conv1d");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rank_and_alpha_patterns),
        cmocka_unit_test(test_layers_to_transform_and_pattern),
        cmocka_unit_test(test_one_layer),
        cmocka_unit_test(test_all_linear_with_exclusions),
        cmocka_unit_test(test_regular_expression_with_exclusions),
        cmocka_unit_test(test_modules_to_save),
        cmocka_unit_test(test_conv1d),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
