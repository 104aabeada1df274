/* What makes an adapter folder with a score head one of a classifier: config.json with the classes, and the tokenizer.
 *
 *   config = AutoConfig.from_pretrained(folder)
 *   model = AutoModelForSequenceClassification.from_pretrained(base, config=config, ignore_mismatched_sizes=True)
 *   model = PeftModel.from_pretrained(model, folder)
 *
 * The sizes that may differ are those of a head of other classes in base; transformers warns that the head is new, before peft loads
 * the trained one.
 */
#ifndef RLHF_SRC_CLASSIFIER_FOLDER_H
#define RLHF_SRC_CLASSIFIER_FOLDER_H

#include "arch.h"
#include "labels.h"

/* config.json of the base model's folder with id2label, label2id (labels NULL: the one label of a reward), the class of
 * architectures, and a pad token, which transformers needs to find the last token of a sequence in a batch (the end token where the
 * base has none); the tokenizer's files beside it. Ranks: local. Errors: of files. */
int classifier_folder_complete(const char *folder, const struct arch *a, const char *base, const struct labels *labels);

#endif
