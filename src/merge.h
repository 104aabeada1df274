/* Adapters into the weights of a model folder, shard by shard: the same files, tensors and order as the source has.
 *
 *   W' = W + scale (B A)        accumulated in float32, k ascending; rounded to the type that is written
 *   Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1; peft/tuners/lora/layer.py, get_delta_weight.
 *
 * W is what the folder holds, or that quantised to int8 and expanded again: the weights that the adapters were trained on. The
 * second is for all layers that quantization stores as int8, whether they have adapters or not.
 *
 *   merge_open -> (merge_write_shard for each shard) -> merge_close
 */
#ifndef RLHF_SRC_MERGE_H
#define RLHF_SRC_MERGE_H

#include "backend.h"
#include "hf_folder.h"
#include "peft.h"

#include <stdbool.h>

struct merge_options {
    bool dequantized;
    int dtype;   /* enum dtype of all tensors of the architecture; -1: each its own */
    int threads; /* results do not depend on it */
};

/* What becomes of a tensor of the source. */
struct merge_tensor {
    bool known, linear, transposed;       /* a tensor of the architecture; a matrix that int8 models quantise; [in][out] */
    const struct peft_pair *pair;         /* NULL: no adapter */
    const struct safetensors_entry *head; /* takes its place: a trained head of modules_to_save; NULL: none */
};

struct merge {
    const struct hf_folder *folder;
    const struct peft_adapter *adapter;
    struct merge_options options;
    struct backend quantiser;       /* where dequantized: the CPU's */
    struct merge_tensor *tensor;    /* [folder->weights.n], of its entries */
    const struct peft_saved **added; /* [n_added] heads that the source lacks: behind the last shard's tensors */
    int n_added;
    const struct safetensors_entry *score; /* the weight of the adapter's trained score head; NULL: none */
    enum dtype model_dtype; /* of what is written: the embedding's, and of added heads */
};

/* folder and adapter are borrowed. Errors: a score head of another width, or without a pooler; of the quantiser. */
int merge_open(struct merge *m, const struct hf_folder *folder, const struct peft_adapter *adapter, const struct merge_options *o);
void merge_close(struct merge *m);

/* Name of shard i < folder->weights.n_files within its folder, and the bytes of its tensors as they will be written. */
const char *merge_shard_name(const struct merge *m, int shard);
uint64_t merge_shard_bytes(const struct merge *m, int shard);

/* Writes a shard into the folder, rows by rows: at no time is more than a part of a tensor in memory. Tensors that nothing changes
 * are the source's bytes. Errors: a value that is not finite, in the source or in the result, by tensor and element; of the file
 * system. Ranks: local; any rank may write any shard, the bytes are the same. */
int merge_write_shard(const struct merge *m, int shard, const char *folder);

/* Bytes of memory that writing a shard takes, of the largest tensor. */
size_t merge_memory_bytes(const struct merge *m);

#endif
