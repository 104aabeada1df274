/* Values of config.json with ranges. Problems are collected, so that all of them are told at once. */
#ifndef RLHF_SRC_ARCH_KEYS_H
#define RLHF_SRC_ARCH_KEYS_H

#include "text.h"

#include <jansson.h>
#include <stdbool.h>

struct arch_keys {
    const json_t *object;
    struct text problems; /* "; " between them; the caller frees it */
};

void arch_keys_problem(struct arch_keys *k, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The value of a key, NULL where it is absent or null, or the key is NULL. Borrowed. */
const json_t *arch_keys_get(const json_t *object, const char *key);

/* A whole number from 1 to most. otherwise: where it is absent or null; -1: the key is needed. 0 with a problem. */
int arch_keys_size(struct arch_keys *k, const char *key, int otherwise, int most);

/* In [least, most], from any object; `otherwise` where it is absent or NULL, or with a problem. */
double arch_keys_real(struct arch_keys *k, const json_t *object, const char *key, double otherwise, double least, double most);

bool arch_keys_flag(struct arch_keys *k, const char *key, bool otherwise);

/* A token below vocab, -1 for none (or with a problem). v may be NULL: otherwise. */
int arch_keys_token(struct arch_keys *k, const char *key, const json_t *v, int vocab, int otherwise);

#endif
