/* Statements at work: scopes, loops, macros.
 *
 * A loop's pass, a macro's call and a {% generation %} open a scope; what is set in it ends with it, and names are looked up
 * from the inside out. A macro sees the scope that it stands in, at the time of the call.
 */
#include "error.h"
#include "jinja_tree.h"

#include <string.h>

/* ---- scopes ---- */

const struct jinja_value *jinja_scope_find(const struct jinja_scope *s, const char *name)
{
    for (; s; s = s->outer)
        for (const struct jinja_variable *v = s->first; v; v = v->next)
            if (!strcmp(v->name, name))
                return &v->value;
    return NULL;
}

static int scope_open(struct jinja_run *r, struct jinja_scope **out, const struct jinja_scope *outer)
{
    TRY(jinja_take(r, out, sizeof **out));
    (*out)->outer = outer;
    return 0;
}

int jinja_scope_set(struct jinja_run *r, struct jinja_scope *s, const char *name, struct jinja_value v)
{
    for (struct jinja_variable *at = s->first; at; at = at->next)
        if (!strcmp(at->name, name)) {
            at->value = v;
            return 0;
        }
    struct jinja_variable *new;
    TRY(jinja_take(r, &new, sizeof *new));
    *new = (struct jinja_variable){name, v, s->first};
    s->first = new;
    return 0;
}

static int set_field(struct jinja_run *r, const struct jinja_scope *s, const struct jinja_node *target, struct jinja_value v)
{
    const struct jinja_value *space = jinja_scope_find(s, target->name);
    if (!space || space->kind != JINJA_NAMESPACE)
        return jinja_fail(r, "{%% set %s.%s %%}: %s is no namespace", target->name, target->attribute, target->name);
    if (target->attribute[0] == '_')
        return jinja_fail(r, "a field of a namespace may not begin with _: %s", target->attribute);
    return jinja_dict_set(r, space->dict, jinja_borrow(target->attribute, strlen(target->attribute)), v);
}

static int assign(struct jinja_run *r, struct jinja_scope *s, const struct jinja_node *target, const struct jinja_value *v)
{
    if (!target->items)
        return target->attribute ? set_field(r, s, target, *v) : jinja_scope_set(r, s, target->name, *v);
    struct jinja_list *items;
    size_t i = 0;
    TRY(jinja_items(r, &items, v));
    for (const struct jinja_node *part = target->items; part; part = part->next, i++) {
        if (i >= items->n)
            return jinja_fail(r, "%zu values for more names than that", items->n);
        TRY(assign(r, s, part, &items->item[i]));
    }
    return i == items->n ? 0 : jinja_fail(r, "%zu values for %zu names", items->n, i);
}

/* ---- loops ---- */

/* The items that the loop's condition keeps. */
static int filter_items(struct jinja_run *r, struct jinja_list **items, const struct jinja_node *n, const struct jinja_scope *s)
{
    struct jinja_value kept, truth;
    struct jinja_scope *inner;
    if (!n->b)
        return 0;
    TRY(jinja_list_new(r, &kept, JINJA_LIST, 0));
    for (size_t i = 0; i < (*items)->n; i++) {
        TRY(scope_open(r, &inner, s));
        TRY(assign(r, inner, n->items, &(*items)->item[i]));
        TRY(jinja_eval(r, &truth, n->b, inner));
        if (jinja_truth(&truth))
            TRY(jinja_list_add(r, kept.list, (*items)->item[i]));
    }
    *items = kept.list;
    return 0;
}

static int run_for(struct jinja_run *r, struct text *out, const struct jinja_node *n, struct jinja_scope *s, enum jinja_flow *flow)
{
    struct jinja_value over;
    struct jinja_list *items;
    struct jinja_loop *loop;
    TRY(jinja_eval(r, &over, n->a, s));
    r->line = n->line;
    TRY(jinja_items(r, &items, &over));
    TRY(filter_items(r, &items, n, s));
    TRY(jinja_take(r, &loop, sizeof *loop));
    loop->items = items;
    for (; loop->index0 < items->n; loop->index0++) {
        struct jinja_scope *inner;
        enum jinja_flow ended;
        TRY(jinja_work(r, 1));
        TRY(scope_open(r, &inner, s));
        TRY(jinja_scope_set(r, inner, "loop", (struct jinja_value){.kind = JINJA_LOOP, .loop = loop}));
        TRY(assign(r, inner, n->items, &items->item[loop->index0]));
        TRY(jinja_run_body(r, out, n->body, inner, &ended));
        if (ended == FLOW_BREAK)
            break;
    }
    return items->n ? 0 : jinja_run_body(r, out, n->other, s, flow);
}

/* ---- macros ---- */

static int run_macro(struct jinja_run *r, const struct jinja_node *n, struct jinja_scope *s)
{
    struct jinja_macro *macro;
    TRY(jinja_take(r, &macro, sizeof *macro));
    *macro = (struct jinja_macro){n, s};
    return jinja_scope_set(r, s, n->name, (struct jinja_value){.kind = JINJA_MACRO, .macro = macro});
}

/* The i-th parameter's argument; *at = a->n: there is none. */
static void find_argument(size_t *at, const struct jinja_args *a, const char *name, size_t i)
{
    *at = i < a->n && !a->keyword[i] ? i : a->n;
    for (size_t k = 0; k < a->n; k++)
        if (a->keyword[k] && !strcmp(a->keyword[k], name))
            *at = k;
}

static int bind_arguments(struct jinja_run *r, struct jinja_scope *s, const struct jinja_macro *m, const struct jinja_args *a)
{
    size_t i = 0, used = 0, at;
    for (const struct jinja_node *p = m->node->items; p; p = p->next, i++) {
        struct jinja_value v = jinja_undefined(p->name);
        find_argument(&at, a, p->name, i);
        used += at < a->n;
        if (at < a->n)
            v = a->value[at];
        else if (p->a)
            TRY(jinja_eval(r, &v, p->a, s));
        TRY(jinja_scope_set(r, s, p->name, v));
    }
    return used == a->n ? 0 : jinja_fail(r, "the macro %s has no parameters for %zu of the arguments", m->node->name, a->n - used);
}

/* The text of a body, as a value. */
static int body_text(struct jinja_run *r, struct jinja_value *out, const struct jinja_node *body, struct jinja_scope *s)
{
    struct text text = {0};
    enum jinja_flow flow;
    int rc = jinja_run_body(r, &text, body, s, &flow);
    if (!rc)
        rc = jinja_string(r, out, text_string(&text), text.n);
    text_free(&text);
    return rc;
}

int jinja_call_macro(struct jinja_run *r, struct jinja_value *out, const struct jinja_macro *m, const struct jinja_args *a)
{
    struct jinja_scope *s;
    TRY(jinja_enter(r));
    TRY(scope_open(r, &s, m->scope));
    TRY(bind_arguments(r, s, m, a));
    TRY(body_text(r, out, m->node->body, s));
    jinja_leave(r);
    return 0;
}

/* ---- the others ---- */

static int run_if(struct jinja_run *r, struct text *out, const struct jinja_node *n, struct jinja_scope *s, enum jinja_flow *flow)
{
    struct jinja_value truth;
    TRY(jinja_eval(r, &truth, n->a, s));
    return jinja_run_body(r, out, jinja_truth(&truth) ? n->body : n->other, s, flow);
}

static int run_set(struct jinja_run *r, const struct jinja_node *n, struct jinja_scope *s)
{
    struct jinja_value v;
    if (n->kind == NODE_SET) {
        TRY(jinja_eval(r, &v, n->a, s));
    } else {
        struct jinja_scope *inner;
        TRY(scope_open(r, &inner, s));
        TRY(body_text(r, &v, n->body, inner));
    }
    r->line = n->line;
    return assign(r, s, n->items, &v);
}

static int run_output(struct jinja_run *r, struct text *out, const struct jinja_node *n, struct jinja_scope *s)
{
    struct jinja_value v;
    TRY(jinja_eval(r, &v, n->a, s));
    return jinja_str(r, out, &v);
}

static int run_scope(struct jinja_run *r, struct text *out, const struct jinja_node *n, struct jinja_scope *s)
{
    struct jinja_scope *inner;
    enum jinja_flow flow;
    TRY(scope_open(r, &inner, s));
    return jinja_run_body(r, out, n->body, inner, &flow);
}

static int run_statement(struct jinja_run *r, struct text *out, const struct jinja_node *n, struct jinja_scope *s,
                         enum jinja_flow *flow)
{
    switch (n->kind) {
    case NODE_TEXT:
        return jinja_put(r, out, n->value.text.bytes, n->value.text.n);
    case NODE_OUTPUT:
        return run_output(r, out, n, s);
    case NODE_IF:
        return run_if(r, out, n, s, flow);
    case NODE_FOR:
        return run_for(r, out, n, s, flow);
    case NODE_MACRO:
        return run_macro(r, n, s);
    case NODE_SCOPE:
        return run_scope(r, out, n, s);
    case NODE_BREAK:
        *flow = FLOW_BREAK;
        return 0;
    case NODE_CONTINUE:
        *flow = FLOW_CONTINUE;
        return 0;
    default:
        return run_set(r, n, s);
    }
}

int jinja_run_body(struct jinja_run *r, struct text *out, const struct jinja_node *body, struct jinja_scope *s,
                   enum jinja_flow *flow)
{
    *flow = FLOW_ON;
    TRY(jinja_enter(r));
    for (const struct jinja_node *n = body; n && *flow == FLOW_ON; n = n->next) {
        TRY(jinja_work(r, 1));
        r->line = n->line;
        TRY(run_statement(r, out, n, s, flow));
    }
    jinja_leave(r);
    return 0;
}
