/* Each distinct word is kept once, with its count, as a run of tokens in one array. A pair knows its count and the words it
 * was ever seen in; merging a pair visits those words only. A heap orders the pairs; its entries may be out of date and are
 * put back with the true count when they come up, so the pair that is taken is the most frequent one. */
#include "bpe_train.h"

#include "error.h"
#include "file.h"
#include "hash.h"
#include "pretokenize.h"
#include "scan.h"
#include "unicode.h"
#include "vocab.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct word {
    size_t start; /* first token in trainer.token; first byte in trainer.bytes while counting */
    int32_t n;    /* tokens left */
    int64_t count;
};
struct pair {
    int32_t left, right; /* left -1: empty slot */
    int64_t count;
    int32_t *word; /* [n_words], may repeat */
    int32_t n_words, room;
};
struct candidate {
    int64_t count;
    int32_t left, right;
};
struct merge {
    int32_t left, right;
};

struct trainer {
    struct vocab vocab;
    struct word *word; /* [n_words] */
    int32_t n_words, room_words;
    struct text bytes;
    int32_t *slot; /* [n_slots] word or -1, by hash of its bytes */
    size_t n_slots;
    int32_t *token;
    struct pair *pair; /* [n_pair_slots] */
    size_t n_pairs, n_pair_slots;
    struct candidate *heap;
    size_t heap_n, heap_room;
    struct merge *merge;
    int32_t n_merges;
};

static void *grow(void *list, size_t n, size_t *room, size_t size)
{
    if (n < *room)
        return list;
    *room = *room ? 2 * *room : 256;
    list = realloc(list, *room * size);
    CHECK(list, "out of memory for training a tokenizer");
    return list;
}

/* Counting words */

static size_t find_word(const struct trainer *t, const char *bytes, size_t n)
{
    size_t i = hash_bytes(bytes, n, 0) & (t->n_slots - 1);
    while (t->slot[i] >= 0) {
        const struct word *w = &t->word[t->slot[i]];
        if ((size_t)w->n == n && !memcmp(t->bytes.bytes + w->start, bytes, n))
            break;
        i = (i + 1) & (t->n_slots - 1);
    }
    return i;
}

static void grow_slots(struct trainer *t)
{
    t->n_slots = t->n_slots ? 2 * t->n_slots : 4096;
    free(t->slot);
    t->slot = malloc(t->n_slots * sizeof *t->slot);
    CHECK(t->slot, "out of memory for training a tokenizer");
    memset(t->slot, 0xff, t->n_slots * sizeof *t->slot);
    for (int32_t i = 0; i < t->n_words; i++)
        t->slot[find_word(t, t->bytes.bytes + t->word[i].start, (size_t)t->word[i].n)] = i;
}

static int count_word(struct trainer *t, const char *bytes, size_t n)
{
    if (n > INT32_MAX / 2 || t->n_words == INT32_MAX / 2)
        return error_set(ERR_INPUT, "a corpus with a word of %zu bytes, or too many words", n);
    if (2 * ((size_t)t->n_words + 1) > t->n_slots)
        grow_slots(t);
    size_t i = find_word(t, bytes, n);
    if (t->slot[i] < 0) {
        size_t room = (size_t)t->room_words;
        t->word = grow(t->word, (size_t)t->n_words, &room, sizeof *t->word);
        t->room_words = (int32_t)room;
        t->slot[i] = t->n_words;
        t->word[t->n_words++] = (struct word){t->bytes.n, (int32_t)n, 0};
        text_add(&t->bytes, bytes, n);
    }
    t->word[t->slot[i]].count++;
    return 0;
}

static int count_text(struct trainer *t, const struct unicode_classes *u, const char *text,
                      size_t n)
{
    struct text repaired = {0};
    int rc = 0;
    if (utf8_check(text, n) < n) {
        utf8_repair(&repaired, text, n);
        text = repaired.bytes;
        n = repaired.n;
    }
    for (size_t i = 0, end; i < n && !rc; i = end) {
        end = scan_gpt2(u, text, i, n);
        rc = count_word(t, text + i, end - i);
    }
    text_free(&repaired);
    return rc;
}

/* Pairs */

static size_t find_pair_slot(const struct trainer *t, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    key *= UINT64_C(0x9e3779b97f4a7c15); /* 2^64 / golden ratio */
    size_t i = (size_t)(key ^ key >> 32) & (t->n_pair_slots - 1);
    while (t->pair[i].left >= 0 && (t->pair[i].left != left || t->pair[i].right != right))
        i = (i + 1) & (t->n_pair_slots - 1);
    return i;
}

static void grow_pairs(struct trainer *t)
{
    struct pair *old = t->pair;
    size_t n_old = t->n_pair_slots;
    t->n_pair_slots = n_old ? 2 * n_old : 4096;
    t->pair = malloc(t->n_pair_slots * sizeof *t->pair);
    CHECK(t->pair, "out of memory for training a tokenizer");
    for (size_t i = 0; i < t->n_pair_slots; i++)
        t->pair[i] = (struct pair){.left = -1};
    for (size_t i = 0; i < n_old; i++)
        if (old[i].left >= 0)
            t->pair[find_pair_slot(t, old[i].left, old[i].right)] = old[i];
    free(old);
}

static struct pair *find_pair(struct trainer *t, int32_t left, int32_t right)
{
    if (2 * (t->n_pairs + 1) > t->n_pair_slots)
        grow_pairs(t);
    struct pair *p = &t->pair[find_pair_slot(t, left, right)];
    if (p->left < 0) {
        *p = (struct pair){.left = left, .right = right};
        t->n_pairs++;
    }
    return p;
}

static bool before(struct candidate a, struct candidate b)
{
    if (a.count != b.count)
        return a.count > b.count;
    return a.left != b.left ? a.left < b.left : a.right < b.right;
}

static void heap_put(struct trainer *t, struct candidate c)
{
    t->heap = grow(t->heap, t->heap_n, &t->heap_room, sizeof *t->heap);
    size_t i = t->heap_n++;
    while (i && before(c, t->heap[(i - 1) / 2])) {
        t->heap[i] = t->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    t->heap[i] = c;
}

static struct candidate heap_take(struct trainer *t)
{
    struct candidate top = t->heap[0], c = t->heap[--t->heap_n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= t->heap_n)
            break;
        if (child + 1 < t->heap_n && before(t->heap[child + 1], t->heap[child]))
            child++;
        if (!before(t->heap[child], c))
            break;
        t->heap[i] = t->heap[child];
        i = child;
    }
    t->heap[i] = c;
    return top;
}

/* One more or one less of a pair in a word. */
static void change_pair(struct trainer *t, int32_t left, int32_t right, int32_t word, int sign)
{
    struct pair *p = find_pair(t, left, right);
    p->count += sign * t->word[word].count;
    if (sign < 0 || (p->n_words && p->word[p->n_words - 1] == word))
        return;
    size_t room = (size_t)p->room;
    p->word = grow(p->word, (size_t)p->n_words, &room, sizeof *p->word);
    p->room = (int32_t)room;
    p->word[p->n_words++] = word;
}

/* Training */

static void start_words(struct trainer *t)
{
    t->token = malloc((t->bytes.n + 1) * sizeof *t->token);
    CHECK(t->token, "out of memory for training a tokenizer");
    int32_t id[256];
    for (int i = 0; i < 256; i++) {
        char c[4];
        id[i] = vocab_find(&t->vocab, c, (size_t)utf8_encode(c, byte_level_char((unsigned char)i)));
    }
    for (size_t i = 0; i < t->bytes.n; i++)
        t->token[i] = id[(unsigned char)t->bytes.bytes[i]];
    for (int32_t w = 0; w < t->n_words; w++)
        for (int32_t i = 0; i + 1 < t->word[w].n; i++) {
            const int32_t *token = t->token + t->word[w].start + i;
            change_pair(t, token[0], token[1], w, 1);
        }
    for (size_t i = 0; i < t->n_pair_slots; i++)
        if (t->pair[i].left >= 0)
            heap_put(t, (struct candidate){t->pair[i].count, t->pair[i].left, t->pair[i].right});
}

/* Replaces the pair by made in one word, from left to right, and counts what comes and goes. */
static void merge_in_word(struct trainer *t, struct merge m, int32_t made, int32_t w)
{
    struct word *word = &t->word[w];
    int32_t *token = t->token + word->start, n = 0;
    for (int32_t i = 0; i < word->n; i++) {
        if (i + 1 == word->n || token[i] != m.left || token[i + 1] != m.right) {
            token[n++] = token[i];
            continue;
        }
        if (n) {
            change_pair(t, token[n - 1], m.left, w, -1);
            change_pair(t, token[n - 1], made, w, 1);
        }
        if (i + 2 < word->n) {
            change_pair(t, m.right, token[i + 2], w, -1);
            change_pair(t, made, token[i + 2], w, 1);
        }
        token[n++] = made;
        i++;
    }
    word->n = n;
}

/* The id of the token that a merge makes; a new one unless other merges made the same before. */
static int32_t make_token(struct trainer *t, struct merge m)
{
    const struct vocab_entry *left = &t->vocab.entry[m.left], *right = &t->vocab.entry[m.right];
    struct text joined = {0};
    text_add(&joined, left->content, left->n);
    text_add(&joined, right->content, right->n);
    int32_t id = vocab_find(&t->vocab, joined.bytes, joined.n);
    if (id < 0) {
        id = t->vocab.n_ids;
        CHECK(vocab_add(&t->vocab, joined.bytes, joined.n, id) == 0, "%s", error_message());
    }
    text_free(&joined);
    return id;
}

static void merge_pair(struct trainer *t, struct merge m)
{
    int32_t made = make_token(t, m);
    t->merge[t->n_merges++] = m;
    struct pair *p = find_pair(t, m.left, m.right);
    int32_t *word = p->word, n_words = p->n_words;
    p->word = NULL; /* the table may move */
    p->n_words = p->room = 0;
    for (int32_t i = 0; i < n_words; i++)
        merge_in_word(t, m, made, word[i]);
    for (int32_t i = 0; i < n_words; i++) { /* new pairs are those with made in these words */
        const struct word *w = &t->word[word[i]];
        const int32_t *token = t->token + w->start;
        for (int32_t k = 0; k + 1 < w->n; k++)
            if (token[k] == made || token[k + 1] == made) {
                const struct pair *fresh = find_pair(t, token[k], token[k + 1]);
                heap_put(t, (struct candidate){fresh->count, fresh->left, fresh->right});
            }
    }
    free(word);
    find_pair(t, m.left, m.right)->count = 0; /* none is left, also of those that overlapped */
}

static void train(struct trainer *t, int vocab_size)
{
    t->merge = malloc(((size_t)vocab_size + 1) * sizeof *t->merge);
    CHECK(t->merge, "out of memory for training a tokenizer");
    while (t->vocab.n_ids < vocab_size && t->heap_n && t->n_merges < vocab_size) {
        struct candidate c = heap_take(t);
        int64_t count = find_pair(t, c.left, c.right)->count;
        if (count < 1)
            continue;
        if (count != c.count) {
            if (count < c.count)
                heap_put(t, (struct candidate){count, c.left, c.right});
            continue; /* a higher count has its own entry */
        }
        merge_pair(t, (struct merge){c.left, c.right});
    }
}

/* Writing */

static json_t *string_of(const struct vocab *v, int32_t id)
{
    return json_stringn(v->entry[id].content, v->entry[id].n);
}

static json_t *model_json(const struct trainer *t)
{
    json_t *vocab = json_object(), *merges = json_array();
    for (int32_t id = 0; id < t->vocab.n_ids; id++)
        json_object_set_new(vocab, t->vocab.entry[id].content, json_integer(id));
    for (int32_t i = 0; i < t->n_merges; i++)
        json_array_append_new(merges, json_pack("[oo]", string_of(&t->vocab, t->merge[i].left),
                                                string_of(&t->vocab, t->merge[i].right)));
    return json_pack("{ss sn sn sn sn sb sb sb so so}", "type", "BPE", "dropout", "unk_token",
                     "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                     "byte_fallback", 0, "ignore_merges", 0, "vocab", vocab, "merges", merges);
}

static int write_tokenizer(const struct trainer *t, const char *path, int n_special)
{
    json_t *added = json_array();
    for (int32_t id = 0; id < n_special; id++)
        json_array_append_new(added, json_pack("{si so sb sb sb sb sb}", "id", id, "content",
                                               string_of(&t->vocab, id), "single_word", 0, "lstrip",
                                               0, "rstrip", 0, "normalized", 0, "special", 1));
    static const char byte_level[] = "{ss sb sb sb}";
    json_t *root = json_pack("{ss sn sn so sn so so so so}", "version", "1.0", "truncation",
                             "padding", "added_tokens", added, "normalizer", "pre_tokenizer",
                             json_pack(byte_level, "type", "ByteLevel", "add_prefix_space", 0,
                                       "trim_offsets", 1, "use_regex", 1),
                             "post_processor",
                             json_pack(byte_level, "type", "ByteLevel", "add_prefix_space", 0,
                                       "trim_offsets", 0, "use_regex", 1),
                             "decoder",
                             json_pack(byte_level, "type", "ByteLevel", "add_prefix_space", 0,
                                       "trim_offsets", 1, "use_regex", 1),
                             "model", model_json(t));
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    CHECK(text, "a tokenizer could not be written as JSON");
    int rc = file_write_atomic(path, text, strlen(text));
    free(text);
    json_decref(root);
    return rc;
}

static int start_vocab(struct trainer *t, int vocab_size, const char *const *special_tokens,
                       int n_special)
{
    if (n_special < 0 || vocab_size - 256 < n_special || vocab_size > VOCAB_MAX_ID)
        return error_set(ERR_INPUT,
                         "a vocabulary of %d tokens; with %d special ones it must be %d to %d",
                         vocab_size, n_special, n_special + 256, VOCAB_MAX_ID);
    for (int i = 0; i < n_special; i++) {
        size_t n = strlen(special_tokens[i]);
        if (!n || utf8_check(special_tokens[i], n) < n)
            return error_set(ERR_INPUT, "special token %d is empty or no UTF-8", i);
        TRY(vocab_add(&t->vocab, special_tokens[i], n, i));
    }
    for (uint32_t c = 0; c <= 0x143; c++)
        if (byte_level_byte(c) >= 0) {
            char name[4];
            size_t n = (size_t)utf8_encode(name, c);
            if (vocab_find(&t->vocab, name, n) < 0)
                TRY(vocab_add(&t->vocab, name, n, t->vocab.n_ids));
        }
    return 0;
}

static void trainer_free(struct trainer *t)
{
    for (size_t i = 0; i < t->n_pair_slots; i++)
        free(t->pair[i].word);
    vocab_free(&t->vocab);
    text_free(&t->bytes);
    free(t->word);
    free(t->slot);
    free(t->token);
    free(t->pair);
    free(t->heap);
    free(t->merge);
}

int bpe_train(const char *tokenizer_json_path, const char *const *texts, const size_t *lengths,
              int64_t n_texts, int vocab_size, const char *const *special_tokens, int n_special)
{
    struct trainer t = {0};
    struct unicode_classes *u = unicode_classes_open();
    int rc = start_vocab(&t, vocab_size, special_tokens, n_special);
    for (int64_t i = 0; i < n_texts && !rc; i++)
        rc = count_text(&t, u, texts[i], lengths[i]);
    if (!rc) {
        start_words(&t);
        train(&t, vocab_size);
        rc = write_tokenizer(&t, tokenizer_json_path, n_special);
    }
    free(u);
    trainer_free(&t);
    return rc;
}
