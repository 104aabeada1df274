/* The stages in their order, and what no stage owns: the names of special tokens.
 *
 * Encoding needs scratch and a cache of words, decoding needs scratch. They are kept in a pool, so that the cache stays warm from one text to the
 * next and threads do not wait for each other; what a word encodes to does not depend on the cache. */
#include "tokenizer.h"

#include "added_tokens.h"
#include "bert_vocab.h"
#include "bpe.h"
#include "detokenize.h"
#include "error.h"
#include "file.h"
#include "normalize.h"
#include "postprocess.h"
#include "pretokenize.h"
#include "unicode.h"
#include "wordpiece.h"

#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 256 << 20 };
static const size_t MAX_TEXT_BYTES = (size_t)512 << 20; /* positions in a word are 32-bit */

enum named { BOS, EOS, N_NAMED };

struct work {
    struct work *next;
    struct text repaired;
    struct parts raw_parts, parts;
    struct normalizer_work normalizer;
    struct pretokenizer_work pretokenizer;
    struct bpe_work bpe;
    struct text mapped; /* a word's bytes as characters, for WordPiece */
    struct detokenizer_work detokenizer;
    const struct vocab_entry **entry; /* [room_entries] of the ids to decode */
    size_t room_entries;
};

struct tokenizer {
    struct bpe bpe;
    struct wordpiece wordpiece;
    const struct vocab *vocab; /* of the model the file has, which is one of these two */
    struct added_tokens added;
    struct normalizer normalizer;
    struct pretokenizer pretokenizer;
    struct detokenizer detokenizer;
    struct postprocessor postprocessor;
    int32_t named[N_NAMED];
    struct pool {
        pthread_mutex_t lock;
        struct work *free;
    } * pool;
};

/* Scratch */

static struct work *take_work(const struct tokenizer *t)
{
    pthread_mutex_lock(&t->pool->lock);
    struct work *w = t->pool->free;
    if (w)
        t->pool->free = w->next;
    pthread_mutex_unlock(&t->pool->lock);
    if (!w)
        w = calloc(1, sizeof *w);
    CHECK(w, "out of memory for a tokenizer");
    return w;
}

static void give_work(const struct tokenizer *t, struct work *w)
{
    pthread_mutex_lock(&t->pool->lock);
    w->next = t->pool->free;
    t->pool->free = w;
    pthread_mutex_unlock(&t->pool->lock);
}

static void close_pool(struct pool *pool)
{
    while (pool->free) {
        struct work *w = pool->free;
        pool->free = w->next;
        text_free(&w->repaired);
        free(w->raw_parts.at);
        free(w->parts.at);
        normalizer_work_free(&w->normalizer);
        pretokenizer_work_free(&w->pretokenizer);
        bpe_work_free(&w->bpe);
        text_free(&w->mapped);
        detokenizer_work_free(&w->detokenizer);
        free(w->entry);
        free(w);
    }
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* Encoding */

static void encode_word(const struct tokenizer *t, struct work *w, struct token_list *out, const char *word, size_t n)
{
    const bool byte_level = t->pretokenizer.byte_level;
    if (t->vocab == &t->bpe.vocab) {
        bpe_encode(&t->bpe, &w->bpe, out, word, n, byte_level);
        return;
    }
    if (byte_level) {
        text_clear(&w->mapped);
        byte_level_add(&w->mapped, word, n);
        word = w->mapped.bytes;
        n = w->mapped.n;
    }
    wordpiece_encode(&t->wordpiece, out, word, n);
}

/* Normalized text without added tokens. */
static int encode_words(const struct tokenizer *t, struct work *w, struct token_list *out,
                        const char *text, size_t n, bool at_start)
{
    const struct pretokenizer *p = &t->pretokenizer;
    if (n > INT32_MAX)
        return error_set(ERR_RUN, "a text of %zu bytes in normal form is too long to encode", n);
    if (p->scan) {
        for (size_t i = 0, end; i < n; i = end) {
            end = p->scan(p->classes, text, i, n);
            encode_word(t, w, out, text + i, end - i);
        }
        return 0;
    }
    TRY(pretokenize(p, &w->pretokenizer, text, n, at_start));
    const struct spans *words = &w->pretokenizer.words;
    for (size_t i = 0; i < words->n; i++)
        encode_word(t, w, out, w->pretokenizer.text + words->at[i].start, words->at[i].n);
    return 0;
}

/* Raw text between added tokens. */
static int encode_part(const struct tokenizer *t, struct work *w, struct token_list *out,
                       const char *text, size_t n, bool at_start)
{
    TRY(normalize(&t->normalizer, &w->normalizer, &text, &n));
    added_tokens_split(&t->added, &t->added.normalized, &w->parts, text, n);
    for (size_t i = 0; i < w->parts.n; i++) {
        struct part part = w->parts.at[i];
        if (part.id >= 0)
            token_list_add(out, part.id);
        else
            TRY(encode_words(t, w, out, text + part.start, part.n, at_start && part.start == 0));
    }
    return 0;
}

static int encode_text(const struct tokenizer *t, struct work *w, struct token_list *out,
                       const char *text, size_t n)
{
    if (utf8_check(text, n) < n) {
        text_clear(&w->repaired);
        utf8_repair(&w->repaired, text, n);
        text = w->repaired.bytes;
        n = w->repaired.n;
    }
    added_tokens_split(&t->added, &t->added.raw, &w->raw_parts, text, n);
    for (size_t i = 0; i < w->raw_parts.n; i++) {
        struct part part = w->raw_parts.at[i];
        if (part.id >= 0)
            token_list_add(out, part.id);
        else
            TRY(encode_part(t, w, out, text + part.start, part.n, part.start == 0));
    }
    return 0;
}

/* The text's tokens, as many as there is room for between those of the post-processor. */
static int encode_around(const struct tokenizer *t, struct token_list *out, const char *text, size_t n,
                         const struct postprocessor *around, int64_t room)
{
    if (n > MAX_TEXT_BYTES)
        return error_set(ERR_RUN, "a text of %zu bytes is too long to encode (at most %zu)", n,
                         MAX_TEXT_BYTES);
    struct work *w = take_work(t);
    token_list_add_all(out, &around->before);
    const int64_t start = out->n;
    int rc = encode_text(t, w, out, text, n);
    if (out->n - start > room)
        out->n = start + room;
    token_list_add_all(out, &around->after);
    give_work(t, w);
    return rc;
}

int tokenizer_encode(const struct tokenizer *t, struct token_list *out, const char *text, size_t n,
                     bool add_special)
{
    static const struct postprocessor nothing;
    return encode_around(t, out, text, n, add_special ? &t->postprocessor : &nothing, INT64_MAX);
}

int tokenizer_encode_truncated(const struct tokenizer *t, struct token_list *out, const char *text, size_t n,
                               int64_t max_ids)
{
    const struct postprocessor *around = &t->postprocessor;
    const int64_t room = max_ids - around->before.n - around->after.n;
    if (room < 0)
        return error_set(ERR_INPUT, "a limit of %lld tokens has no room for the %lld special tokens around a text",
                         (long long)max_ids, (long long)(max_ids - room));
    return encode_around(t, out, text, n, around, room);
}

/* Decoding and looking up */

static const struct vocab_entry *find_entry(const struct tokenizer *t, int32_t id)
{
    const struct vocab *both[] = {&t->added.vocab, t->vocab};
    for (int i = 0; i < 2; i++)
        if (id >= 0 && id < both[i]->n_ids && both[i]->entry[id].content)
            return &both[i]->entry[id];
    return NULL;
}

static void reserve_entries(struct work *w, size_t n)
{
    if (n <= w->room_entries)
        return;
    w->room_entries = n > 2 * w->room_entries ? n : 2 * w->room_entries;
    w->entry = realloc(w->entry, w->room_entries * sizeof *w->entry);
    CHECK(w->entry, "out of memory for %zu tokens", w->room_entries);
}

int tokenizer_decode(const struct tokenizer *t, struct text *out, const int32_t *ids, int64_t n,
                     bool skip_special)
{
    struct work *w = take_work(t);
    size_t found = 0;
    reserve_entries(w, (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        w->entry[found] = find_entry(t, ids[i]);
        if (w->entry[found] && !(skip_special && tokenizer_is_special(t, ids[i])))
            found++;
    }
    int rc = detokenize(&t->detokenizer, &w->detokenizer, out, w->entry, found);
    give_work(t, w);
    return rc;
}

size_t tokenizer_text_max(const struct tokenizer *t, int64_t n)
{
    size_t longest = 0;
    for (int32_t id = 0; id < tokenizer_vocab_size(t); id++) {
        const struct vocab_entry *entry = find_entry(t, id);
        if (entry && entry->n > longest)
            longest = entry->n;
    }
    return (size_t)n * (longest + 1) * detokenizer_growth(&t->detokenizer);
}

void tokenizer_reserve(const struct tokenizer *t, int64_t n)
{
    struct work *w = take_work(t);
    reserve_entries(w, (size_t)n);
    detokenizer_work_reserve(&w->detokenizer, (size_t)n, tokenizer_text_max(t, n));
    give_work(t, w);
}

int32_t tokenizer_vocab_size(const struct tokenizer *t)
{
    int32_t model = t->vocab->n_ids, added = t->added.vocab.n_ids;
    return model > added ? model : added;
}

int32_t tokenizer_token_id(const struct tokenizer *t, const char *content)
{
    int32_t id = vocab_find(&t->added.vocab, content, strlen(content));
    return id >= 0 ? id : vocab_find(t->vocab, content, strlen(content));
}

const char *tokenizer_token(const struct tokenizer *t, int32_t id)
{
    const struct vocab_entry *entry = find_entry(t, id);
    return entry ? entry->content : NULL;
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    return added_tokens_special(&t->added, id);
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->named[BOS];
}

int32_t tokenizer_eos(const struct tokenizer *t)
{
    return t->named[EOS];
}

/* Files */

static int load_json(json_t **out, const char *path, size_t flags)
{
    struct file_map map;
    TRY(file_map(&map, path));
    json_error_t error;
    int rc = 0;
    if (map.n > MAX_FILE_BYTES)
        rc = error_set(ERR_FILE, "%s: %zu bytes are too many for this file (at most %d)", path,
                       map.n, MAX_FILE_BYTES);
    else if (!(*out = json_loadb(map.n ? (const char *)map.bytes : "", map.n, flags, &error)))
        rc = error_set(ERR_FILE, "%s:%d: %s", path, error.line, error.text);
    else if (!json_is_object(*out))
        rc = error_set(ERR_FILE, "%s: not a JSON object", path);
    file_unmap(&map);
    return rc;
}

static int read_model(struct tokenizer *t, const json_t *model)
{
    const json_t *type = json_object_get(model, "type");
    const char *name = json_string_value(type);
    if (!json_is_object(model))
        return error_set(ERR_FILE, "\"model\" must be an object");
    if (!type) /* old files */
        name = json_object_get(model, "merges")                     ? "BPE"
               : json_object_get(model, "max_input_chars_per_word") ? "WordPiece"
                                                                    : "unknown";
    if (name && !strcmp(name, "BPE"))
        return bpe_open(&t->bpe, model);
    t->vocab = &t->wordpiece.vocab;
    if (name && !strcmp(name, "WordPiece"))
        return wordpiece_open(&t->wordpiece, model);
    return error_set(ERR_FILE, "model type \"%.60s\" is not supported (BPE, WordPiece are)", name ? name : "");
}

static int read_stages(struct tokenizer *t, const json_t *root)
{
    TRY(read_model(t, json_object_get(root, "model")));
    TRY(normalizer_open(&t->normalizer, json_object_get(root, "normalizer")));
    TRY(pretokenizer_open(&t->pretokenizer, json_object_get(root, "pre_tokenizer")));
    TRY(detokenizer_open(&t->detokenizer, json_object_get(root, "decoder")));
    TRY(added_tokens_open(&t->added, json_object_get(root, "added_tokens"), t->vocab, &t->normalizer));
    return postprocessor_open(&t->postprocessor, json_object_get(root, "post_processor"), t->vocab, &t->added.vocab);
}

static int read_tokenizer(struct tokenizer *t, const char *path)
{
    json_t *root = NULL;
    int rc = load_json(&root, path, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL);
    if (!rc && read_stages(t, root))
        rc = error_context("%s", path);
    json_decref(root);
    return rc;
}

/* tokenizer_config.json and its like; model_max_length overflows integers in many of them. */
static int load_config(json_t **out, const char *path)
{
    return file_exists(path) ? load_json(out, path, JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL) : 0;
}

static int read_vocab_txt(struct tokenizer *t, const char *path, const char *folder)
{
    json_t *root = NULL, *config = NULL;
    char *config_path = file_join(folder, "tokenizer_config.json");
    int rc = load_config(&config, config_path);
    if (!rc)
        rc = bert_vocab_read(&root, path, config);
    if (!rc && read_stages(t, root))
        rc = error_context("%s", path);
    json_decref(config);
    json_decref(root);
    free(config_path);
    return rc;
}

static int read_folder(struct tokenizer *t, const char *folder)
{
    char *json = file_join(folder, "tokenizer.json"), *vocab = file_join(folder, "vocab.txt");
    int rc = !file_exists(json) && file_exists(vocab) ? read_vocab_txt(t, vocab, folder) : read_tokenizer(t, json);
    free(json);
    free(vocab);
    return rc;
}

/* Fills names that are still -1 from {"bos_token": "<s>" or {"content": "<s>"}, ..}. */
static int read_named(struct tokenizer *t, const char *folder, const char *name)
{
    static const char *const keys[N_NAMED] = {"bos_token", "eos_token"};
    char *path = file_join(folder, name);
    json_t *root = NULL;
    int rc = load_config(&root, path);
    for (int i = 0; i < N_NAMED && !rc; i++) {
        const json_t *value = json_object_get(root, keys[i]);
        if (json_is_object(value))
            value = json_object_get(value, "content");
        if (value && !json_is_null(value) && !json_is_string(value))
            rc = error_set(ERR_FILE, "%s: \"%s\" must be a string", path, keys[i]);
        else if (json_is_string(value) && t->named[i] < 0)
            t->named[i] = tokenizer_token_id(t, json_string_value(value));
    }
    json_decref(root);
    free(path);
    return rc;
}

int tokenizer_open(struct tokenizer **out, const char *path)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    CHECK(t, "out of memory for a tokenizer");
    t->pool = calloc(1, sizeof *t->pool);
    CHECK(t->pool, "out of memory for a tokenizer");
    pthread_mutex_init(&t->pool->lock, NULL);
    t->vocab = &t->bpe.vocab;
    for (int i = 0; i < N_NAMED; i++)
        t->named[i] = -1;
    bool folder = file_is_folder(path);
    const char *slash = strrchr(path, '/');
    char *beside = folder  ? strdup(path)
                   : slash ? strndup(path, (size_t)(slash - path) + 1)
                           : strdup(".");
    CHECK(beside, "out of memory for a path");
    int rc = folder ? read_folder(t, path) : read_tokenizer(t, path);
    if (!rc)
        rc = read_named(t, beside, "tokenizer_config.json");
    if (!rc)
        rc = read_named(t, beside, "special_tokens_map.json");
    free(beside);
    if (rc) {
        tokenizer_close(t);
        t = NULL;
    }
    *out = t;
    return rc;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t)
        return;
    bpe_close(&t->bpe);
    wordpiece_close(&t->wordpiece);
    added_tokens_close(&t->added);
    normalizer_close(&t->normalizer);
    pretokenizer_close(&t->pretokenizer);
    detokenizer_close(&t->detokenizer);
    postprocessor_close(&t->postprocessor);
    close_pool(t->pool);
    free(t);
}
