/* Reward by a list of words with weights: the mean weight of the response's words.
 *
 * File: UTF-8, one entry a line, `word TAB weight` (further columns after a TAB are not read:
 * VADER's file has them) or
 * `word,weight`; blank lines are skipped. Entries that are not one word (phrases, emoticons) cannot
 * match and are skipped with one warning that counts them. Of a word listed twice the last line
 * counts (VADER has some); a warning says how many changed their weight by that.
 *
 * A word is a run of letters, marks, digits and apostrophes inside; U+2019 counts as an apostrophe.
 * A compound with inner hyphens is one word where the list has it, else each piece is one. Letter
 * case does not matter (Unicode, simple).
 *
 *   score = sum of the weights of the words that are listed / number of words;  0 for no words
 *
 * Only the response counts: the prompt is not the policy's doing.
 */
#ifndef RLHF_SRC_REWARD_LEXICON_H
#define RLHF_SRC_REWARD_LEXICON_H

#include "reward.h"

/* Errors: ERR_INPUT without a path; ERR_FILE with path and line for a line that is no entry, or for
 * a file without any word that can match. */
int reward_lexicon_open(void **state, const struct reward_spec *spec);
int reward_lexicon_score(void *state, const struct reward_text *texts, int64_t n,
                         double *score); /* cannot fail */
void reward_lexicon_close(void *state);

#endif
