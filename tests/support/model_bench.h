/* A model of a recorded folder (tests/reference) on the backend of RLHF_TEST_DEVICE, "cpu" when unset, and comparing with what is
 * recorded. On CUDA activations are bf16: bounds are then of an error's norm, those of some ten roundings of 2^-9 in a row, or one and
 * a half times what torch in bfloat16 differs by.
 * Include after cmocka. What fails fails the test. */
#ifndef RLHF_TESTS_SUPPORT_MODEL_BENCH_H
#define RLHF_TESTS_SUPPORT_MODEL_BENCH_H

#include "document.h"
#include "hf_folder.h"
#include "lora.h"
#include "micro_batch.h"

enum { LONGEST = 80, SEQUENCES = 3, TOKENS = 128 };

struct bench {
    char path[512];
    struct hf_folder folder;
    struct backend be;
    struct model model;
    struct micro_batch mb;
    struct arena arena;
    double rounded_outputs, rounded_gradients; /* bounds of their errors, of the norm, where activations are rounded */
    struct peft_adapter adapter; /* zeros until a test opens it; bench_close closes it */
};

struct bench_options {
    enum arch_use use;
    bool train_all;
    int threads;     /* 0: 2 */
    int kept_layers; /* 0: all */
};

void bench_done(int rc); /* fails with the message of an error */
void bench_backend(struct backend *be, int threads);

/* Empties b but for the path, tests/reference/<name> or an absolute one, and the bounds. */
void bench_locate(struct bench *b, const char *name);
/* Opens that folder and the backend, describes the model. Adapters and heads can be added then. */
void bench_describe(struct bench *b, const char *name, const struct bench_options *o);
/* Places it, for SEQUENCES of up to LONGEST tokens, and reads the weights. */
void bench_load(struct bench *b, const struct bench_options *o);
void bench_close(struct bench *b);

const char *bench_file(const struct bench *b, const char *file); /* in the folder; until the next call */
bool bench_rounded(const struct bench *b);                       /* activations are */
float *bench_acts(struct bench *b, const act_t *x, int64_t n);    /* activations of the device; the caller's to free */

/* --- recorded files --- */
json_t *bench_json(const struct bench *b, const char *file);
double bench_number(const json_t *root, const char *key);
int bench_ids(const json_t *root, int32_t ids[SEQUENCES][LONGEST], int n[SEQUENCES]); /* "ids"; returns their number */
float *bench_floats(const struct safetensors *s, const char *name, int64_t n);        /* the caller's to free */

/* --- comparing --- */

/* Bounds of rounded activations that a record's "bfloat16_error" widens. */
void bench_bounds(struct bench *b, const json_t *root);
/* |got - want| <= 1e-4 + 1e-5 |want|; rounded: the error's norm <= rounded_outputs of the norm */
void bench_expect(const struct bench *b, const char *what, const float *got, const float *want, int64_t n);
/* The gradients at offset: within 1e-4 of their norm, as PyTorch sums in float32 too; rounded: rounded_gradients. */
void bench_expect_gradient(struct bench *b, const char *name, int64_t offset, const float *want, int64_t n);

#endif
