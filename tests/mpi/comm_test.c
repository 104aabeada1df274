/* mpi/comm.c, mpi/records.c, mpi/watchdog.c, mpi/placement.c on any number of ranks. Usage: comm_test MODE [FILE] */
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm_internal.h"
#include "expect.h"
#include "hash.h"
#include "placement.h"
#include "records.h"
#include "text.h"
#include "watchdog.h"

/* -- what holds on any number of ranks ------------------------------------------------------------ */

static void test_ranks(struct comm *c)
{
    EXPECT(comm_size(c) >= 1 && comm_rank(c) >= 0 && comm_rank(c) < comm_size(c));
    EXPECT(comm_nodes(c) == 1);
    EXPECT(comm_node_rank(c) == comm_rank(c) && comm_node_size(c) == comm_size(c));
}

static void test_agree_when_all_succeed(struct comm *c)
{
    error_clear();
    EXPECT(comm_agree(c, 0) == 0);
    EXPECT(!strcmp(error_message(), "") && error_kind() == ERR_NONE);
}

static void test_agree_when_one_fails(struct comm *c)
{
    for (int bad = 0; bad < comm_size(c); bad++) {
        error_clear();
        int rc = comm_rank(c) == bad ? error_set(ERR_FILE, "a.txt: line %d is bad", bad) : 0;
        EXPECT(comm_agree(c, rc) == -1);
        char want[64];
        snprintf(want, sizeof want, "rank %d: a.txt: line %d is bad", bad, bad);
        EXPECT(!strcmp(error_message(), comm_size(c) == 1 ? "a.txt: line 0 is bad" : want));
        EXPECT(error_kind() == ERR_FILE);
    }
}

static void test_agree_when_several_fail(struct comm *c)
{
    error_clear(); /* all but rank 0, differently: the lowest speaks, the smallest rc returns */
    int rank = comm_rank(c), size = comm_size(c);
    int rc = rank > 0 ? error_set(rank == 1 ? ERR_STOP : ERR_RUN, "cause %d", rank) - rank : 0;
    EXPECT(comm_agree(c, rc) == (size > 1 ? -size : 0));
    if (size > 1)
        EXPECT(!strcmp(error_message(), "rank 1: cause 1") && error_kind() == ERR_STOP);
    error_set(ERR_INPUT, "input.cfg:3: the same everywhere");
    EXPECT(comm_agree(c, -1) == -1);
    EXPECT(!strcmp(error_message(), "input.cfg:3: the same everywhere") &&
           error_kind() == ERR_INPUT);
    EXPECT(comm_agree(c, -1) == -1); /* agreed once more by a caller: no second prefix */
    EXPECT(!strcmp(error_message(), "input.cfg:3: the same everywhere"));
}

static void test_agree_with_the_longest_message(struct comm *c)
{
    static char long_text[20000];
    memset(long_text, 'x', sizeof long_text - 1);
    EXPECT(comm_agree(c, comm_rank(c) == comm_size(c) - 1 ? error_set(ERR_RUN, "%s", long_text)
                                                          : 0) == -1);
    EXPECT(strlen(error_message()) == 16383);
}

static void test_hash_equal(struct comm *c)
{
    EXPECT(comm_hash_equal(c, 42, "weights") == 0);
    int size = comm_size(c);
    if (size == 1)
        return;
    uint64_t hash = comm_rank(c) == size - 1 ? 43 : 42;
    EXPECT(comm_hash_equal(c, hash, "weights") == -1);
    char want[128];
    snprintf(want, sizeof want, "weights is not the same on all ranks: rank %d differs from rank 0",
             size - 1);
    EXPECT(!strcmp(error_message(), want) && error_kind() == ERR_RUN);
    EXPECT(comm_hash_equal(c, comm_rank(c) == 0 ? 1 : 2, "weights") == -1);
    if (size == 4)
        EXPECT(strstr(error_message(), "ranks 1, 2, 3 differ from rank 0"));
    const char *input = comm_rank(c) == 1 ? "seed = 2" : "seed = 1";
    EXPECT(comm_same_input(c, "seed = 1", 8, "input.cfg") == 0);
    EXPECT(comm_same_input(c, input, 8, "input.cfg") == -1);
    EXPECT(strstr(error_message(), "input.cfg") && error_kind() == ERR_INPUT);
}

static void test_broadcast(struct comm *c)
{
    unsigned char bytes[1000];
    for (int root = 0; root < comm_size(c); root++) {
        memset(bytes, 0, sizeof bytes);
        for (int i = 0; i < 1000 && comm_rank(c) == root; i++)
            bytes[i] = (unsigned char)(i * 7 + root);
        comm_broadcast(c, bytes, sizeof bytes, root);
        for (int i = 0; i < 1000; i++)
            EXPECT(bytes[i] == (unsigned char)(i * 7 + root));
    }
    comm_broadcast(c, NULL, 0, 0);
    struct text t = {0};
    for (int n = 0; n < 10000; n = 3 * n + 1) {
        text_clear(&t);
        text_add_string(&t, "old");
        if (comm_rank(c) == 0) {
            text_clear(&t);
            for (int i = 0; i < n; i++)
                text_add(&t, i % 5 ? "a" : "", 1);
        }
        comm_broadcast_text(c, &t);
        EXPECT(t.n == (size_t)n);
        for (int i = 0; i < n; i++)
            EXPECT(t.bytes[i] == (i % 5 ? 'a' : 0));
    }
    text_free(&t);
}

/* Record k has k % 41 bytes of value k. Keys are dealt to ranks round robin, last first. */
static void test_gather(struct comm *c, int64_t n)
{
    struct record_list local = {0}, all = {0}, before = {0};
    for (int again = 0; again < 2; again++) {
        before = all;
        records_clear(&local);
        for (int64_t k = n - 1; k >= 0; k--)
            if (k % comm_size(c) == comm_rank(c))
                memset(records_extend(&local, k * k, (size_t)(k % 41)), (int)k, (size_t)(k % 41));
        comm_gather_records(c, &all, &local);
        EXPECT(all.n == n);
        for (int64_t k = 0; k < n; k++) {
            EXPECT(all.records[k].key == k * k && all.records[k].n == (size_t)(k % 41));
            const unsigned char *bytes = records_bytes(&all, k);
            EXPECT((uintptr_t)bytes % 8 == 0);
            for (int64_t i = 0; i < k % 41; i++)
                EXPECT(bytes[i] == (unsigned char)k);
        }
    }
    EXPECT(all.records == before.records && all.bytes == before.bytes); /* the same room */
    records_clear(&local); /* all on the last rank */
    for (int64_t k = 0; k < n && comm_rank(c) == comm_size(c) - 1; k++)
        records_add(&local, -k, &k, sizeof k);
    comm_gather_records(c, &all, &local);
    EXPECT(all.n == n);
    for (int64_t k = 0; k < n; k++)
        EXPECT(all.records[k].key == k - n + 1 &&
               *(const int64_t *)records_bytes(&all, k) == n - 1 - k);
    records_free(&local);
    records_free(&all);
    records_free(&all);
}

static void test_sums(struct comm *c)
{
    enum { N = 1000 };
    int64_t a[N], b[3], size = comm_size(c), rank = comm_rank(c);
    for (int i = 0; i < N; i++)
        a[i] = ((int64_t)1 << 55) / (i + 1) * (i % 2 ? -1 : 1) + rank;
    for (int i = 0; i < 3; i++)
        b[i] = rank * 10 + i;
    comm_sum_i64_start(c, a, N);
    comm_sum_i64_start(c, b, 3);
    comm_sum_i64_start(c, NULL, 0);
    comm_sum_i64_finish(c);
    for (int i = 0; i < N; i++)
        EXPECT(a[i] ==
               size * (((int64_t)1 << 55) / (i + 1) * (i % 2 ? -1 : 1)) + size * (size - 1) / 2);
    for (int i = 0; i < 3; i++)
        EXPECT(b[i] == 10 * size * (size - 1) / 2 + i * size);
    comm_sum_i64_finish(c); /* nothing started */
    EXPECT(comm_max_flag(c, (int)rank) == size - 1 && comm_max_flag(c, -3) == -3);
}

static void test_timing(struct comm *c)
{
    double values[2] = {comm_rank(c), 5}, min[2], mean[2], max[2];
    comm_timing_min_mean_max(c, min, mean, max, values, 2);
    EXPECT(min[0] == 0 && max[0] == comm_size(c) - 1 && mean[0] == (comm_size(c) - 1) / 2.0);
    EXPECT(min[1] == 5 && mean[1] == 5 && max[1] == 5);
}

static void test_node_shared(struct comm *c)
{
    void *empty = c, *small, *p;
    EXPECT(comm_node_shared(c, &empty, 0) == 0 && !empty);
    EXPECT(comm_node_shared(c, &small, 1) == 0 && comm_node_shared(c, &p, 3 << 20) == 0);
    int64_t *words = p, n = (3 << 20) / 8;
    EXPECT(words[0] == 0 && words[n - 1] == 0);
    comm_node_barrier(c); /* that was a look at the zeros: nobody writes yet */
    for (int64_t i = 0; i < n && comm_node_rank(c) == 0; i++)
        words[i] = i * 3;
    comm_node_barrier(c);
    for (int64_t i = 0; i < n; i++)
        EXPECT(words[i] == i * 3);
    comm_barrier(c);
    EXPECT(comm_node_shared(c, &p, (size_t)1 << 60) == -1 && !p); /* refused, not a SIGBUS later */
    EXPECT(strstr(error_message(), "memory shared by the ranks of a node") &&
           error_kind() == ERR_SYSTEM);
}

static void test_placement(struct comm *c)
{
    struct text t = {0};
    EXPECT(placement_threads(c, 7, &t) == 7 && strstr(t.bytes, "7 threads a rank (as set: "));
    text_clear(&t);
    cpu_set_t set;
    EXPECT(sched_getaffinity(0, sizeof set, &set) == 0);
    int threads = placement_threads(c, 0, &t), cpus = CPU_COUNT(&set);
    EXPECT(threads >= 1 && threads <= (cpus > 1 ? cpus : 1));
    EXPECT(strstr(t.bytes, "automatic"));
    if (comm_size(c) == 1)
        EXPECT(threads == cpus);
    CPU_ZERO(&set); /* all ranks on CPU 0, if it may be used: one thread each */
    CPU_SET(0, &set);
    if (comm_max_flag(c, sched_setaffinity(0, sizeof set, &set) != 0) == 0)
        EXPECT(placement_threads(c, 0, NULL) == 1);
    text_free(&t);
}

/* Devices are what they say they are: neither the host's name nor a number tells them apart. */
static void test_devices(struct comm *c)
{
    unsigned char own[PLACE_DEVICE_BYTES] = {0xab, 0xcd, 1, (unsigned char)comm_rank(c)};
    const int size = comm_size(c), rank = comm_rank(c);
    struct place *all = placement_gather(c, "cuda", own);
    struct text t = {0};
    for (int r = 0; r < size; r++)
        EXPECT(all[r].has_device && all[r].leader == 0 && all[r].device[3] == r && !strcmp(all[r].host, all[0].host));
    EXPECT(placement_check(all, size, false) == 0 && placement_sharing(all, size, rank) == 1);
    placement_describe(&t, all, size, 0);
    EXPECT(strstr(t.bytes, size == 4 ? ": rank 0 GPU-abcd0100, 1 GPU-abcd0101, 2 GPU-abcd0102, 3 GPU-abcd0103"
                                     : ": rank 0 GPU-abcd0100"));
    free(all);

    own[3] = (unsigned char)(rank / 2); /* in pairs */
    all = placement_gather(c, "cuda", own);
    EXPECT(placement_sharing(all, size, rank) == (size > 1 ? 2 : 1) && placement_check(all, size, true) == 0);
    EXPECT(placement_check(all, size, false) == (size > 1 ? -1 : 0));
    if (size > 1)
        EXPECT(error_kind() == ERR_INPUT && !strncmp(error_message(), "ranks 0, 1 on ", 14) &&
               strstr(error_message(), "GPU-abcd0100") && strstr(error_message(), "run.share_device"));
    free(all);

    all = placement_gather(c, "cpu", NULL); /* the host is shared by all */
    EXPECT(placement_check(all, size, false) == 0 && placement_sharing(all, size, rank) == 1);
    free(all);
    all = placement_gather(c, rank == size - 1 && rank > 0 ? "cpu" : "cuda", NULL);
    EXPECT(placement_check(all, size, true) == (size > 1 ? -1 : 0));
    if (size > 1)
        EXPECT(strstr(error_message(), "run.device"));
    free(all);
    text_free(&t);
}

static void test_watchdog_when_fed(struct comm *c)
{
    struct progress progress = {0};
    struct watchdog *w;
    EXPECT(watchdog_open(&w, c, &progress, 0) == 0 && !w);
    watchdog_close(w);
    EXPECT(watchdog_open(&w, c, &progress, 1.5) == 0 && w);
    for (int i = 0; i < 9; i++) {
        progress_tick(&progress);
        usleep(200000);
    }
    watchdog_close(w);
    EXPECT(watchdog_open(&w, c, &progress, 1000) == 0 && w); /* closes at once, not after a tick */
    watchdog_close(w);
}

/* Who waits for a rank that works for longer than the limit is left alone; the one that works ticks. */
static void test_watchdog_while_waiting(struct comm *c)
{
    struct progress progress = {0};
    struct watchdog *w;
    EXPECT(watchdog_open(&w, c, &progress, 0.8) == 0);
    for (int i = 0; comm_rank(c) == 0 && i < 20; i++) {
        EXPECT(comm_waiting(c) == COMM_WORKS);
        progress_tick(&progress);
        usleep(100000);
    }
    comm_barrier(c);
    watchdog_close(w);
}

/* What a script compares between runs on different numbers of ranks. */
static void gather_to_file(struct comm *c, const char *path)
{
    struct record_list local = {0}, all = {0};
    for (int64_t k = 0; k < 1000; k++) {
        uint64_t h = hash_bytes(&k, sizeof k, 0);
        if ((int)(h % (uint64_t)comm_size(c)) == comm_rank(c))
            records_add(&local, (int64_t)h, &h, h % 9);
    }
    comm_gather_records(c, &all, &local);
    FILE *f = comm_rank(c) == comm_size(c) - 1 ? fopen(path, "wb") : NULL;
    EXPECT(f || comm_rank(c) != comm_size(c) - 1);
    for (int64_t i = 0; f && i < all.n; i++) {
        fprintf(f, "%" PRId64 " ", all.records[i].key);
        fwrite(records_bytes(&all, i), 1, all.records[i].n, f);
    }
    if (f)
        fclose(f);
    records_free(&local);
    records_free(&all);
}

static void test_all(struct comm *c, const char *path)
{
    test_ranks(c);
    test_agree_when_all_succeed(c);
    test_agree_when_one_fails(c);
    test_agree_when_several_fail(c);
    test_agree_with_the_longest_message(c);
    test_hash_equal(c);
    size_t usual = c->chunk_bytes;
    for (c->chunk_bytes = 64; c->chunk_bytes <= usual;
         c->chunk_bytes *= 1024) { /* with and without rounds */
        test_broadcast(c);
        for (int64_t n = 0; n < 300; n = 2 * n + 1)
            test_gather(c, n);
        test_sums(c);
    }
    c->chunk_bytes = usual;
    if (path)
        gather_to_file(c, path);
    test_timing(c);
    test_node_shared(c);
    test_watchdog_when_fed(c);
    test_watchdog_while_waiting(c);
    test_devices(c);
    test_placement(c);
}

/* -- what ends a run: each mode's outcome is judged by a script ----------------------------------- */

/* As main does: work, agree, everyone returns, rank 0 prints. */
static int fail_on_last(struct comm *c)
{
    error_clear();
    int rc = comm_rank(c) == comm_size(c) - 1 ? error_set(ERR_FILE, "x.jsonl:7: bad") : 0;
    rc = comm_agree(c, rc);
    if (rc != 0 && comm_rank(c) == 0)
        fprintf(stderr, "rlhf-hpc: %s\n", error_message());
    return rc != 0 ? error_exit_code() : 0;
}

static void gather_twice(struct comm *c)
{
    struct record_list local = {0}, all = {0};
    records_add(&local, 5, "a", 1);
    if (comm_size(c) == 1)
        records_add(&local, 5, "b", 1);
    comm_gather_records(c, &all, &local);
}

static void hang(struct comm *c)
{
    struct progress progress = {0};
    struct watchdog *w;
    EXPECT(watchdog_open(&w, c, &progress, 1) == 0);
    progress_phase(&progress, "rollout");
    atomic_store(&progress.step, 7);
    if (comm_rank(c) == comm_size(c) - 1)
        for (;;)
            pause();
    comm_barrier(c);
}

/* A stop of the whole process for longer than the limit is no hang. */
static void stop_and_go(struct comm *c)
{
    struct progress progress = {0};
    struct watchdog *w;
    EXPECT(watchdog_open(&w, c, &progress, 2) == 0);
    char command[128];
    snprintf(command, sizeof command, "(sleep 0.2; kill -STOP %d; sleep 3; kill -CONT %d) &",
             getpid(), getpid());
    EXPECT(system(command) == 0);
    for (int i = 0; i < 6; i++)
        usleep(200000);
    watchdog_close(w);
}

int main(int argc, char **argv)
{
    struct comm *c;
    if (comm_open(&c, &argc, &argv) != 0) {
        fprintf(stderr, "rlhf-hpc: %s\n", error_message());
        return 1;
    }
    const char *mode = argc > 1 ? argv[1] : "all";
    int last = comm_rank(c) == comm_size(c) - 1, rc = 0;
    if (!strcmp(mode, "all"))
        test_all(c, argc > 2 ? argv[2] : NULL);
    else if (!strcmp(mode, "agree"))
        rc = fail_on_last(c);
    else if (!strcmp(mode, "abort-one") && last)
        comm_abort("the end, says one");
    else if (!strcmp(mode, "abort-all"))
        comm_abort("the end, say all");
    else if (!strcmp(mode, "check"))
        CHECK(!last, "broken on the last rank");
    else if (!strcmp(mode, "check-all"))
        CHECK(comm_size(c) < 0, "broken everywhere");
    else if (!strcmp(mode, "twice"))
        gather_twice(c);
    else if (!strcmp(mode, "mpi-error") && last)
        MPI_Send(&rc, 1, MPI_INT, 99, 0, c->world);
    else if (!strcmp(mode, "hang"))
        hang(c);
    else if (!strcmp(mode, "stop"))
        stop_and_go(c);
    comm_close(c);
    return rc;
}
