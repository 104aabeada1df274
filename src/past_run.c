/* What a run left in its folder; any of the files may be missing. */
#include "past_run.h"

#include "error.h"
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_settings(struct past_run *r, const char *path)
{
    TRY(file_read(&r->settings_text, path));
    r->has_settings = true;
    if (settings_load(&r->settings, path, text_string(&r->settings_text), r->settings_text.n, NULL, 0) == 0)
        return 0;
    char first[512]; /* of a message with a line for each problem */
    snprintf(first, sizeof first, "%.*s", (int)strcspn(error_message(), "\n"), error_message());
    return error_set(ERR_FILE, "%s", first);
}

int past_run_open(struct past_run *r, const char *folder)
{
    *r = (struct past_run){.folder = folder};
    if (!file_is_folder(folder))
        return error_set(ERR_FILE, "%s: no such folder", folder);
    char *timing = file_join(folder, "timing.json"), *metrics = file_join(folder, "metrics.jsonl");
    char *settings = file_join(folder, "settings.cfg");
    int rc = 0;
    r->finished = file_exists(timing);
    if (!r->finished && !file_exists(metrics))
        rc = error_set(ERR_FILE, "%s: not a run: it has neither timing.json nor metrics.jsonl", folder);
    if (!rc && r->finished)
        rc = timing_file_read(&r->timing, timing);
    if (!rc && file_exists(metrics))
        rc = curves_read(&r->curves, metrics);
    if (!rc && file_exists(settings))
        rc = read_settings(r, settings);
    free(timing);
    free(metrics);
    free(settings);
    return rc;
}

void past_run_close(struct past_run *r)
{
    timing_file_free(&r->timing);
    curves_free(&r->curves);
    if (r->has_settings)
        settings_free(&r->settings);
    text_free(&r->settings_text);
    *r = (struct past_run){0};
}
