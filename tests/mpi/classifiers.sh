# Sourced by the scripts here: the tiny classifiers of tests/reference, given tokenizers for their 61 ids.

# word_pieces WORDS: a tokenizer.json. words: id 17 is the word w17, nothing is put around a text; letters: ids 5 to 60 are
# letters and marks, [CLS] and [SEP] are put around a text.
word_pieces()
{
    awk -v kind="$1" 'BEGIN {
        split("[PAD] [UNK] [CLS] [SEP] [MASK]", special, " ")
        for (i = 0; i < 5; i++) {
            added = added (i ? ", " : "") sprintf("{\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, " \
                "\"rstrip\": false, \"normalized\": false, \"special\": true}", i, special[i + 1])
            vocab = vocab (i ? ", " : "") sprintf("\"%s\": %d", special[i + 1], i)
        }
        for (i = 5; i < 61; i++) {
            letter = substr("abcdefghijklmnopqrstuvwxyz", (i - 5) % 26 + 1, 1)
            piece = kind == "words" ? "w" i : i < 31 ? letter : i < 57 ? "##" letter : substr(".,!?", i - 56, 1)
            vocab = vocab sprintf(", \"%s\": %d", piece, i)
        }
        around = kind == "words" ? "null" : "{\"type\": \"BertProcessing\", \"sep\": [\"[SEP]\", 3], \"cls\": [\"[CLS]\", 2]}"
        printf "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [%s],\n", added
        print "\"normalizer\": {\"type\": \"BertNormalizer\", \"clean_text\": true, \"handle_chinese_chars\": true, \"strip_accents\": null, \"lowercase\": true},"
        printf "\"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"}, \"post_processor\": %s,\n", around
        print "\"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true},"
        print "\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"continuing_subword_prefix\": \"##\", \"max_input_chars_per_word\": 100,"
        printf "\"vocab\": {%s}}}\n", vocab
    }'
}

# classifier NAME KIND: $work/NAME-KIND is the folder of tests/reference/families/NAME with that tokenizer
classifier()
{
    mkdir -p "$work/$1-$2"
    cp "tests/reference/families/$1/config.json" "tests/reference/families/$1/model.safetensors" "$work/$1-$2"
    word_pieces "$2" >"$work/$1-$2/tokenizer.json"
}
