/* Names of a classifier's classes, from config.json. */
#ifndef RLHF_SRC_LABELS_H
#define RLHF_SRC_LABELS_H

#include <jansson.h>

enum { LABELS_MAX = 10000 };

/* name[i] is what the i-th score stands for; "LABEL_<i>" where the file gives no names, as in transformers. */
struct labels {
    int n;
    char **name;
};

/* From id2label, else label2id, else num_labels (2 where that is missing too). The caller frees with labels_free. `path` is
 * for messages. Ranks: local. Errors: ids that are not 0 to n - 1, names that are not strings or occur twice, a num_labels
 * that says otherwise; the struct is then empty. */
int labels_of_config(struct labels *l, const char *path, const json_t *config);
void labels_numbered(struct labels *l, int n); /* LABEL_0, LABEL_1, .. */
int labels_read(struct labels *l, const char *folder); /* the folder's config.json */
void labels_free(struct labels *l);

/* config.json's id2label and label2id. */
void labels_put(json_t *config, const struct labels *l);

/* The index of a class, by its name as the file has it (case matters), else by its number: "POSITIVE", "1". -1 with an error
 * that lists the names. */
int labels_find(const struct labels *l, const char *name);

#endif
