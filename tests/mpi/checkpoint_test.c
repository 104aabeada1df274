/* mpi/checkpoint.c on any number of ranks. Usage: checkpoint_test MODE FOLDER [STEP]; state is a function of the step. */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include "checkpoint.h"
#include "comm_internal.h"
#include "expect.h"
#include "file.h"
#include "log.h"
#include "manifest.h"
#include "text.h"

enum { N_LARGE = 5003, N_ITEMS = 8, DENSE = 400 };

struct state {
    float a[N_LARGE], b[3];
    int64_t moments[N_LARGE], step;
    double kl_coef;
    char input[64];
    struct checkpoint_item items[N_ITEMS];
};

static void state_init(struct state *s, int64_t step)
{
    memset(s, 0, sizeof *s);
    for (int i = 0; i < N_LARGE; i++) {
        s->a[i] = (float)i / 7 + (float)step;
        s->moments[i] = (int64_t)i * 1000003 - step;
    }
    for (int i = 0; i < 3; i++)
        s->b[i] = (float)(i - step);
    s->step = step;
    s->kl_coef = 0.2 / (double)(step + 1);
    snprintf(s->input, sizeof s->input, "seed = %lld;", (long long)step);
    struct checkpoint_item items[N_ITEMS] = {
        {"adapters/layer.0/a", CHECKPOINT_F32, N_LARGE, s->a, true},
        {"adapters/layer.0/b", CHECKPOINT_F32, 3, s->b, true},
        {"moments", CHECKPOINT_I64, N_LARGE, s->moments, true},
        {"none", CHECKPOINT_F32, 0, NULL, true},
        {"nothing", CHECKPOINT_BYTES, 0, NULL, false},
        {"kl_coef", CHECKPOINT_F64, 1, &s->kl_coef, false},
        {"step", CHECKPOINT_I64, 1, &s->step, false},
        {"input.cfg", CHECKPOINT_BYTES, (int64_t)strlen(s->input), s->input, false},
    };
    memcpy(s->items, items, sizeof items);
}

static int write_adapter(void *context, const char *folder)
{
    (void)context;
    char *inner = file_join(folder, "adapter"), *path = file_join(inner, "adapter_config.json");
    int rc = file_make_folders(inner);
    if (rc == 0)
        rc = file_write_atomic(path, "{\"r\": 16}\n", 10);
    free(path);
    free(inner);
    return rc;
}

static int fail_extra(void *context, const char *folder)
{
    (void)write_adapter(context, folder);
    return error_set(ERR_FILE, "adapter: no room");
}

static int die(void *context, const char *folder)
{
    (void)write_adapter(context, folder);
    raise(SIGKILL);
    return 0;
}

static int count_entries(const char *folder, const char *part)
{
    DIR *d = opendir(folder);
    int n = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        n += strstr(e->d_name, part) != NULL;
    if (d)
        closedir(d);
    return n;
}

static void write_step(struct comm *c, const char *folder, int64_t step)
{
    struct state s;
    state_init(&s, step);
    EXPECT(checkpoint_write(c, folder, step, s.items, N_ITEMS, write_adapter, NULL) == 0);
}

/* The newest valid checkpoint is of this step and holds what state_init gives. */
static void expect_newest(struct comm *c, const char *folder, int64_t step)
{
    struct text path = {0}, input = {0};
    int64_t found = 77;
    EXPECT(checkpoint_find_newest(c, folder, &found, &path) == 0);
    EXPECT(found == step);
    EXPECT((path.n == 0) == (step < 0));
    if (step >= 0) {
        struct state got, want;
        state_init(&want, step);
        state_init(&got, step + 1000); /* other values, the same items */
        got.items[N_ITEMS - 1].n = want.items[N_ITEMS - 1].n;
        memset(got.input, 0, sizeof got.input);
        EXPECT(checkpoint_read(c, path.bytes, got.items, N_ITEMS) == 0);
        EXPECT(!memcmp(got.a, want.a, sizeof got.a) && !memcmp(got.b, want.b, sizeof got.b));
        EXPECT(!memcmp(got.moments, want.moments, sizeof got.moments));
        EXPECT(got.step == step && got.kl_coef == want.kl_coef && !strcmp(got.input, want.input));
        EXPECT(checkpoint_read_bytes(c, path.bytes, "input.cfg", &input) == 0);
        EXPECT(!strcmp(text_string(&input), want.input));
        EXPECT(checkpoint_read_bytes(c, path.bytes, "nothing", &input) == 0 && input.n == 0);
    }
    text_free(&path);
    text_free(&input);
}

/* -- refusals ------------------------------------------------------------------------------------- */

static void test_read_of_other_items(struct comm *c, const char *folder)
{
    struct text path = {0};
    int64_t step;
    EXPECT(checkpoint_find_newest(c, folder, &step, &path) == 0 && step >= 0);
    struct state s;
    state_init(&s, step);
    struct {
        struct checkpoint_item item;
        const char *message;
    } cases[] = {
        {{"missing", CHECKPOINT_F32, 1, s.a, true}, "state.h5: missing: cannot find this array"},
        {{"adapters", CHECKPOINT_F32, 1, s.a, true}, "state.h5: adapters: cannot find this array"},
        {{"moments", CHECKPOINT_F64, N_LARGE, s.moments, true}, "moments: is not of type float64"},
        {{"kl_coef", CHECKPOINT_F32, 1, s.b, false}, "kl_coef: is not of type float32"},
        {{"moments", CHECKPOINT_I64, N_LARGE - 1, s.moments, true},
         "has 5003 elements, 5002 are needed"},
        {{"none", CHECKPOINT_F32, 1, s.a, true}, "none: has 0 elements, 1 are needed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        error_clear();
        EXPECT(checkpoint_read(c, path.bytes, &cases[i].item, 1) == -1);
        EXPECT(strstr(error_message(), cases[i].message) && error_kind() == ERR_FILE);
        EXPECT(!strncmp(error_message(), path.bytes,
                        path.n)); /* all ranks say the same: no rank is named */
    }
    struct text out = {0};
    EXPECT(checkpoint_read_bytes(c, path.bytes, "kl_coef", &out) == -1);
    EXPECT(checkpoint_read_bytes(c, path.bytes, "missing", &out) == -1);
    text_free(&out);
    text_free(&path);
}

static void test_write_that_fails(struct comm *c, const char *folder)
{
    struct state s;
    state_init(&s, 50);
    int size = comm_size(c), last = comm_rank(c) == size - 1;
    EXPECT(checkpoint_write(c, folder, 50, s.items, N_ITEMS, fail_extra, NULL) == -1);
    EXPECT(strstr(error_message(), "checkpoint of step 50: ") &&
           strstr(error_message(), "adapter: no room"));
    EXPECT(count_entries(folder, "checkpoint-50") == 0);

    if (size > 1) { /* copies that differ */
        if (last)
            s.moments[4000]++;
        EXPECT(checkpoint_write(c, folder, 50, s.items, N_ITEMS, NULL, NULL) == -1);
        EXPECT(strstr(error_message(), "checkpoint: moments is not the same on all ranks"));
        if (last)
            s.moments[4000]--;
    }

    struct checkpoint_item twice[2] = {s.items[0], s.items[0]};
    EXPECT(checkpoint_write(c, folder, 50, twice, 2, NULL, NULL) == -1);
    EXPECT(strstr(error_message(), "adapters/layer.0/a: cannot create this array"));
    EXPECT(count_entries(folder, "checkpoint-50") == 0);

    comm_barrier(c); /* the disk is full for the last rank alone */
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit usual, small;
    getrlimit(RLIMIT_FSIZE, &usual);
    small = usual;
    small.rlim_cur = 8192;
    if (last)
        setrlimit(RLIMIT_FSIZE, &small);
    EXPECT(checkpoint_write(c, folder, 50, s.items, N_ITEMS, write_adapter, NULL) == -1);
    EXPECT(strstr(error_message(), "cannot write") || strstr(error_message(), "cannot create"));
    EXPECT(error_kind() == ERR_FILE);
    setrlimit(RLIMIT_FSIZE, &usual);
    comm_barrier(c);
    EXPECT(count_entries(folder, "checkpoint-50") == 0);

    struct text file = {0}; /* a folder that cannot be made */
    text_format(&file, "%s/file", folder);
    if (comm_rank(c) == 0)
        EXPECT(file_write_atomic(file.bytes, "", 0) == 0);
    EXPECT(checkpoint_write(c, file.bytes, 50, s.items, N_ITEMS, NULL, NULL) == -1);
    EXPECT(strstr(error_message(), file.bytes));
    comm_barrier(c);
    if (comm_rank(c) == 0)
        unlink(file.bytes);
    text_free(&file);
    comm_barrier(c);
}

static void test_prune(struct comm *c, const char *folder)
{
    for (int step = 60; step <= 64; step++)
        write_step(c, folder, step);
    comm_barrier(c);
    if (comm_rank(c) == 0) { /* 63 and 64 are damaged; a killed run left its temporary folder */
        char path[4096];
        for (int step = 63; step <= 64; step++) {
            snprintf(path, sizeof path, "%s/checkpoint-%d/state.h5", folder, step);
            EXPECT(truncate(path, 1000) == 0);
        }
        snprintf(path, sizeof path, "%s/.tmp-checkpoint-65", folder);
        EXPECT(mkdir(path, 0777) == 0);
    }
    comm_barrier(c);
    expect_newest(c, folder, 62);
    EXPECT(checkpoint_prune(c, folder, 3) == 0);
    EXPECT(count_entries(folder, "checkpoint-") == 3 && count_entries(folder, ".tmp") == 0);
    expect_newest(c, folder, 62);
    EXPECT(checkpoint_prune(c, folder, 1) == 0);
    EXPECT(count_entries(folder, "checkpoint-") == 1);
    expect_newest(c, folder, 62);
    EXPECT(checkpoint_prune(c, folder, 0) == 0 && count_entries(folder, "checkpoint-") == 1);
    struct state s; /* the same step again, with other contents, takes its place */
    state_init(&s, 62);
    s.kl_coef = 9;
    EXPECT(checkpoint_write(c, folder, 62, s.items, N_ITEMS, NULL, NULL) == 0);
    s.kl_coef = 0;
    struct text path = {0};
    text_format(&path, "%s/checkpoint-62", folder);
    EXPECT(checkpoint_read(c, path.bytes, s.items, N_ITEMS) == 0 && s.kl_coef == 9);
    EXPECT(count_entries(folder, "checkpoint-") == 1);
    text_free(&path);
}

/* -- damage (one rank) ---------------------------------------------------------------------------- */

/* Bytes of the newest checkpoint's files are flipped in turn, all of the first DENSE and some of each later region: the
 * older one must be found each time.
 */
static void damage_file(struct comm *c, const char *folder, int64_t newest, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/checkpoint-%lld/%s", folder, (long long)newest, name);
    struct text bytes = {0}, found = {0};
    EXPECT(file_read(&bytes, path) == 0);
    FILE *f = fopen(path, "r+b");
    EXPECT(f);
    setvbuf(f, NULL, _IONBF, 0);
    int64_t step, n_passed = 0;
    for (size_t i = 0; i < bytes.n; i += i < DENSE ? 1 : 97) {
        int flip = 1 << (i % 8);
        fseek(f, (long)i, SEEK_SET);
        fputc((unsigned char)bytes.bytes[i] ^ flip, f);
        EXPECT(checkpoint_find_newest(c, folder, &step, &found) == 0);
        EXPECT(step == newest || step == newest - 1);
        n_passed += step == newest;
        fseek(f, (long)i, SEEK_SET);
        fputc((unsigned char)bytes.bytes[i], f);
    }
    EXPECT(n_passed == 0);
    EXPECT(fclose(f) == 0);
    for (size_t n = 0; n < bytes.n; n += bytes.n / 9 + 1) { /* cut off */
        EXPECT(truncate(path, (off_t)n) == 0);
        EXPECT(checkpoint_find_newest(c, folder, &step, &found) == 0 && step == newest - 1);
    }
    EXPECT(unlink(path) == 0);
    EXPECT(checkpoint_find_newest(c, folder, &step, &found) == 0 && step == newest - 1);
    EXPECT(mkdir(path, 0777) == 0);
    EXPECT(checkpoint_find_newest(c, folder, &step, &found) == 0 && step == newest - 1);
    EXPECT(rmdir(path) == 0);
    EXPECT(file_write_atomic(path, bytes.bytes, bytes.n) == 0);
    EXPECT(checkpoint_find_newest(c, folder, &step, &found) == 0 && step == newest);
    text_free(&bytes);
    text_free(&found);
}

/* Manifests that lie, over files that are what they are. */
static void test_bad_manifests(struct comm *c, const char *folder)
{
    static const struct {
        const char *manifest, *message;
    } cases[] = {
        {"", "MANIFEST.json:1: "},
        {"[]", "needs a version, a step and files"},
        {"{\"version\": 1, \"step\": 9}", "needs a version, a step and files"},
        {"{\"version\": 2, \"step\": 9, \"files\": []}", "version 2; this program reads version 1"},
        {"{\"version\": 1, \"step\": 9, \"files\": []}", "does not list state.h5"},
        {"{\"version\": 1, \"step\": 9, \"files\": [7]}", "files[0]: needs a name"},
        {"{\"version\": 1, \"step\": 9, \"files\": [{\"name\": \"/etc/passwd\", \"size\": 1, "
         "\"xxh64\": \"\"}]}",
         "files[0]: bad file name"},
        {"{\"version\": 1, \"step\": 9, \"files\": [{\"name\": \"a/../../b\", \"size\": 1, "
         "\"xxh64\": \"\"}]}",
         "files[0]: bad file name"},
        {"{\"version\": 1, \"step\": 9, \"files\": [{\"name\": \"\", \"size\": 1, \"xxh64\": "
         "\"\"}]}",
         "files[0]: bad file name"},
        {"{\"version\": 1, \"step\": 9, \"files\": [{\"name\": \"state.h5\", \"size\": -1, "
         "\"xxh64\": \"\"}]}",
         "files[0]: needs a name"},
        {"{\"version\": 1, \"step\": 9, \"files\": [{\"name\": \"state.h5\", \"size\": 7, "
         "\"xxh64\": \"\"}]}",
         "its manifest says 7"},
    };
    char state[4096], manifest[4096], path[4000];
    snprintf(path, sizeof path, "%s/bad/checkpoint-9", folder);
    snprintf(state, sizeof state, "%s/state.h5", path);
    snprintf(manifest, sizeof manifest, "%s/MANIFEST.json", path);
    EXPECT(file_make_folders(path) == 0 && file_write_atomic(state, "not HDF5", 8) == 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        EXPECT(file_write_atomic(manifest, cases[i].manifest, strlen(cases[i].manifest)) == 0);
        EXPECT(manifest_check(path, 9) == -1 && strstr(error_message(), cases[i].message));
    }
    struct state s; /* an honest manifest of a file that is not HDF5 */
    state_init(&s, 9);
    EXPECT(manifest_write(path, 9) == 0 && manifest_check(path, 9) == 0 &&
           manifest_check(path, 8) == -1);
    EXPECT(checkpoint_read(c, path, s.items, N_ITEMS) == -1);
    EXPECT(strstr(error_message(), "state.h5: cannot open as HDF5"));
    snprintf(path, sizeof path, "%s/bad", folder);
    EXPECT(file_remove_tree(path) == 0);
}

static void test_damage(struct comm *c, const char *folder)
{
    int64_t step;
    struct text path = {0};
    EXPECT(checkpoint_find_newest(c, folder, &step, &path) == 0 && step < 0 &&
           path.n == 0); /* no folder */
    write_step(c, folder, 7);
    write_step(c, folder, 8);
    damage_file(c, folder, 8, "MANIFEST.json");
    damage_file(c, folder, 8, "adapter/adapter_config.json");
    damage_file(c, folder, 8, "state.h5");
    test_bad_manifests(c, folder);
    text_free(&path);
}

/* Writes step after step until a timer kills the last rank. */
static void write_until_killed(struct comm *c, const char *folder, int64_t msec)
{
    if (comm_rank(c) == comm_size(c) - 1)
        setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {msec / 1000, msec % 1000 * 1000}},
                  NULL);
    for (int64_t step = 0;; step++)
        write_step(c, folder, step);
}

int main(int argc, char **argv)
{
    struct comm *c;
    if (comm_open(&c, &argc, &argv) != 0 || argc < 3)
        return 99;
    const char *mode = argv[1], *folder = argv[2];
    int64_t step = argc > 3 ? atoll(argv[3]) : -1;
    c->chunk_bytes = 4096; /* several pieces a slab */
    struct state s;
    state_init(&s, step);
    if (!strcmp(mode, "write"))
        write_step(c, folder, step);
    else if (!strcmp(mode, "read"))
        expect_newest(c, folder, step);
    else if (!strcmp(mode, "refuse")) {
        test_read_of_other_items(c, folder);
        test_write_that_fails(c, folder);
        test_prune(c, folder);
    } else if (!strcmp(mode, "damage"))
        test_damage(c, folder);
    else if (!strcmp(mode, "die"))
        checkpoint_write(c, folder, step, s.items, N_ITEMS, die, NULL);
    else if (!strcmp(mode, "until-killed"))
        write_until_killed(c, folder, step);
    else if (!strcmp(mode, "newest")) {
        struct text path = {0};
        EXPECT(checkpoint_find_newest(c, folder, &step, &path) == 0);
        expect_newest(c, folder, step);
        if (comm_rank(c) == 0)
            printf("%lld\n", (long long)step);
        text_free(&path);
    } else
        return 99;
    comm_close(c);
    return 0;
}
