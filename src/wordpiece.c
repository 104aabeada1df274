/* Two tries give the longest token in one walk; a token and a word are both valid UTF-8, so a match ends between characters. */
#include "wordpiece.h"

#include "error.h"

#include <string.h>

static int64_t count_characters(const char *word, size_t n)
{
    int64_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)word[i] & 0xc0) != 0x80;
    return count;
}

void wordpiece_encode(const struct wordpiece *w, struct token_list *out, const char *word, size_t n)
{
    const int64_t before = out->n;
    size_t done = count_characters(word, n) > w->max_characters ? n : 0;
    while (done < n) {
        int32_t id;
        size_t length = trie_longest(done ? &w->rest : &w->first, word + done, n - done, &id);
        if (!length)
            break;
        token_list_add(out, id);
        done += length;
    }
    if (done < n || out->n == before) {
        out->n = before;
        token_list_add(out, w->unk);
    }
}

static int read_string(const char **out, size_t *n, const json_t *model, const char *key)
{
    const json_t *value = json_object_get(model, key);
    *out = json_string_value(value);
    *n = json_string_length(value);
    return *out ? 0 : error_set(ERR_FILE, "model: \"%s\" must be a string", key);
}

int wordpiece_open(struct wordpiece *w, const json_t *model)
{
    *w = (struct wordpiece){.unk = -1};
    const char *unk, *prefix;
    size_t unk_n, prefix_n;
    TRY(read_string(&unk, &unk_n, model, "unk_token"));
    TRY(read_string(&prefix, &prefix_n, model, "continuing_subword_prefix"));
    const json_t *limit = json_object_get(model, "max_input_chars_per_word");
    w->max_characters = json_integer_value(limit);
    if (!json_is_integer(limit) || w->max_characters < 0)
        return error_set(ERR_FILE, "model: \"max_input_chars_per_word\" must be a count");
    TRY(vocab_read(&w->vocab, json_object_get(model, "vocab")));
    w->unk = vocab_find(&w->vocab, unk, unk_n);
    if (w->unk < 0)
        return error_set(ERR_FILE, "model: unk_token \"%.100s\" is not in the vocabulary", unk);
    for (int32_t id = 0; id < w->vocab.n_ids; id++) {
        const struct vocab_entry *e = &w->vocab.entry[id];
        if (!e->content)
            continue;
        trie_add(&w->first, e->content, e->n, id);
        if (e->n >= prefix_n && !memcmp(e->content, prefix, prefix_n))
            trie_add(&w->rest, e->content + prefix_n, e->n - prefix_n, id);
    }
    return 0;
}

void wordpiece_close(struct wordpiece *w)
{
    vocab_free(&w->vocab);
    trie_free(&w->first);
    trie_free(&w->rest);
    *w = (struct wordpiece){0};
}
