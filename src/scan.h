/* The three regexes that nearly every byte-level tokenizer splits words with, as hand-written scanners.
 *
 * They cover the text without gaps, so a scanner says only where the word that begins at a position ends. They are
 * faster than the regex and have the character classes of unicode.h; a test holds them to PCRE2.
 */
#ifndef RLHF_SRC_SCAN_H
#define RLHF_SRC_SCAN_H

#include "unicode.h"

#include <stddef.h>

/* End of the word that begins at i < n. */
typedef size_t (*scan_word)(const struct unicode_classes *u, const char *text, size_t i, size_t n);

extern const char SCAN_GPT2_REGEX[], SCAN_LLAMA3_REGEX[], SCAN_QWEN2_REGEX[];

size_t scan_gpt2(const struct unicode_classes *u, const char *text, size_t i, size_t n);
size_t scan_llama3(const struct unicode_classes *u, const char *text, size_t i, size_t n);
size_t scan_qwen2(const struct unicode_classes *u, const char *text, size_t i, size_t n);

scan_word scan_find(const char *regex); /* NULL for any other regex */

#endif
