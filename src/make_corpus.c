/* make-corpus: writes the made-up film reviews that the embedded model is trained on, and prompts from their beginnings.
 *
 *   make-corpus reviews SEED FIRST N > corpus.jsonl    {"text": .., "label": 0 or 1} a line
 *   make-corpus prompts SEED FIRST N > prompts.jsonl   {"prompt": first 3 to 5 words} a line
 *
 * Built by jobs/make-tiny.sh; not installed.
 */
#include "corpus.h"
#include "error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reviews hold neither quotes nor backslashes: the text is a JSON string as it is. */
static void print_review(const struct text *review, int label)
{
    printf("{\"text\": \"%s\", \"label\": %d}\n", text_string(review), label);
}

static void print_prompt(const struct text *review, long long index)
{
    const char *end = text_string(review);
    for (long long words = 3 + index % 3; words > 0; words--)
        end += strcspn(end, " ") + (words > 1);
    printf("{\"prompt\": \"%.*s\"}\n", (int)(end - text_string(review)), text_string(review));
}

int main(int argc, char **argv)
{
    if (argc != 5 || (strcmp(argv[1], "reviews") && strcmp(argv[1], "prompts"))) {
        fprintf(stderr, "usage: make-corpus reviews|prompts SEED FIRST N\n");
        return 2;
    }
    long long seed = atoll(argv[2]), first = atoll(argv[3]), n = atoll(argv[4]);
    struct text review = {0};
    for (long long i = first; i < first + n; i++) {
        int label;
        if (corpus_review(&review, &label, (uint64_t)seed, i) != 0) {
            fprintf(stderr, "make-corpus: %s\n", error_message());
            return 1;
        }
        if (argv[1][0] == 'r')
            print_review(&review, label);
        else
            print_prompt(&review, i);
    }
    text_free(&review);
    return 0;
}
