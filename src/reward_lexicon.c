/* Words with weights: a sorted table, searched by the folded bytes of each word of a text. */
#include "reward_lexicon.h"

#include "error.h"
#include "file.h"
#include "log.h"
#include "text.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

struct entry {
    size_t start, n; /* word = words.bytes + start */
    double weight;
    int64_t line;
};

struct lexicon {
    struct text words;   /* all words, folded */
    struct entry *entry; /* [n], sorted by word */
    size_t n, room;
    struct text word; /* the one being looked up */
};

/* --- words of a text --- */

enum kind { KIND_OTHER, KIND_LETTER, KIND_APOSTROPHE, KIND_HYPHEN };

static enum kind kind_of(utf8proc_int32_t c)
{
    if (c == '\'' || c == 0x2019)
        return KIND_APOSTROPHE;
    if (c == '-' || c == 0x2010 || c == 0x2011)
        return KIND_HYPHEN;
    if (c < 0)
        return KIND_OTHER;
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return KIND_LETTER;
    default:
        return KIND_OTHER;
    }
}

/* The next character, -1 for a byte that is no UTF-8. */
static size_t next_char(utf8proc_int32_t *c, const char *bytes, size_t n)
{
    const size_t window = n < 4 ? n : 4;
    const utf8proc_ssize_t used =
        utf8proc_iterate((const utf8proc_uint8_t *)bytes, (utf8proc_ssize_t)window, c);
    if (used > 0)
        return (size_t)used;
    *c = -1;
    return 1;
}

/* Skips to the next compound from *at, folds it into word, and moves *at behind it. False: there is
 * none. */
static bool next_compound(struct text *word, const char *bytes, size_t n, size_t *at)
{
    text_clear(word);
    size_t i = *at;
    enum kind joint = KIND_OTHER; /* seen after a letter, kept if a letter follows */
    while (i < n) {
        utf8proc_int32_t c;
        const size_t step = next_char(&c, bytes + i, n - i);
        const enum kind kind = kind_of(c);
        if (kind == KIND_LETTER) {
            if (joint != KIND_OTHER)
                text_add(word, joint == KIND_HYPHEN ? "-" : "'", 1);
            joint = KIND_OTHER;
            utf8proc_uint8_t folded[4];
            text_add(word, folded, (size_t)utf8proc_encode_char(utf8proc_tolower(c), folded));
        } else if (word->n && (kind == KIND_OTHER || joint != KIND_OTHER)) {
            break;
        } else if (word->n) {
            joint = kind;
        }
        i += step;
    }
    *at = i;
    return word->n > 0;
}

static int compare(const char *a, size_t n_a, const char *b, size_t n_b)
{
    const int order = memcmp(a, b, n_a < n_b ? n_a : n_b);
    return order ? order : (n_a > n_b) - (n_a < n_b);
}

static const struct entry *look_up(const struct lexicon *lexicon, const char *word, size_t n)
{
    size_t low = 0, high = lexicon->n;
    while (low < high) {
        const size_t middle = low + (high - low) / 2;
        const struct entry *e = &lexicon->entry[middle];
        const int order = compare(word, n, lexicon->words.bytes + e->start, e->n);
        if (order == 0)
            return e;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* --- scoring --- */

struct tally {
    double sum;
    int64_t words;
};

static void count_word(struct tally *tally, const struct lexicon *lexicon, const char *word,
                       size_t n)
{
    const struct entry *e = look_up(lexicon, word, n);
    tally->sum += e ? e->weight : 0.0;
    tally->words++;
}

static void count_compound(struct tally *tally, const struct lexicon *lexicon,
                           const struct text *word)
{
    const char *piece = word->bytes, *end = word->bytes + word->n;
    if (look_up(lexicon, word->bytes, word->n)) {
        count_word(tally, lexicon, word->bytes, word->n);
        return;
    }
    while (piece) {
        const char *hyphen = memchr(piece, '-', (size_t)(end - piece));
        count_word(tally, lexicon, piece, (size_t)((hyphen ? hyphen : end) - piece));
        piece = hyphen ? hyphen + 1 : NULL;
    }
}

int reward_lexicon_score(void *state, const struct reward_text *texts, int64_t n, double *score)
{
    struct lexicon *lexicon = state;
    for (int64_t i = 0; i < n; i++) {
        struct tally tally = {0};
        size_t at = 0;
        while (next_compound(&lexicon->word, texts[i].response, texts[i].response_bytes, &at))
            count_compound(&tally, lexicon, &lexicon->word);
        score[i] = tally.words ? tally.sum / (double)tally.words : 0.0;
    }
    return 0;
}

/* --- the file --- */

/* The finite decimal number in text, blanks around it allowed. */
static bool parse_number(double *number, const char *text)
{
    if (!*text || strspn(text, "+-.0123456789eE \r") != strlen(text))
        return false; /* also keeps out nan, inf and hexadecimal, which strtod would take */
    char *end;
    *number = strtod(text, &end);
    return end != text && end[strspn(end, " \r")] == 0 && isfinite(*number);
}

/* Whether the entry is one word as a text's words are; its folded form goes into word. */
static bool is_one_word(struct text *word, const char *entry, size_t n)
{
    struct text second = {0};
    size_t at = 0;
    bool one = next_compound(word, entry, n, &at);
    one = one && !next_compound(&second, entry, n, &at);
    text_free(&second);
    utf8proc_int32_t first, last = -1;
    for (size_t i = 0; one && i < n;) /* nothing but the word: no "good!" and no ":D" */
        i += next_char(&last, entry + i, n - i);
    return one && next_char(&first, entry, n) && kind_of(first) == KIND_LETTER &&
           kind_of(last) == KIND_LETTER;
}

static bool is_utf8(const char *bytes, size_t n)
{
    utf8proc_int32_t c = 0;
    for (size_t i = 0; i < n && c >= 0;)
        i += next_char(&c, bytes + i, n - i);
    return c >= 0;
}

static void add_entry(struct lexicon *lexicon, const struct text *word, double weight, int64_t line)
{
    if (lexicon->n == lexicon->room) {
        lexicon->room = lexicon->room ? 2 * lexicon->room : 256;
        lexicon->entry = realloc(lexicon->entry, lexicon->room * sizeof *lexicon->entry);
        CHECK(lexicon->entry, "out of memory for %zu words", lexicon->room);
    }
    lexicon->entry[lexicon->n++] = (struct entry){lexicon->words.n, word->n, weight, line};
    text_add(&lexicon->words, word->bytes, word->n);
}

/* One line, without its newline and with a NUL behind it. */
static int add_line(struct lexicon *lexicon, int64_t *n_skipped, const char *line, size_t n,
                    const char *path, int64_t number)
{
    if (strspn(line, " \t\r") == n)
        return 0;
    char *copy = strndup(line, n);
    struct text word = {0};
    double weight = 0.0;
    CHECK(copy, "out of memory");
    char *tab = strchr(copy, '\t');
    char *split = tab ? tab : strrchr(copy, ',');
    char *value = split ? split + 1 : NULL;
    bool good = split && split > copy && is_utf8(line, n) && strlen(copy) == n;
    if (good && tab)
        value[strcspn(value, "\t")] = 0;
    good = good && parse_number(&weight, value);
    if (good) {
        const char *first = copy + strspn(copy, " ");
        while (split > first && split[-1] == ' ')
            split--;
        if (is_one_word(&word, first, (size_t)(split - first)))
            add_entry(lexicon, &word, weight, number);
        else
            ++*n_skipped;
    }
    text_free(&word);
    free(copy);
    return good ? 0
                : error_set(ERR_FILE, "%s:%lld: expected a word, a TAB or comma, and its weight",
                            path, (long long)number);
}

/* words: the bytes that the entries point into */
static int by_word(const void *a, const void *b, void *words)
{
    const struct entry *x = a, *y = b;
    const char *bytes = words;
    const int order = compare(bytes + x->start, x->n, bytes + y->start, y->n);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

static int sort_entries(struct lexicon *lexicon, const char *path)
{
    if (lexicon->n == 0)
        return error_set(ERR_FILE, "%s: no words with weights in it", path);
    qsort_r(lexicon->entry, lexicon->n, sizeof *lexicon->entry, by_word, lexicon->words.bytes);
    size_t kept = 0;
    int64_t n_changed = 0;
    for (size_t i = 0; i < lexicon->n; i++) {
        const struct entry *e = &lexicon->entry[i];
        struct entry *before = kept ? &lexicon->entry[kept - 1] : NULL;
        const char *words = lexicon->words.bytes;
        if (!before || compare(words + e->start, e->n, words + before->start, before->n) != 0) {
            lexicon->entry[kept++] = *e;
        } else {
            n_changed += e->weight != before->weight;
            *before = *e;
        }
    }
    if (n_changed)
        log_warn("%s: %lld words are listed again with another weight; the last one counts", path,
                 (long long)n_changed);
    lexicon->n = kept;
    return 0;
}

static int read_file(struct lexicon *lexicon, const char *path)
{
    struct text file = {0};
    int rc = file_read(&file, path);
    int64_t n_skipped = 0;
    size_t at = file.n >= 3 && !memcmp(file.bytes, "\xef\xbb\xbf", 3) ? 3 : 0; /* byte order mark */
    for (int64_t number = 1; rc == 0 && at < file.n; number++) {
        char *line = file.bytes + at, *end = memchr(line, '\n', file.n - at);
        const size_t n = end ? (size_t)(end - line) : file.n - at;
        line[n] = 0;
        rc = add_line(lexicon, &n_skipped, line, n, path, number);
        at += n + 1;
    }
    text_free(&file);
    TRY(rc);
    if (n_skipped)
        log_warn("%s: %lld entries are not single words and are not used", path,
                 (long long)n_skipped);
    return sort_entries(lexicon, path);
}

int reward_lexicon_open(void **state, const struct reward_spec *spec)
{
    *state = NULL;
    if (!spec->path || !*spec->path)
        return error_set(ERR_INPUT, "path is missing: a lexicon needs a file of words and weights");
    struct lexicon *lexicon = calloc(1, sizeof *lexicon);
    CHECK(lexicon, "out of memory");
    if (read_file(lexicon, spec->path) != 0) {
        reward_lexicon_close(lexicon);
        return -1;
    }
    text_reserve(&lexicon->word, 2 * spec->text_bytes); /* lower case may need 3 bytes for 2 */
    *state = lexicon;
    return 0;
}

void reward_lexicon_close(void *state)
{
    struct lexicon *lexicon = state;
    if (!lexicon)
        return;
    text_free(&lexicon->words);
    text_free(&lexicon->word);
    free(lexicon->entry);
    free(lexicon);
}
