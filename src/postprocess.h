/* The "post_processor" of a tokenizer.json: the special tokens around a text.
 *
 * TemplateProcessing ("single" only: texts are not paired here), BertProcessing, RobertaProcessing and Sequences of them;
 * ByteLevel changes offsets alone. Others are refused by name.
 */
#ifndef RLHF_SRC_POSTPROCESS_H
#define RLHF_SRC_POSTPROCESS_H

#include "token_list.h"
#include "vocab.h"

#include <jansson.h>

struct postprocessor {
    struct token_list before, after; /* of the text's tokens */
};

/* spec may be null; its ids must be those of tokens in one of the two vocabularies. */
int postprocessor_open(struct postprocessor *p, const json_t *spec, const struct vocab *model, const struct vocab *added);
void postprocessor_close(struct postprocessor *p);

#endif
