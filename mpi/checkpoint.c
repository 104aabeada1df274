/* The life of a checkpoint: a temporary folder, state.h5, extra files, MANIFEST, a name.
 *
 * What is hard about it: whatever happens, and on whichever rank, a reader sees the old checkpoints and perhaps the new
 * one, whole. Each step that one rank does alone ends in comm_agree; the rename comes last, after everything is on disk.
 */
#include "checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "comm.h"
#include "error.h"
#include "file.h"
#include "hash.h"
#include "log.h"
#include "manifest.h"
#include "state_file.h"
#include "text.h"

static const char PREFIX[] = "checkpoint-", TEMPORARY[] = ".tmp-checkpoint-",
                  OLD[] = ".old-checkpoint-";

static char *step_path(const char *folder, const char *prefix, int64_t step)
{
    char name[64];
    snprintf(name, sizeof name, "%s%" PRId64, prefix, step);
    return file_join(folder, name);
}

/* -- writing -------------------------------------------------------------------------------------- */

static uint64_t hash_item(const struct checkpoint_item *item)
{
    static const size_t width[] = {1, 4, 8, 8};
    return hash_bytes(item->data, (size_t)item->n * width[item->type], (uint64_t)item->n);
}

/* The ranks' copies of the arrays are equal: together first, one by one only to name the one that is not. */
static int compare_ranks(struct comm *c, const struct checkpoint_item *items, int n)
{
    TRY(comm_hash_equal(c, (uint64_t)n, "checkpoint: the number of arrays"));
    struct hash h;
    hash_begin(&h, 0);
    for (int i = 0; i < n; i++) {
        uint64_t one = hash_item(&items[i]);
        hash_add(&h, items[i].name, strlen(items[i].name));
        hash_add(&h, &one, sizeof one);
    }
    if (comm_hash_equal(c, hash_end(&h), "the list of arrays of the checkpoint") == 0)
        return 0;
    for (int i = 0; i < n; i++) {
        char what[256];
        snprintf(what, sizeof what, "checkpoint: %s", items[i].name);
        TRY(comm_hash_equal(c, hash_item(&items[i]), what));
    }
    return -1; /* the names differ: the first message stands */
}

static int begin_folder(const char *folder, const char *temporary)
{
    TRY(file_make_folders(folder));
    TRY(file_remove_tree(temporary));
    if (mkdir(temporary, 0777) != 0)
        return error_set(ERR_FILE, "%s: cannot create the folder: %s", temporary, strerror(errno));
    return 0;
}

struct writing {
    struct comm *c;
    bool leads; /* rank 0: does what one rank does alone */
    const char *temporary, *state;
    const struct checkpoint_item *items;
    int n;
};

static int write_files(const struct writing *w, int64_t step,
                       int (*write_extra)(void *context, const char *folder), void *context)
{
    TRY(comm_agree(w->c, w->leads ? state_file_create(w->c, w->state, w->items, w->n) : 0));
    TRY(state_file_fill(w->c, w->state, w->items, w->n));
    TRY(state_file_verify(w->c, w->state, w->items, w->n));
    TRY(comm_agree(w->c, w->leads && write_extra ? write_extra(context, w->temporary) : 0));
    return comm_agree(w->c, w->leads ? manifest_write(w->temporary, step) : 0);
}

int checkpoint_write(struct comm *c, const char *folder, int64_t step,
                     const struct checkpoint_item *items, int n,
                     int (*write_extra)(void *context, const char *folder), void *context)
{
    CHECK(step >= 0, "checkpoint of step %lld", (long long)step);
    TRY(compare_ranks(c, items, n));
    char *temporary = step_path(folder, TEMPORARY, step), *path = step_path(folder, PREFIX, step),
         *old = step_path(folder, OLD, step), *state = file_join(temporary, "state.h5");
    struct writing w = {c, comm_rank(c) == 0, temporary, state, items, n};
    int rc = comm_agree(c, w.leads ? begin_folder(folder, temporary) : 0);
    if (rc == 0)
        rc = write_files(&w, step, write_extra, context);
    if (rc == 0)
        rc = comm_agree(c, w.leads ? file_publish(folder, temporary, path, old) : 0);
    if (rc != 0) {
        error_context("checkpoint of step %lld", (long long)step);
        char *message = strdup(error_message()); /* the cause outlives a clean-up that fails too */
        CHECK(message, "out of memory");
        enum error kind = error_kind();
        if (w.leads)
            file_remove_tree(temporary);
        comm_barrier(c); /* gone, whichever rank looks */
        error_set(kind, "%s", message);
        free(message);
    }
    free(state);
    free(old);
    free(path);
    free(temporary);
    return rc;
}

/* -- what is there -------------------------------------------------------------------------------- */

/* "checkpoint-<step>" as checkpoint_write spells it, or -1. */
static int64_t step_of(const char *name)
{
    size_t n = strlen(PREFIX);
    if (strncmp(name, PREFIX, n) != 0)
        return -1;
    const char *digits = name + n;
    size_t k = strspn(digits, "0123456789");
    if (k == 0 || k > 18 || digits[k] || (digits[0] == '0' && k > 1))
        return -1;
    return strtoll(digits, NULL, 10);
}

static int compare_steps(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* The steps of the checkpoints of a folder, ascending, valid or not; the caller frees. No folder: none. */
static int list_steps(int64_t **steps, int *n, const char *folder)
{
    *steps = NULL;
    *n = 0;
    DIR *d = opendir(folder);
    if (!d && errno == ENOENT)
        return 0;
    if (!d)
        return error_set(ERR_FILE, "%s: cannot read the folder: %s", folder, strerror(errno));
    for (struct dirent *e; (e = readdir(d));) {
        int64_t step = step_of(e->d_name);
        if (step < 0)
            continue;
        *steps = realloc(*steps, (size_t)(*n + 1) * sizeof **steps);
        CHECK(*steps, "out of memory");
        (*steps)[(*n)++] = step;
    }
    closedir(d);
    if (*n)
        qsort(*steps, (size_t)*n, sizeof **steps, compare_steps);
    return 0;
}

/* Index of the newest valid of the steps, -1 for none; warns of the invalid ones passed. */
static int newest_valid(const char *folder, const int64_t *steps, int n)
{
    for (int i = n - 1; i >= 0; i--) {
        char *path = step_path(folder, PREFIX, steps[i]);
        int rc = manifest_check(path, steps[i]);
        if (rc != 0)
            log_warn("%s: not a valid checkpoint, skipped: %s", path, error_message());
        free(path);
        if (rc == 0)
            return i;
    }
    return -1;
}

int checkpoint_find_newest(struct comm *c, const char *folder, int64_t *step, struct text *path)
{
    text_clear(path);
    *step = -1;
    int rc = 0;
    if (comm_rank(c) == 0) {
        int64_t *steps;
        int n;
        rc = list_steps(&steps, &n, folder);
        int i = rc == 0 ? newest_valid(folder, steps, n) : -1;
        if (i >= 0) {
            *step = steps[i];
            char *name = step_path(folder, PREFIX, *step);
            text_add_string(path, name);
            free(name);
        }
        free(steps);
        if (rc == 0)
            error_clear();
    }
    TRY(comm_agree(c, rc));
    comm_broadcast(c, step, sizeof *step, 0);
    comm_broadcast_text(c, path);
    return 0;
}

/* -- reading -------------------------------------------------------------------------------------- */

int checkpoint_read(struct comm *c, const char *path, const struct checkpoint_item *items, int n)
{
    TRY(comm_agree(c, comm_rank(c) == 0 ? manifest_check(path, -1) : 0));
    char *state = file_join(path, "state.h5");
    int rc = state_file_read(c, state, items, n);
    free(state);
    return rc;
}

int checkpoint_read_bytes(struct comm *c, const char *path, const char *name, struct text *out)
{
    int rc = 0;
    if (comm_rank(c) == 0) {
        char *state = file_join(path, "state.h5");
        rc = manifest_check(path, -1);
        if (rc == 0)
            rc = state_file_read_bytes(state, name, out);
        free(state);
    }
    TRY(comm_agree(c, rc));
    comm_broadcast_text(c, out);
    return 0;
}

/* -- removing ------------------------------------------------------------------------------------- */

/* Away from its name first: a checkpoint that is half removed is not seen as one. */
static int remove_step(const char *folder, int64_t step)
{
    char *path = step_path(folder, PREFIX, step), *old = step_path(folder, OLD, step);
    int rc = file_remove_tree(old);
    if (rc == 0 && rename(path, old) != 0)
        rc = error_set(ERR_FILE, "%s: cannot rename: %s", path, strerror(errno));
    if (rc == 0)
        rc = file_sync_folder(folder);
    if (rc == 0)
        rc = file_remove_tree(old);
    free(old);
    free(path);
    return rc;
}

static int is_left_over(const struct dirent *e)
{
    return !strncmp(e->d_name, TEMPORARY, strlen(TEMPORARY)) ||
           !strncmp(e->d_name, OLD, strlen(OLD));
}

static int remove_left_overs(const char *folder)
{
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, is_left_over, NULL), rc = 0;
    for (int i = 0; i < n; i++) {
        char *path = file_join(folder, entries[i]->d_name);
        if (rc == 0)
            rc = file_remove_tree(path);
        free(path);
        free(entries[i]);
    }
    free(entries);
    return rc;
}

static int prune(const char *folder, int keep)
{
    int64_t *steps;
    int n;
    TRY(list_steps(&steps, &n, folder));
    int rc = remove_left_overs(folder);
    if (rc == 0 && keep > 0 && n > keep) {
        int newest = newest_valid(folder, steps, n), left = n;
        for (int i = 0; i < n && left > keep && rc == 0; i++) {
            if (i == newest)
                continue;
            rc = remove_step(folder, steps[i]);
            left--;
        }
    }
    free(steps);
    return rc;
}

int checkpoint_prune(struct comm *c, const char *folder, int keep)
{
    return comm_agree(c, comm_rank(c) == 0 ? prune(folder, keep) : 0);
}

void checkpoint_describe_library(struct text *out)
{
    state_file_describe_library(out);
}
