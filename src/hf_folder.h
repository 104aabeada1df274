/* A Hugging Face model folder: config.json, weights in safetensors, tokenizer files. */
#ifndef RLHF_SRC_HF_FOLDER_H
#define RLHF_SRC_HF_FOLDER_H

#include "arch.h"
#include "safetensors.h"

/* An opened model folder. The weights are mapped, not read; hf_folder_close unmaps them. */
struct hf_folder {
    char *path;
    struct arch arch;
    struct safetensors weights;
};

/* Reads config.json and checks the weights against it: each tensor of the architecture in this use is there (with or without
 * the family's prefix), has its shape, and is F32, F16 or BF16. Buffers of old files (attention.bias, attention.masked_bias,
 * rotary_emb.inv_freq, position_ids), heads for other uses and a tied head's copy are passed over; other tensors are warned
 * about once. Ranks: local. Errors: one line that lists the problems with file and tensors; the struct is then empty. */
int hf_folder_open(struct hf_folder *f, const char *folder, enum arch_use use);
void hf_folder_close(struct hf_folder *f);

/* A tensor that arch_tensor described. Never NULL after hf_folder_open, but for the pooler of an ARCH_BACKBONE whose files have
 * none. */
const struct safetensors_entry *hf_folder_tensor(const struct hf_folder *f,
                                                 const struct arch_tensor *t);

/* The same by its name in the family's files, which the folder may have without the prefix. NULL: it has none. */
const struct safetensors_entry *hf_folder_named(const struct hf_folder *f, const char *name);

/* The same by its place: hf_folder_find(f, ROLE_LINEAR, layer, LIN_QKV, false). NULL where the model has none (a tied head has
 * none of its own). */
const struct safetensors_entry *hf_folder_find(const struct hf_folder *f, enum arch_role role,
                                               int layer, enum arch_slot slot, bool bias);

/* Everything of a model folder but the weights: makes the folder, writes config.json and generation_config.json, copies
 * the tokenizer files of `source` (NULL: none); generation_config.json too, where source has one. */
int hf_folder_write_config(const char *folder, const struct arch *a, enum dtype dtype,
                           const char *source);

/* Copies the tokenizer files, generation_config.json and chat templates of `source`, those that are there. */
int hf_folder_copy_files(const char *folder, const char *source);

/* The tensors of an architecture as a list to write, in arch_tensor's order, all of one dtype; data is NULL.
 * Returns arch_tensors(a) entries and sets *names, which they borrow from; the caller frees both. */
struct safetensors_out *hf_folder_list(const struct arch *a, enum dtype dtype,
                                       struct arch_tensor **names);

/* A whole folder; tensors as from hf_folder_list with data set. */
int hf_folder_write(const char *folder, const struct arch *a, const struct safetensors_out *tensors,
                    int n, const char *source);

#endif
