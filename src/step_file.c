/* Cutting back and appending; the whole file is read once, at the start. */
#include "step_file.h"

#include "error.h"
#include "file.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* The "step" of one line. */
static int step_of(int64_t *step, const char *line, size_t n, const char *path, int64_t number)
{
    json_error_t why;
    json_t *object = json_loadb(line, n, 0, &why);
    const json_t *value = json_object_get(object, "step");
    const bool good = json_is_integer(value);
    if (good)
        *step = json_integer_value(value);
    json_decref(object);
    return good ? 0
                : error_set(ERR_FILE, "%s:%lld: not an object with an integer \"step\"%s%s", path,
                            (long long)number, object ? "" : ": ", object ? "" : why.text);
}

/* The lines of the run so far, out of those in the file. */
static int keep_until(struct text *kept, const struct text *all, const char *path,
                      int64_t last_step)
{
    size_t at = 0;
    for (int64_t number = 1; at < all->n; number++) {
        const char *line = all->bytes + at, *end = memchr(line, '\n', all->n - at);
        if (!end)
            break; /* cut short by a crash */
        const size_t n = (size_t)(end - line) + 1;
        int64_t step = 0;
        TRY(step_of(&step, line, n - 1, path, number));
        if (step <= last_step)
            text_add(kept, line, n);
        at += n;
    }
    return 0;
}

int step_file_open(struct step_file *f, const char *path, int64_t last_step, bool writes)
{
    struct text all = {0}, kept = {0};
    int rc = 0;
    *f = (struct step_file){0};
    if (!writes)
        return 0;
    if (file_exists(path) && last_step > 0) {
        rc = file_read(&all, path);
        if (rc == 0)
            rc = keep_until(&kept, &all, path, last_step);
    }
    if (rc == 0)
        rc = file_write_atomic(path, text_string(&kept), kept.n);
    text_free(&all);
    text_free(&kept);
    TRY(rc);
    f->file = fopen(path, "a");
    if (!f->file)
        return error_set(ERR_FILE, "%s: %s", path, strerror(errno));
    f->path = strdup(path);
    CHECK(f->path, "out of memory");
    return 0;
}

int step_file_write(struct step_file *f, const struct text *lines)
{
    if (!f->file)
        return 0;
    const bool good = fwrite(text_string(lines), 1, lines->n, f->file) == lines->n && fflush(f->file) == 0;
    return good ? 0 : error_set(ERR_FILE, "%s: %s", f->path, strerror(errno));
}

void step_file_close(struct step_file *f)
{
    if (f->file)
        fclose(f->file);
    free(f->path);
    text_free(&f->lines);
    *f = (struct step_file){0};
}
