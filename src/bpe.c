/* Two algorithms for the same merges. Short words: an array of tokens and of the ranks of their pairs, the lowest rank found
 * by looking at all. Long ones: a doubly linked list and a heap of candidates; a candidate whose pair has changed is dropped
 * when it comes up. A pair that has changed covers more text, so its merge cannot make the same token: comparing the
 * new ids finds every stale candidate, and the two algorithms agree. */
#include "bpe.h"

#include "error.h"
#include "pretokenize.h"
#include "unicode.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHORT_WORD = 48,       /* tokens at most for the array */
    CACHE_SLOTS = 1 << 16, /* 4 MiB; twice as many gave 10 % more speed on reviews */
    CACHE_MAX_BYTES = 24,
    CACHE_MAX_TOKENS = 9,
    TABLE_CHARACTERS = 0x3000, /* Latin to U+2581 */
    MAX_MERGES = 1 << 24
};
#define SPACE_CHAR "\xe2\x96\x81" /* U+2581, the space of SentencePiece */

struct bpe_merge {
    int32_t left, right; /* left -1: empty slot */
    uint32_t rank;
    int32_t id;
};
struct bpe_symbol {
    int32_t id; /* -1: merged into the one before */
    int32_t prev, next;
};
struct bpe_candidate {
    uint32_t rank;
    int32_t at, id;
};
struct bpe_cached {
    uint64_t key[3];
    int32_t token[CACHE_MAX_TOKENS];
    unsigned char n_bytes, n_tokens; /* n_bytes 0: empty */
};

/* Merges */

static inline size_t hash_pair(int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    key *= UINT64_C(0x9e3779b97f4a7c15); /* 2^64 / golden ratio */
    return (size_t)(key ^ key >> 32);
}

static inline const struct bpe_merge *find_merge(const struct bpe *b, int32_t left, int32_t right)
{
    size_t i = hash_pair(left, right) & b->merge_mask;
    for (;;) {
        const struct bpe_merge *m = &b->merge[i];
        if (m->left == left && m->right == right)
            return m;
        if (m->left < 0)
            return NULL;
        i = (i + 1) & b->merge_mask;
    }
}

static void put_merge(struct bpe *b, struct bpe_merge merge)
{
    size_t i = hash_pair(merge.left, merge.right) & b->merge_mask;
    while (b->merge[i].left >= 0 &&
           !(b->merge[i].left == merge.left && b->merge[i].right == merge.right))
        i = (i + 1) & b->merge_mask;
    b->merge[i] = merge; /* a pair that the file gives twice: the last one holds */
}

/* Short words */

static void merge_short(const struct bpe *b, struct token_list *out, int64_t begin)
{
    int32_t *id = out->ids + begin, made[SHORT_WORD];
    uint32_t rank[SHORT_WORD];
    int n = (int)(out->n - begin);
    const struct bpe_merge *m;
    for (int i = 0; i + 1 < n; i++) {
        m = find_merge(b, id[i], id[i + 1]);
        rank[i] = m ? m->rank : UINT32_MAX;
        made[i] = m ? m->id : -1;
    }
    while (n > 1) {
        int at = 0;
        for (int i = 1; i + 1 < n; i++)
            if (rank[i] < rank[at])
                at = i;
        if (rank[at] == UINT32_MAX)
            break;
        id[at] = made[at];
        n--;
        memmove(id + at + 1, id + at + 2, (size_t)(n - at - 1) * sizeof *id);
        if (n - at > 2) {
            memmove(rank + at + 1, rank + at + 2, (size_t)(n - at - 2) * sizeof *rank);
            memmove(made + at + 1, made + at + 2, (size_t)(n - at - 2) * sizeof *made);
        }
        for (int i = at > 0 ? at - 1 : 0; i <= at && i + 1 < n; i++) {
            m = find_merge(b, id[i], id[i + 1]);
            rank[i] = m ? m->rank : UINT32_MAX;
            made[i] = m ? m->id : -1;
        }
    }
    out->n = begin + n;
}

/* Long words */

static bool before(struct bpe_candidate a, struct bpe_candidate b)
{
    return a.rank != b.rank ? a.rank < b.rank : a.at < b.at;
}

static void heap_sink(struct bpe_work *w, size_t i)
{
    struct bpe_candidate c = w->heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->heap_n)
            break;
        if (child + 1 < w->heap_n && before(w->heap[child + 1], w->heap[child]))
            child++;
        if (!before(w->heap[child], c))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = c;
}

static struct bpe_candidate heap_take(struct bpe_work *w)
{
    struct bpe_candidate top = w->heap[0];
    w->heap[0] = w->heap[--w->heap_n];
    if (w->heap_n)
        heap_sink(w, 0);
    return top;
}

/* Puts the candidate of the pair that begins at a symbol behind the others, without ordering the heap. */
static bool heap_append(const struct bpe *b, struct bpe_work *w, int32_t at)
{
    const struct bpe_symbol *left = &w->symbol[at];
    if (left->next < 0)
        return false;
    const struct bpe_merge *m = find_merge(b, left->id, w->symbol[left->next].id);
    if (!m)
        return false;
    if (w->heap_n == w->heap_room) {
        w->heap_room = w->heap_room ? 2 * w->heap_room : 1024;
        w->heap = realloc(w->heap, w->heap_room * sizeof *w->heap);
        CHECK(w->heap, "out of memory for %zu merges", w->heap_room);
    }
    w->heap[w->heap_n++] = (struct bpe_candidate){m->rank, at, m->id};
    return true;
}

static void heap_put(const struct bpe *b, struct bpe_work *w, int32_t at)
{
    if (at < 0 || !heap_append(b, w, at))
        return;
    size_t i = w->heap_n - 1;
    struct bpe_candidate c = w->heap[i];
    while (i && before(c, w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = c;
}

static void merge_long(const struct bpe *b, struct bpe_work *w, struct token_list *out,
                       int64_t begin)
{
    int32_t n = (int32_t)(out->n - begin);
    if ((size_t)n > w->room) {
        w->room = (size_t)n;
        w->symbol = realloc(w->symbol, w->room * sizeof *w->symbol);
        CHECK(w->symbol, "out of memory for a word of %d characters", n);
    }
    for (int32_t i = 0; i < n; i++)
        w->symbol[i] = (struct bpe_symbol){out->ids[begin + i], i - 1, i + 1 < n ? i + 1 : -1};
    w->heap_n = 0;
    for (int32_t i = 0; i < n; i++)
        heap_append(b, w, i);
    for (size_t i = w->heap_n / 2; i-- > 0;)
        heap_sink(w, i);
    while (w->heap_n) {
        struct bpe_candidate c = heap_take(w);
        struct bpe_symbol *left = &w->symbol[c.at];
        if (left->id < 0 || left->next < 0)
            continue;
        struct bpe_symbol *right = &w->symbol[left->next];
        const struct bpe_merge *m = find_merge(b, left->id, right->id);
        if (!m || m->id != c.id)
            continue;
        left->id = c.id;
        left->next = right->next;
        right->id = -1;
        if (left->next >= 0)
            w->symbol[left->next].prev = c.at;
        heap_put(b, w, left->prev);
        heap_put(b, w, c.at);
    }
    out->n = begin;
    for (int32_t i = 0; i >= 0; i = w->symbol[i].next)
        out->ids[out->n++] = w->symbol[i].id;
}

/* Characters */

/* <0xHH> for each byte of a character, if all of them are tokens. */
static bool add_bytes(const struct bpe *b, struct token_list *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (b->byte_fallback[(unsigned char)s[i]] < 0)
            return false;
    for (size_t i = 0; i < n; i++)
        token_list_add(out, b->byte_fallback[(unsigned char)s[i]]);
    return true;
}

static int32_t find_character(const struct bpe *b, struct text *name, const char *s, size_t n,
                              bool first, bool last)
{
    bool prefix = b->prefix.n && !first, suffix = b->suffix.n && last;
    if (!prefix && !suffix) {
        uint32_t c;
        utf8_decode(&c, s);
        return c < TABLE_CHARACTERS ? b->character[c] : vocab_find(&b->vocab, s, n);
    }
    text_clear(name);
    if (prefix)
        text_add(name, b->prefix.bytes, b->prefix.n);
    text_add(name, s, n);
    if (suffix)
        text_add(name, b->suffix.bytes, b->suffix.n);
    return vocab_find(&b->vocab, name->bytes, name->n);
}

static void add_characters(const struct bpe *b, struct token_list *out, const char *word, size_t n)
{
    struct text name = {0};
    bool unk_waits = false; /* an unk is written when the next known character, or the end, comes */
    for (size_t i = 0, length; i < n; i += length) {
        length = (size_t)utf8_length(word[i]);
        bool last = i + length == n;
        int32_t id = find_character(b, &name, word + i, length, i == 0, last);
        if (id >= 0) {
            if (unk_waits)
                token_list_add(out, b->unk);
            unk_waits = false;
            token_list_add(out, id);
            continue;
        }
        bool plain = !(b->prefix.n && i) && !(b->suffix.n && last);
        const char *bytes = plain ? word + i : name.bytes;
        if (add_bytes(b, out, bytes, plain ? length : name.n) || b->unk < 0)
            continue;
        if (unk_waits && !b->fuse_unk)
            token_list_add(out, b->unk);
        unk_waits = true;
    }
    if (unk_waits)
        token_list_add(out, b->unk);
    text_free(&name);
}

/* Words */

static void encode_word(const struct bpe *b, struct bpe_work *w, struct token_list *out,
                        const char *word, size_t n, bool byte_level)
{
    int64_t begin = out->n;
    bool simple = byte_level && b->all_bytes;
    if (byte_level && (b->ignore_merges || !simple)) {
        text_clear(&w->mapped);
        byte_level_add(&w->mapped, word, n);
    }
    const char *text = byte_level ? w->mapped.bytes : word;
    size_t text_n = byte_level ? w->mapped.n : n;
    if (b->ignore_merges) {
        int32_t id = vocab_find(&b->vocab, text, text_n);
        if (id >= 0) {
            token_list_add(out, id);
            return;
        }
    }
    if (simple) {
        token_list_reserve(out, (int64_t)n);
        for (size_t i = 0; i < n; i++)
            out->ids[out->n++] = b->byte_token[(unsigned char)word[i]];
    } else {
        add_characters(b, out, text, text_n);
    }
    if (out->n - begin <= 1)
        return;
    if (out->n - begin <= SHORT_WORD)
        merge_short(b, out, begin);
    else
        merge_long(b, w, out, begin);
}

static inline uint64_t load64(const char *s)
{
    uint64_t word;
    memcpy(&word, s, sizeof word);
    return word;
}

/* The bytes of a word of 1 to 24 bytes in three words: with the length they tell words apart. */
static inline void word_key(uint64_t key[3], const char *s, size_t n)
{
    key[1] = key[2] = 0;
    if (n >= 8) {
        key[0] = load64(s);
        key[1] = load64(n > 16 ? s + 8 : s + n - 8);
        if (n > 16)
            key[2] = load64(s + n - 8);
    } else if (n >= 4) {
        uint32_t low, high;
        memcpy(&low, s, sizeof low);
        memcpy(&high, s + n - 4, sizeof high);
        key[0] = low | (uint64_t)high << 32;
    } else {
        key[0] = (unsigned char)s[0] | (uint64_t)(unsigned char)s[n / 2] << 8 |
                 (uint64_t)(unsigned char)s[n - 1] << 16;
    }
}

static inline size_t hash_key(const uint64_t key[3], size_t n)
{
    uint64_t h = (key[0] ^ n) * UINT64_C(0x9e3779b185ebca87); /* primes of XXH64 */
    h = (h ^ h >> 29 ^ key[1]) * UINT64_C(0xc2b2ae3d27d4eb4f);
    h = (h ^ h >> 31 ^ key[2]) * UINT64_C(0x165667b19e3779f9);
    return (size_t)(h >> 40);
}

static void encode_cached(const struct bpe *b, struct bpe_work *w, struct token_list *out,
                          const char *word, size_t n, bool byte_level)
{
    if (n > CACHE_MAX_BYTES) {
        encode_word(b, w, out, word, n, byte_level);
        return;
    }
    if (!w->cache) {
        w->cache = calloc(CACHE_SLOTS, sizeof *w->cache);
        CHECK(w->cache, "out of memory for a cache of words");
    }
    uint64_t key[3];
    word_key(key, word, n);
    struct bpe_cached *c = &w->cache[hash_key(key, n) & (CACHE_SLOTS - 1)];
    token_list_reserve(out, CACHE_MAX_TOKENS);
    int32_t *to = out->ids + out->n;
    if (c->n_bytes == n && c->key[0] == key[0] && c->key[1] == key[1] && c->key[2] == key[2]) {
        memcpy(to, c->token,
               sizeof c->token); /* a fixed size is faster; what is too much is overwritten */
        out->n += c->n_tokens;
        return;
    }
    int64_t begin = out->n;
    encode_word(b, w, out, word, n, byte_level);
    int64_t n_tokens = out->n - begin;
    if (n_tokens > CACHE_MAX_TOKENS)
        return;
    memcpy(c->key, key, sizeof key);
    c->n_bytes = (unsigned char)n;
    c->n_tokens = (unsigned char)n_tokens;
    if (n_tokens)
        memcpy(c->token, out->ids + begin, (size_t)n_tokens * sizeof *c->token);
}

/* Start of the next U+2581 that does not follow another, after begin; n if there is none. */
static size_t find_cut(const char *word, size_t begin, size_t n)
{
    size_t run = begin; /* end of the last U+2581 */
    for (size_t i = begin; i + 3 <= n;) {
        if ((unsigned char)word[i] != 0xe2 || memcmp(word + i, SPACE_CHAR, 3)) {
            i++;
            continue;
        }
        if (i > run)
            return i;
        run = i += 3;
    }
    return n;
}

void bpe_encode(const struct bpe *b, struct bpe_work *w, struct token_list *out, const char *word,
                size_t n, bool byte_level)
{
    if (byte_level || !b->cut_at_space) {
        encode_cached(b, w, out, word, n, byte_level);
        return;
    }
    for (size_t at = 0, end; at < n; at = end) {
        end = find_cut(word, at, n);
        encode_cached(b, w, out, word + at, end - at, false);
    }
}

void bpe_work_free(struct bpe_work *w)
{
    free(w->cache);
    free(w->symbol);
    free(w->heap);
    text_free(&w->mapped);
    *w = (struct bpe_work){0};
}

/* Reading the file */

static int read_flag(bool *out, const json_t *model, const char *key)
{
    const json_t *value = json_object_get(model, key);
    *out = json_is_true(value);
    if (value && !json_is_null(value) && !json_is_boolean(value))
        return error_set(ERR_FILE, "model: \"%s\" must be true or false", key);
    return 0;
}

static int read_string(struct text *out, const json_t *model, const char *key)
{
    const json_t *value = json_object_get(model, key);
    if (!value || json_is_null(value))
        return 0;
    if (!json_is_string(value))
        return error_set(ERR_FILE, "model: \"%s\" must be a string", key);
    text_add(out, json_string_value(value), json_string_length(value));
    return 0;
}

/* The two sides of a merge, "a b" or ["a", "b"]. */
static int split_merge(const json_t *merge, size_t rank, const char *side[2], size_t n[2])
{
    if (json_is_array(merge) && json_array_size(merge) == 2 &&
        json_is_string(json_array_get(merge, 0)) && json_is_string(json_array_get(merge, 1))) {
        for (int i = 0; i < 2; i++) {
            side[i] = json_string_value(json_array_get(merge, (size_t)i));
            n[i] = json_string_length(json_array_get(merge, (size_t)i));
        }
        return 0;
    }
    const char *text = json_string_value(merge);
    size_t text_n = json_string_length(merge);
    const char *space = text ? memchr(text, ' ', text_n) : NULL;
    if (!space || memchr(space + 1, ' ', text_n - (size_t)(space + 1 - text)))
        return error_set(ERR_FILE, "model: merge %zu is neither \"a b\" nor [\"a\", \"b\"]", rank);
    side[0] = text;
    n[0] = (size_t)(space - text);
    side[1] = space + 1;
    n[1] = text_n - n[0] - 1;
    return 0;
}

static int read_merge(struct bpe *b, const json_t *merge, size_t rank, struct text *joined)
{
    const char *side[2];
    size_t n[2];
    TRY(split_merge(merge, rank, side, n));
    int32_t id[2];
    for (int i = 0; i < 2; i++) {
        id[i] = vocab_find(&b->vocab, side[i], n[i]);
        if (id[i] < 0)
            return error_set(ERR_FILE, "model: \"%.*s\" of merge %zu is not in the vocabulary",
                             (int)(n[i] < 100 ? n[i] : 100), side[i], rank);
    }
    if (n[1] < b->prefix.n)
        return error_set(ERR_FILE, "model: merge %zu is shorter than continuing_subword_prefix",
                         rank);
    text_clear(joined);
    text_add(joined, side[0], n[0]);
    text_add(joined, side[1] + b->prefix.n, n[1] - b->prefix.n);
    int32_t made = vocab_find(&b->vocab, joined->bytes, joined->n);
    if (made < 0)
        return error_set(ERR_FILE, "model: \"%.100s\", made by merge %zu, is not in the vocabulary",
                         joined->bytes, rank);
    put_merge(b, (struct bpe_merge){id[0], id[1], (uint32_t)rank, made});
    bool left_ends = n[0] >= 3 && !memcmp(side[0] + n[0] - 3, SPACE_CHAR, 3);
    bool right_begins = n[1] >= 3 && !memcmp(side[1], SPACE_CHAR, 3);
    if (right_begins && !left_ends)
        b->cut_at_space = false;
    return 0;
}

static int read_merges(struct bpe *b, const json_t *merges)
{
    if (!json_is_array(merges) || json_array_size(merges) > MAX_MERGES)
        return error_set(ERR_FILE, "model: \"merges\" must be an array of at most %d", MAX_MERGES);
    size_t n = json_array_size(merges), slots = 64;
    while (slots < 2 * n)
        slots *= 2;
    b->merge = malloc(slots * sizeof *b->merge);
    CHECK(b->merge, "out of memory for %zu merges", n);
    b->merge_mask = slots - 1;
    for (size_t i = 0; i < slots; i++)
        b->merge[i].left = b->merge[i].right = -1;
    struct text joined = {0};
    int rc = 0;
    for (size_t i = 0, rank = 0; i < n && !rc; i++) {
        const json_t *merge = json_array_get(merges, i);
        const char *line = json_string_value(merge);
        if (line && !strncmp(line, "#version", 8)) /* as Hugging Face reads old files */
            continue;
        rc = read_merge(b, merge, rank++, &joined);
    }
    text_free(&joined);
    return rc;
}

static void find_bytes(struct bpe *b, bool byte_fallback)
{
    b->all_bytes = !b->prefix.n && !b->suffix.n;
    b->all_fallbacks = byte_fallback;
    for (int i = 0; i < 256; i++) {
        char name[16], byte = (char)i;
        struct text mapped = {0};
        byte_level_add(&mapped, &byte, 1);
        b->byte_token[i] = vocab_find(&b->vocab, mapped.bytes, mapped.n);
        text_free(&mapped);
        int n = snprintf(name, sizeof name, "<0x%02X>", (unsigned)i);
        b->byte_fallback[i] = byte_fallback ? vocab_find(&b->vocab, name, (size_t)n) : -1;
        b->all_bytes = b->all_bytes && b->byte_token[i] >= 0;
        b->all_fallbacks = b->all_fallbacks && b->byte_fallback[i] >= 0;
    }
}

static void find_characters(struct bpe *b)
{
    b->character = malloc(TABLE_CHARACTERS * sizeof *b->character);
    CHECK(b->character, "out of memory for a vocabulary");
    for (uint32_t c = 0; c < TABLE_CHARACTERS; c++) {
        char name[4];
        b->character[c] = vocab_find(&b->vocab, name, (size_t)utf8_encode(name, c));
    }
}

static int read_unk(struct bpe *b, const json_t *model)
{
    struct text unk = {0};
    int rc = read_string(&unk, model, "unk_token");
    b->unk = -1;
    if (!rc && unk.n) {
        b->unk = vocab_find(&b->vocab, unk.bytes, unk.n);
        if (b->unk < 0 && !b->all_bytes && !b->all_fallbacks)
            rc = error_set(ERR_FILE, "model: unk_token \"%.100s\" is not in the vocabulary",
                           unk.bytes);
        if (unk.n >= 3 && !memcmp(unk.bytes + unk.n - 3, SPACE_CHAR, 3))
            b->cut_at_space = false;
    }
    text_free(&unk);
    return rc;
}

int bpe_open(struct bpe *b, const json_t *model)
{
    *b = (struct bpe){.unk = -1};
    const json_t *dropout = json_object_get(model, "dropout");
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0)
        return error_set(ERR_FILE, "model: dropout is not supported");
    bool byte_fallback;
    TRY(read_flag(&byte_fallback, model, "byte_fallback"));
    TRY(read_flag(&b->fuse_unk, model, "fuse_unk"));
    TRY(read_flag(&b->ignore_merges, model, "ignore_merges"));
    TRY(read_string(&b->prefix, model, "continuing_subword_prefix"));
    TRY(read_string(&b->suffix, model, "end_of_word_suffix"));
    TRY(vocab_read(&b->vocab, json_object_get(model, "vocab")));
    b->cut_at_space = !b->prefix.n && !b->suffix.n && !b->ignore_merges &&
                      vocab_find(&b->vocab, SPACE_CHAR, 3) >= 0;
    find_bytes(b, byte_fallback);
    find_characters(b);
    TRY(read_unk(b, model));
    return read_merges(b, json_object_get(model, "merges"));
}

void bpe_close(struct bpe *b)
{
    vocab_free(&b->vocab);
    free(b->merge);
    free(b->character);
    text_free(&b->prefix);
    text_free(&b->suffix);
    *b = (struct bpe){0};
}
