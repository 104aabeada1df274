/* The branches of the regexes in their order, each as a test and a loop; comments name the branch. What makes them linear
 * is that a run of white space is read at most twice: up to its end, then again when its last character was left over.
 *
 * Sources: GPT-2 encoder.py (MIT, OpenAI); the "pre_tokenizer" of Llama 3's and Qwen2's tokenizer.json. */
#include "scan.h"

#include <stdbool.h>
#include <string.h>

const char SCAN_GPT2_REGEX[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char SCAN_LLAMA3_REGEX[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char SCAN_QWEN2_REGEX[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* Class of the character at i, whose length is put in *length; UNICODE_SPACE + 1 at the end of the text. */
enum { CLASS_END = UNICODE_SPACE + 1 };

static inline int class_at(const struct unicode_classes *u, const char *text, size_t i, size_t n,
                           int *length)
{
    uint32_t c;
    *length = 0;
    if (i >= n)
        return CLASS_END;
    *length = utf8_decode(&c, text + i);
    return (int)unicode_class(u, c);
}

/* End of the run of characters of one class that begins at i. */
static inline size_t run_end(const struct unicode_classes *u, const char *text, size_t i, size_t n,
                             int class)
{
    int length;
    while (class_at(u, text, i, n, &length) == class)
        i += (size_t)length;
    return i;
}

/* End of 's 't 're 've 'm 'll 'd after the apostrophe at i, or i. fold: in any case, as Unicode folds (U+017F is an s). */
static size_t contraction_end(const char *text, size_t i, size_t n, bool fold)
{
    if (n - i < 2)
        return i;
    unsigned char a = (unsigned char)text[i + 1], b = n - i > 2 ? (unsigned char)text[i + 2] : 0;
    if (fold && a == 0xc5 && b == 0xbf)
        return i + 3;
    if (fold && a >= 'A' && a <= 'Z')
        a |= 0x20;
    if (fold && b >= 'A' && b <= 'Z')
        b |= 0x20;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return i + 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l'))
        return i + 3;
    return i;
}

/* \s+(?!\S)|\s+ on the white space from i to end: all of it at the end of the text, else all but its last character,
 * unless that is all there is. */
static size_t space_end(const char *text, size_t i, size_t end, size_t n)
{
    if (end == n)
        return end;
    size_t last = end - 1;
    while (((unsigned char)text[last] & 0xc0) == 0x80)
        last--;
    return last > i ? last : end;
}

size_t scan_gpt2(const struct unicode_classes *u, const char *text, size_t i, size_t n)
{
    if (text[i] == '\'') {
        size_t end = contraction_end(text, i, n, false);
        if (end > i)
            return end;
    }
    int length;
    size_t first = i + (text[i] == ' ');
    int class = class_at(u, text, first, n, &length);
    if (class != UNICODE_SPACE &&
        class != CLASS_END) /* ' ?\p{L}+', ' ?\p{N}+', ' ?[^\s\p{L}\p{N}]+' */
        return run_end(u, text, first + (size_t)length, n, class);
    return space_end(text, i, run_end(u, text, i, n, UNICODE_SPACE), n);
}

static inline size_t scan_modern(const struct unicode_classes *u, const char *text, size_t i,
                                 size_t n, int max_digits)
{
    if (text[i] == '\'') {
        size_t end = contraction_end(text, i, n, true);
        if (end > i)
            return end;
    }
    int length, next_length;
    int class = class_at(u, text, i, n, &length);
    size_t after = i + (size_t)length;
    if (class == UNICODE_LETTER)
        return run_end(u, text, after, n, UNICODE_LETTER);
    if (class == UNICODE_NUMBER) { /* \p{N}{1,3} */
        for (int digits = 1; digits < max_digits; digits++) {
            if (class_at(u, text, after, n, &length) != UNICODE_NUMBER)
                break;
            after += (size_t)length;
        }
        return after;
    }
    int next = class_at(u, text, after, n, &next_length);
    if (next == UNICODE_LETTER && text[i] != '\r' && text[i] != '\n')
        return run_end(u, text, after + (size_t)next_length, n, UNICODE_LETTER);
    if (class == UNICODE_OTHER || (text[i] == ' ' && next == UNICODE_OTHER)) {
        size_t end = run_end(u, text, after, n, UNICODE_OTHER); /* ' ?[^\s\p{L}\p{N}]+[\r\n]*' */
        while (end < n && (text[end] == '\r' || text[end] == '\n'))
            end++;
        return end;
    }
    size_t end = run_end(u, text, i, n, UNICODE_SPACE);
    for (size_t line = end; line > i; line--) /* '\s*[\r\n]+': up to the last line end of the run */
        if (text[line - 1] == '\n' || text[line - 1] == '\r')
            return line;
    return space_end(text, i, end, n);
}

size_t scan_llama3(const struct unicode_classes *u, const char *text, size_t i, size_t n)
{
    return scan_modern(u, text, i, n, 3);
}

size_t scan_qwen2(const struct unicode_classes *u, const char *text, size_t i, size_t n)
{
    return scan_modern(u, text, i, n, 1);
}

scan_word scan_find(const char *regex)
{
    static const struct {
        const char *regex;
        scan_word scan;
    } known[] = {{SCAN_GPT2_REGEX, scan_gpt2},
                 {SCAN_LLAMA3_REGEX, scan_llama3},
                 {SCAN_QWEN2_REGEX, scan_qwen2}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(regex, known[i].regex))
            return known[i].scan;
    return NULL;
}
