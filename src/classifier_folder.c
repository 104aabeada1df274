/* The base model's config.json, with what a classifier says in it. */
#include "classifier_folder.h"

#include "document.h"
#include "error.h"
#include "file.h"
#include "hf_folder.h"

#include <jansson.h>
#include <stdlib.h>

static void set(json_t *config, const char *key, json_t *value)
{
    CHECK(json_object_set_new(config, key, value) == 0, "config.json: %s", key);
}

static void set_labels(json_t *config, const struct labels *labels)
{
    struct labels one = {0};
    if (!labels)
        labels_numbered(&one, 1);
    labels_put(config, labels ? labels : &one);
    set(config, "num_labels", json_integer(labels ? labels->n : 1));
    if (labels)
        set(config, "problem_type", json_string("single_label_classification"));
    labels_free(&one);
}

static int write_config(const char *folder, const struct arch *a, const char *base, const struct labels *labels)
{
    char *from = file_join(base, "config.json"), *to = file_join(folder, "config.json");
    json_t *config = document_read(from);
    int rc = config ? 0 : -1;
    if (!rc) {
        set_labels(config, labels);
        set(config, "architectures", json_pack("[s]", arch_classifier_class(a)));
        if (arch_classifier_pad(a) >= 0)
            set(config, "pad_token_id", json_integer(arch_classifier_pad(a)));
        rc = document_write(to, config);
    }
    json_decref(config);
    free(from);
    free(to);
    return rc;
}

int classifier_folder_complete(const char *folder, const struct arch *a, const char *base, const struct labels *labels)
{
    TRY(write_config(folder, a, base, labels));
    return hf_folder_copy_files(folder, base);
}
