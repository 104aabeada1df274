/* Datasets: texts, prompts, prompts with completions, preference pairs and labels, from data.path in one of four formats.
 *
 *   jsonl  an object a line; fields are named by data.text_field and so on; "input_ids", an array of token numbers, may
 *          stand instead of the text or prompt. The forms are TRL's (trl/docs "Dataset formats"): strings, or lists of
 *          messages {"role", "content"}, which conversation_render turns into strings by the model's chat template
 *   csv    a header line with field names
 *   text   a text a line, blank lines left out; or, where a line <|endoftext|> occurs, the texts between such lines
 *   imdb   DIR/{neg,pos}/<name>.txt, sorted by name, neg (label 0) first; of the whole aclImdb folder, the train split, or
 *          the test split for data.eval_path
 *
 * Rows keep the order of the file. A row whose text (without one: prompt) has fewer than data.min_chars characters
 * (code points) is left out; a row of token numbers alone is kept. A dataset without rows is an error. Of messages the
 * characters of their contents count.
 */
#ifndef RLHF_SRC_DATASET_H
#define RLHF_SRC_DATASET_H

#include "settings.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct dataset_row {
    char *text, *prompt, *completion, *chosen,
        *rejected; /* owned, a NUL behind the last byte; NULL: not given */
    size_t n_text, n_prompt, n_completion, n_chosen, n_rejected;
    json_t *chat;  /* owned; the lists of messages of a conversational row until conversation_render, keys "messages",
                      "prompt", "completion", "chosen", "rejected", "tools", "chat_template_kwargs"; NULL: strings only */
    bool rendered; /* the strings are a chat template's: special tokens stand in them, and no more are to be added */
    int32_t *
        input_ids; /* [n_ids] owned; not negative, else unchecked: the vocabulary is the caller's to hold them to */
    int64_t n_ids;
    int label;        /* -1 while label_name is to be numbered */
    double margin;    /* of a pair: its field "margin", by which chosen is to be better; 0 where it has none */
    char *label_name; /* owned; a label that is a string; NULL: an integer */
    bool has_label;
    int64_t line; /* in the file, from 1, for messages; imdb: 0 */
};

struct dataset {
    char *path; /* owned, for messages */
    int64_t n, room;
    int64_t n_short;         /* rows left out by min_chars */
    struct dataset_row *row; /* [n] */
};

/* What every row must have, else ERR_FILE. 0: anything to start from (text, messages, prompt, chosen or input_ids). */
enum {
    DATASET_TEXT = 1,       /* text, messages or input_ids */
    DATASET_PROMPT = 2,     /* prompt or input_ids */
    DATASET_PAIR = 4,       /* chosen and rejected */
    DATASET_LABEL = 8,      /* an integer, or a string for dataset_number_labels */
    DATASET_COMPLETION = 16 /* prompt and completion; with DATASET_TEXT: either */
};

/* Reads data.path, or data.eval_path. Fields that are not needed are kept where they are given.
 * Errors: ERR_FILE with file and line: unreadable, malformed, a field missing (the fields that are there are named) or of
 * the wrong type, no rows. Free *d in either case. Ranks: local. */
int dataset_load(struct dataset *d, const struct settings_data *s, unsigned need);
int dataset_load_eval(struct dataset *d, const struct settings_data *s, unsigned need);
void dataset_free(struct dataset *d);

/* Of what the rows say, for ranks to see that they have read the same (comm_same_input). Strings of messages count once they are
 * rendered. */
uint64_t dataset_hash(const struct dataset *d);

/* data.path, then data.eval_path where it is given: each is loaded, handed to take (eval: which of them), hashed and freed.
 * hash   [2] written: dataset_hash of both; that of no rows where there is none
 * Errors: dataset_load's; the first that take returns. Ranks: local. */
int dataset_take(const struct settings_data *s, unsigned need, int (*take)(void *context, struct dataset *d, bool eval),
                 void *context, uint64_t hash[2]);

/* The distinct labels that are strings, sorted by byte: how many, 0 where labels are integers. The caller frees each and
 * the array. */
int dataset_label_names(const struct dataset *d, char ***name);

/* Gives each label that is a string its place in name[n_names]. Errors: ERR_FILE with file and line for a label that is
 * none of them (they are listed), or one that is no integer below n_names. Ranks: local. */
int dataset_number_labels(struct dataset *d, char *const *name, int n_names);

#endif
