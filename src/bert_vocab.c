/* The stages are BERT's own; the special tokens have the names that its authors gave them. */
#include "bert_vocab.h"

#include "error.h"
#include "file.h"

#include <stdbool.h>
#include <string.h>

static int read_lines(json_t *vocab, const char *path)
{
    struct text file = {0};
    TRY(file_read(&file, path));
    int rc = 0;
    json_int_t id = 0;
    for (char *line = file.bytes, *end = line + file.n, *next; line < end && !rc; line = next) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        next = stop ? stop + 1 : end;
        stop = stop ? stop : end;
        if (stop > line && stop[-1] == '\r')
            stop--;
        *stop = 0; /* file.bytes has a NUL behind the last */
        if (strlen(line) != (size_t)(stop - line) || json_object_set_new(vocab, line, json_integer(id)) != 0)
            rc = error_set(ERR_FILE, "%s:%lld: holds bytes that are no UTF-8", path, (long long)id + 1);
        id++;
    }
    text_free(&file);
    return rc;
}

static json_t *added_token(const char *content, json_int_t id)
{
    return json_pack("{sI ss sb sb}", "id", id, "content", content, "special", true, "normalized", false);
}

int bert_vocab_read(json_t **root, const char *path, const json_t *config)
{
    static const char *const special[] = {"[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"};
    json_int_t id[5];
    json_t *vocab = json_object(), *added = json_array();
    int rc = read_lines(vocab, path);
    for (int i = 0; i < 5 && !rc; i++) {
        const json_t *known = json_object_get(vocab, special[i]);
        id[i] = json_integer_value(known);
        json_array_append_new(added, added_token(special[i], id[i]));
        if (!known)
            rc = error_set(ERR_FILE, "%s: has no line \"%s\", as a BERT's has: write a tokenizer.json", path, special[i]);
    }
    if (rc) {
        json_decref(vocab);
        json_decref(added);
        return rc;
    }
    json_t *accents = json_object_get(config, "strip_accents");
    const bool lowercase = !json_is_false(json_object_get(config, "do_lower_case"));
    const bool ideographs = !json_is_false(json_object_get(config, "tokenize_chinese_chars"));
    *root = json_pack("{so s{ss sb sb sO? sb} s{ss} s{ss s[sI] s[sI]} s{ss ss sb} s{ss ss ss si so}}", "added_tokens", added, //
                      "normalizer", "type", "BertNormalizer", "clean_text", true, "handle_chinese_chars", ideographs,         //
                      "strip_accents", accents, "lowercase", lowercase,                                                       //
                      "pre_tokenizer", "type", "BertPreTokenizer",                                                            //
                      "post_processor", "type", "BertProcessing", "sep", "[SEP]", id[1], "cls", "[CLS]", id[3],               //
                      "decoder", "type", "WordPiece", "prefix", "##", "cleanup", true,                                        //
                      "model", "type", "WordPiece", "unk_token", "[UNK]", "continuing_subword_prefix", "##",                  //
                      "max_input_chars_per_word", 100, "vocab", vocab);
    CHECK(*root, "a tokenizer that is no JSON");
    return 0;
}
