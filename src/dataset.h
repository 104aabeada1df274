/* Datasets: texts, prompts, preference pairs and labels, from data.path in one of four formats.
 *
 *   jsonl  an object a line; fields are named by data.text_field and so on; "input_ids", an array of token numbers, may
 *          stand instead of the text or prompt
 *   csv    a header line with field names
 *   text   a text a line, blank lines left out; or, where a line <|endoftext|> occurs, the texts between such lines
 *   imdb   DIR/{neg,pos}/<name>.txt, sorted by name, neg (label 0) first; of the whole aclImdb folder, the train split, or
 *          the test split for data.eval_path
 *
 * Rows keep the order of the file. A row whose text (without one: prompt) has fewer than data.min_chars characters
 * (code points) is left out; a row of token numbers alone is kept. A dataset without rows is an error.
 */
#ifndef RLHF_SRC_DATASET_H
#define RLHF_SRC_DATASET_H

#include "settings.h"

#include <stdbool.h>
#include <stdint.h>

struct dataset_row {
    char *text, *prompt, *chosen,
        *rejected; /* owned, a NUL behind the last byte; NULL: not given */
    size_t n_text, n_prompt, n_chosen, n_rejected;
    int32_t *
        input_ids; /* [n_ids] owned; not negative, else unchecked: the vocabulary is the caller's to hold them to */
    int64_t n_ids;
    int label;
    bool has_label;
    int64_t line; /* in the file, from 1, for messages; imdb: 0 */
};

struct dataset {
    char *path; /* owned, for messages */
    int64_t n, room;
    int64_t n_short;         /* rows left out by min_chars */
    struct dataset_row *row; /* [n] */
};

/* What every row must have, else ERR_FILE. 0: anything to start from (text, prompt, chosen or input_ids). */
enum {
    DATASET_TEXT = 1,   /* text or input_ids */
    DATASET_PROMPT = 2, /* prompt or input_ids */
    DATASET_PAIR = 4,   /* chosen and rejected */
    DATASET_LABEL = 8
};

/* Reads data.path, or data.eval_path. Fields that are not needed are kept where they are given.
 * Errors: ERR_FILE with file and line: unreadable, malformed, a field missing (the fields that are there are named) or of
 * the wrong type, no rows. Free *d in either case. Ranks: local. */
int dataset_load(struct dataset *d, const struct settings_data *s, unsigned need);
int dataset_load_eval(struct dataset *d, const struct settings_data *s, unsigned need);
void dataset_free(struct dataset *d);

#endif
