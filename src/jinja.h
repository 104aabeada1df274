/* Chat templates: the part of Jinja that they use, with the semantics of transformers' environment.
 *
 * transformers renders a template in an ImmutableSandboxedEnvironment with trim_blocks, lstrip_blocks, loop controls, the tag
 * {% generation %}, its own tojson (json.dumps, keys in their order, nothing escaped), raise_exception and strftime_now
 * (transformers/utils/chat_template_utils.py). Here as there:
 *
 *   tags         if elif else, for .. if .. else, break, continue, set (names, namespace fields, blocks), macro, raw, generation
 *   expressions  literals, names, . [] [a:b:c], calls with keywords, filters, tests, if else, and or not, comparisons, in,
 *                + - * / // % ** ~
 *   the rest     is in the tables of jinja_filter.c, jinja_test.c, jinja_method.c and jinja_function.c
 *
 * What is not there (include, import, extends, call, recursive loops, ..) is refused by name and line. Templates come with
 * models, so they are bounded: nesting, work, memory.
 */
#ifndef RLHF_SRC_JINJA_H
#define RLHF_SRC_JINJA_H

#include "text.h"

#include <jansson.h>
#include <time.h>

struct jinja;

/* Parses source[n]; name is for messages. Both are copied. Errors: NULL (ERR_FILE): "name:line: ..". */
struct jinja *jinja_parse(const char *name, const char *source, size_t n);
void jinja_free(struct jinja *j); /* takes NULL */

/* Appends the rendering of the template with an object's fields as its variables; now: what strftime_now tells, in local time.
 * A template does not change once parsed: any number of threads may render one.
 * Errors: ERR_FILE, "name:line: ..", also for what the template raises ("..: the template refuses: <its message>"); text may
 * then have been appended. */
int jinja_render(const struct jinja *j, struct text *out, const json_t *variables, time_t now);

#endif
