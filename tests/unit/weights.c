/* Weights of a folder as they lie in the model: Conv1D in several strips, token types in the positions, a pooler that the files
 * lack. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "error.h"
#include "file.h"
#include "hf_folder.h"
#include "weights.h"

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

static void done(int rc)
{
    if (rc)
        fail_msg("%s", error_message());
}

/* Element i of a tensor: exact in 16 bits, different in neighbouring rows and columns. */
static float element(int tensor, int64_t i)
{
    return (float)((i * 7 + i / 13 + tensor * 5) % 1999) / 16.0f;
}

/* Writes a folder of this config whose tensors hold element(); those of role `without` are left out. */
static void write_folder(const char *config, enum arch_use use, int without)
{
    struct arch a;
    struct arch_tensor *names;
    char *path = file_join(folder, "config.json");
    done(file_write_atomic(path, config, strlen(config)));
    free(path);
    done(arch_read(&a, folder, use));
    struct safetensors_out *list = hf_folder_list(&a, DTYPE_F16, &names);
    int n = 0;
    for (int i = 0; i < arch_tensors(&a); i++) {
        const int64_t elements = names[i].shape[0] * (names[i].n_dims == 2 ? names[i].shape[1] : 1);
        uint16_t *half = malloc((size_t)elements * sizeof *half);
        assert_non_null(half);
        for (int64_t e = 0; e < elements; e++)
            half[e] = half_from_float(element(i, e));
        list[n] = list[i];
        list[n].data = half;
        if ((int)names[i].role == without)
            free(half);
        else
            n++;
    }
    path = file_join(folder, "model.safetensors");
    done(safetensors_write(path, list, n));
    free(path);
    for (int i = 0; i < n; i++)
        free((void *)list[i].data);
    free(list);
    free(names);
}

struct loaded {
    struct hf_folder folder;
    struct backend be;
    struct model model;
    struct arena arena;
};

static void load(struct loaded *l, enum arch_use use)
{
    const struct backend_choice choice = {.device = "cpu", .threads = 2};
    const struct model_options options = {.dtype = DTYPE_F16, .file_dtype = DTYPE_F16};
    const struct model_shape shape = {.batch_tokens = 4, .batch_seqs = 1, .head_rows = 4};
    memset(l, 0, sizeof *l);
    done(hf_folder_open(&l->folder, folder, use));
    done(backend_open(&l->be, &choice));
    model_init(&l->model, &l->folder.arch, &l->be, &options);
    model_layout(&l->model, &l->arena, &shape);
    done(arena_place(&l->arena, &l->be, NULL));
    model_layout(&l->model, &l->arena, &shape);
    done(weights_read(&l->model, &l->folder));
}

static void unload(struct loaded *l)
{
    model_free(&l->model);
    l->be.ops->close(&l->be);
    hf_folder_close(&l->folder);
}

/* The number of a tensor in arch_tensor's order: what its elements were made from. */
static int number_of(const struct arch *a, const char *name)
{
    struct arch_tensor t;
    for (int i = 0; i < arch_tensors(a); i++) {
        arch_tensor(&t, a, i);
        if (!strcmp(t.name, name))
            return i;
    }
    fail_msg("no tensor %s", name);
    return -1;
}

static float *rows_of(struct loaded *l, const struct linear *w)
{
    float *rows = malloc((size_t)w->out * (size_t)w->in * sizeof *rows);
    assert_non_null(rows);
    l->be.ops->linear_get_rows(&l->be, w, rows, 0, w->out);
    return rows;
}

/* 3000 rows of 1000 halves are more than the 4 MiB that are read at once. */
static void test_conv1d_is_transposed_in_strips(void **state)
{
    (void)state;
    struct loaded l;
    write_folder("{\"model_type\":\"gpt2\",\"vocab_size\":5,\"n_embd\":1000,\"n_layer\":1,\"n_head\":10,\"n_inner\":8,"
                 "\"n_positions\":4,\"bos_token_id\":0,\"eos_token_id\":0}",
                 ARCH_LANGUAGE_MODEL, -1);
    load(&l, ARCH_LANGUAGE_MODEL);
    const struct linear *w = &l.model.layer[0].linear[LIN_QKV];
    const int tensor = number_of(&l.folder.arch, "transformer.h.0.attn.c_attn.weight");
    float *rows = rows_of(&l, w);
    for (int64_t o = 0; o < w->out; o++)
        for (int64_t i = 0; i < w->in; i++)
            if (rows[o * w->in + i] != element(tensor, i * w->out + o))
                fail_msg("[%lld][%lld] is %g", (long long)o, (long long)i, (double)rows[o * w->in + i]);
    free(rows);
    unload(&l);
}

static const char bert[] = "{\"model_type\":\"bert\",\"vocab_size\":5,\"hidden_size\":16,\"num_hidden_layers\":1,"
                           "\"num_attention_heads\":2,\"intermediate_size\":8,\"max_position_embeddings\":6}";

static void test_token_type_0_is_in_the_positions(void **state)
{
    (void)state;
    struct loaded l;
    write_folder(bert, ARCH_BACKBONE, -1);
    load(&l, ARCH_BACKBONE);
    const int positions = number_of(&l.folder.arch, "bert.embeddings.position_embeddings.weight"),
              types = number_of(&l.folder.arch, "bert.embeddings.token_type_embeddings.weight");
    float *rows = rows_of(&l, &l.model.positions);
    for (int i = 0; i < 6 * 16; i++)
        assert_true(rows[i] == element(positions, i) + element(types, i % 16));
    free(rows);
    unload(&l);
}

/* A pooler that the files lack is new: the same on every load, biases 0. A classifier needs its own. */
static void test_missing_pooler_of_a_backbone_is_new(void **state)
{
    (void)state;
    struct loaded l;
    float *rows[2], bias[16];
    write_folder(bert, ARCH_BACKBONE, ROLE_POOLER);
    for (int i = 0; i < 2; i++) {
        load(&l, ARCH_BACKBONE);
        rows[i] = rows_of(&l, &l.model.pooler);
        l.be.ops->copy_out(&l.be, bias, l.model.pooler.bias, sizeof bias);
        unload(&l);
    }
    assert_memory_equal(rows[0], rows[1], 16 * 16 * sizeof **rows);
    double squares = 0;
    for (int i = 0; i < 16 * 16; i++)
        squares += (double)rows[0][i] * (double)rows[0][i];
    assert_true(squares / 256 > 0.015 * 0.015 && squares / 256 < 0.025 * 0.025);
    for (int i = 0; i < 16; i++)
        assert_true(bias[i] == 0);
    free(rows[0]);
    free(rows[1]);
    struct hf_folder f;
    assert_int_equal(hf_folder_open(&f, folder, ARCH_CLASSIFIER), -1);
    assert_non_null(strstr(error_message(), "tensor bert.pooler.dense.weight [16, 16] is missing"));
    assert_non_null(strstr(error_message(), "tensor classifier.weight [2, 16] is missing"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv1d_is_transposed_in_strips),
        cmocka_unit_test(test_token_type_0_is_in_the_positions),
        cmocka_unit_test(test_missing_pooler_of_a_backbone_is_new),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
