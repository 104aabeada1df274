/* make-corpus: writes the made-up film reviews that the embedded model is trained on, and prompts from their beginnings.
 *
 *   make-corpus reviews SEED FIRST N > corpus.jsonl             {"text": .., "label": 0 or 1} a line
 *   make-corpus prompts SEED FIRST N > prompts.jsonl            {"prompt": first 3 to 5 words} a line
 *   make-corpus completions SEED FIRST N > completions.jsonl    {"prompt": .., "completion": the rest}, of positive reviews
 *
 * Built by jobs/make-tiny.sh; not installed.
 */
#include "corpus.h"
#include "error.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reviews hold neither quotes nor backslashes: the text is a JSON string as it is. */
static void print_review(const struct text *review, int label)
{
    printf("{\"text\": \"%s\", \"label\": %d}\n", text_string(review), label);
}

/* Bytes of its first 3 to 5 words. */
static int prompt_length(const struct text *review, long long index)
{
    const char *end = text_string(review);
    for (long long words = 3 + index % 3; words > 0; words--)
        end += strcspn(end, " ") + (words > 1);
    return (int)(end - text_string(review));
}

static void print_prompt(const struct text *review, int n)
{
    printf("{\"prompt\": \"%.*s\"}\n", n, text_string(review));
}

static void print_completion(const struct text *review, int n)
{
    printf("{\"prompt\": \"%.*s\", \"completion\": \"%s\"}\n", n, text_string(review), text_string(review) + n);
}

static bool is_form(const char *name)
{
    return !strcmp(name, "reviews") || !strcmp(name, "prompts") || !strcmp(name, "completions");
}

int main(int argc, char **argv)
{
    if (argc != 5 || !is_form(argv[1])) {
        fprintf(stderr, "usage: make-corpus reviews|prompts|completions SEED FIRST N\n");
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
        else if (argv[1][0] == 'p')
            print_prompt(&review, prompt_length(&review, i));
        else if (label == 1)
            print_completion(&review, prompt_length(&review, i));
    }
    text_free(&review);
    return 0;
}
