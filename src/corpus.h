/* A made-up corpus: film reviews from a grammar, each labelled positive or negative.
 *
 * It lets the tiny example and the tests train a model from nothing, without data of others: English of 2 to 4
 * sentences, beginnings that say little ("The director ...") and may turn either way, neutral facts in between.
 * The words that carry the sentiment are listed with weights in input/tiny/lexicon.tsv. No such word is ever negated,
 * so that adding up weights is a fair reward; in "The plot is flat, but the acting is superb" the last part weighs more.
 */
#ifndef RLHF_SRC_CORPUS_H
#define RLHF_SRC_CORPUS_H

#include "text.h"

#include <stdint.h>

/* Review number index (0 .. 2^32 - 1) of the corpus of a seed, a function of (seed, index) alone.
 *
 * out    its text, replaced; one line without a line break, ASCII
 * label  1 positive, 0 negative; about half are positive
 *
 * Ranks: local, same bits on every rank. Fails only on an index out of range.
 */
int corpus_review(struct text *out, int *label, uint64_t seed, int64_t index);

#endif
