/* Classes and lower case of characters as Hugging Face's `tokenizers` 0.23.3 has them, so that ids do not depend on the
 * Unicode version of the machine's libraries. Its crates differ: unicode_categories is of Unicode 8.0,
 * unicode-normalization-alignments of 9.0, Rust's standard library of 17.0.
 */
#ifndef RLHF_SRC_CATEGORIES_H
#define RLHF_SRC_CATEGORIES_H

#include <stdbool.h>
#include <stdint.h>

bool category_is_punctuation(uint32_t c); /* P of Unicode 8.0, and ASCII's punctuation and symbols */
bool category_is_other(uint32_t c);       /* Cc, Cf, Co of 8.0 (surrogates are no characters) but tab, LF, CR */
bool category_is_nonspacing(uint32_t c);  /* Mn of 8.0 */
bool category_is_mark(uint32_t c);        /* M of 9.0 */
bool category_is_numeric(uint32_t c);     /* N of 17.0 */

uint32_t category_lowercase(uint32_t c); /* simple mapping of 17.0 */

#endif
