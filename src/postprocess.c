/* What a processor adds goes around what those before it added. */
#include "postprocess.h"

#include "error.h"

#include <stdbool.h>
#include <string.h>

enum { MAX_NESTING = 16 };

struct known {
    const struct vocab *model, *added;
};

static bool is_token(const struct known *known, int32_t id)
{
    return (id < known->model->n_ids && known->model->entry[id].content) ||
           (id < known->added->n_ids && known->added->entry[id].content);
}

static int add_checked(const struct known *known, struct token_list *list, const json_t *id)
{
    json_int_t number = json_integer_value(id);
    if (!json_is_integer(id) || number < 0 || number > VOCAB_MAX_ID || !is_token(known, (int32_t)number))
        return error_set(ERR_FILE, "post_processor: an id that is no token's");
    token_list_add(list, (int32_t)json_integer_value(id));
    return 0;
}

/* One piece of a template: a special token's ids go before or after the text, whose place is "Sequence". */
static int read_piece(const struct known *known, const json_t *spec, const json_t *piece, struct token_list *before,
                      struct token_list *after, int *n_texts)
{
    const json_t *special = json_object_get(piece, "SpecialToken");
    if (json_is_object(json_object_get(piece, "Sequence"))) {
        ++*n_texts;
        return 0;
    }
    const char *name = json_string_value(json_object_get(special, "id"));
    if (!name)
        return error_set(ERR_FILE, "post_processor: a piece that is no SpecialToken or Sequence");
    const json_t *ids = json_object_get(json_object_get(json_object_get(spec, "special_tokens"), name), "ids");
    if (!json_is_array(ids))
        return error_set(ERR_FILE, "post_processor: no ids for \"%.100s\" in \"special_tokens\"", name);
    for (size_t i = 0; i < json_array_size(ids); i++)
        TRY(add_checked(known, *n_texts ? after : before, json_array_get(ids, i)));
    return 0;
}

static int read_template(const struct known *known, const json_t *spec, struct token_list *before, struct token_list *after)
{
    const json_t *single = json_object_get(spec, "single");
    int n_texts = 0;
    if (!json_is_array(single))
        return error_set(ERR_FILE, "post_processor: \"single\" must be an array");
    for (size_t i = 0; i < json_array_size(single); i++)
        TRY(read_piece(known, spec, json_array_get(single, i), before, after, &n_texts));
    return n_texts == 1 ? 0 : error_set(ERR_FILE, "post_processor: \"single\" holds %d texts", n_texts);
}

static int read_one(struct postprocessor *p, const struct known *known, const json_t *spec, int nesting);

/* What one processor adds goes around what the ones before it added. */
static int read_processor(struct postprocessor *p, const struct known *known, const json_t *spec, const char *type)
{
    struct token_list before = {0}, after = {0};
    int rc;
    if (!strcmp(type, "TemplateProcessing")) {
        rc = read_template(known, spec, &before, &after);
    } else {
        rc = add_checked(known, &before, json_array_get(json_object_get(spec, "cls"), 1));
        if (!rc)
            rc = add_checked(known, &after, json_array_get(json_object_get(spec, "sep"), 1));
    }
    if (!rc) {
        token_list_add_all(&before, &p->before);
        token_list_add_all(&p->after, &after);
        token_list_free(&p->before);
        p->before = before;
        before = (struct token_list){0};
    }
    token_list_free(&before);
    token_list_free(&after);
    return rc;
}

static int read_processors(struct postprocessor *p, const struct known *known, const json_t *list, int nesting)
{
    if (!json_is_array(list) || nesting == MAX_NESTING)
        return error_set(ERR_FILE, "post_processor: \"processors\" must be an array, nested at most %d deep", MAX_NESTING);
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(read_one(p, known, json_array_get(list, i), nesting + 1));
    return 0;
}

static int read_one(struct postprocessor *p, const struct known *known, const json_t *spec, int nesting)
{
    if (!spec || json_is_null(spec))
        return 0;
    const char *type = json_string_value(json_object_get(spec, "type"));
    if (!type)
        return error_set(ERR_FILE, "post_processor: \"type\" must be a string");
    if (!strcmp(type, "ByteLevel")) /* offsets only */
        return 0;
    if (!strcmp(type, "Sequence"))
        return read_processors(p, known, json_object_get(spec, "processors"), nesting);
    if (!strcmp(type, "TemplateProcessing") || !strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing"))
        return read_processor(p, known, spec, type);
    return error_set(ERR_FILE,
                     "post_processor type \"%.60s\" is not supported (ByteLevel, "
                     "TemplateProcessing, RobertaProcessing, BertProcessing, Sequence are)",
                     type);
}

int postprocessor_open(struct postprocessor *p, const json_t *spec, const struct vocab *model, const struct vocab *added)
{
    *p = (struct postprocessor){0};
    return read_one(p, &(struct known){model, added}, spec, 0);
}

void postprocessor_close(struct postprocessor *p)
{
    token_list_free(&p->before);
    token_list_free(&p->after);
}
