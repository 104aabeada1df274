/* Ranks over MPI.
 *
 * What is hard about it: a rank must never leave while others wait. So everything that can fail on one rank alone is
 * agreed upon before the next collective, and MPI's own errors end the run. Counts of MPI are int: bytes move in
 * chunks. Abort must work from any thread, at any time, and leave one line.
 */
#include "comm.h"

#include "comm_internal.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "hash.h"
#include "node_memory.h"
#include "records.h"
#include "text.h"

enum {
    CHUNK_BYTES =
        1 << 26, /* large enough for full bandwidth, small enough for MPI's temporary copies */
    SUM_BYTES = 1 << 20, /* of a piece of a sum */
    ABORT_SEC = 3,       /* MPI_Abort itself may hang on a broken machine: then leave without it */
    RANKS_NAMED_MAX = 8, /* in the message of ranks that differ */
    MESSAGE_BYTES = 16384 + 1 /* the error slot's */
};

/* The page that the ranks of a node share. Process wide, as MPI itself is, because comm_abort is the hook of CHECK and of
 * MPI's errors, which know no comm.
 */
enum { ABORT_NONE, ABORT_CLAIMED, ABORT_WRITTEN };
static _Atomic(struct node_page *) abort_page;

/* -- abort ---------------------------------------------------------------------------------------- */

static void exit_now(int signal_number)
{
    (void)signal_number;
    _exit(1);
}

/* The process ends after ABORT_SEC, whatever hangs. */
static void arm_exit(void)
{
    struct sigaction action = {.sa_handler = exit_now};
    sigaction(SIGALRM, &action, NULL);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    alarm(ABORT_SEC);
}

static void write_line(const char *line)
{
    char text[MESSAGE_BYTES + 16];
    int n = snprintf(text, sizeof text - 1, "rlhf-hpc: %s", line);
    if (n < 0)
        return;
    if (n > (int)sizeof text - 2)
        n = (int)sizeof text - 2;
    text[n] = '\n';
    for (ssize_t done = 0, k; done < n + 1; done += k) {
        k = write(STDERR_FILENO, text + done, (size_t)(n + 1 - done));
        if (k <= 0)
            return;
    }
}

/* Is this the rank of the node that writes? If not, waits until the line is out: it must not be cut off by our end. */
static bool claim_line(void)
{
    struct node_page *page = atomic_load(&abort_page);
    if (!page)
        return true;
    int none = ABORT_NONE;
    if (atomic_compare_exchange_strong(&page->abort, &none, ABORT_CLAIMED))
        return true;
    for (int i = 0; i < 1000 && atomic_load(&page->abort) != ABORT_WRITTEN; i++)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    return false;
}

void comm_abort(const char *line)
{
    arm_exit();
    if (claim_line())
        write_line(line);
    struct node_page *page = atomic_load(&abort_page);
    if (page)
        atomic_store(&page->abort, ABORT_WRITTEN);
    int started = 0, ended = 1;
    MPI_Initialized(&started);
    if (started)
        MPI_Finalized(&ended);
    if (started && !ended)
        MPI_Abort(MPI_COMM_WORLD, 1);
    _exit(1);
}

static void abort_on_mpi_error(MPI_Comm *where, int *code, ...)
{
    char reason[MPI_MAX_ERROR_STRING] = "", line[MPI_MAX_ERROR_STRING + 64];
    int rank = -1, n = 0;
    (void)where;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Error_string(*code, reason, &n);
    snprintf(line, sizeof line, "rank %d: communication failed: %s", rank, reason);
    comm_abort(line);
}

/* -- who waits ------------------------------------------------------------------------------------ */

/* Around each collective call in which a rank may wait for one that still works. */
void comm_wait_begin(struct comm *c)
{
    if (!c->page)
        return;
    atomic_fetch_add(&c->page->n_waiting, 1);
    atomic_store(&c->waiting, true);
}

void comm_wait_end(struct comm *c)
{
    if (!c->page)
        return;
    atomic_store(&c->waiting, false);
    atomic_fetch_sub(&c->page->n_waiting, 1);
}

enum comm_waiting comm_waiting(const struct comm *c)
{
    if (!atomic_load(&c->waiting))
        return COMM_WORKS;
    return atomic_load(&c->page->n_waiting) < c->node_size ? COMM_WAITS_FOR_WORK : COMM_WAITS;
}

/* -- memory shared by a node ---------------------------------------------------------------------- */

static int share_block(struct comm *c, void **p, size_t bytes, bool all_write)
{
    *p = NULL;
    bool leader = c->node_rank == 0;
    struct node_memory place = {0};
    int rc = comm_agree(c, leader && bytes ? node_memory_make(&place, bytes) : 0);
    if (rc == 0 && bytes) {
        struct node_memory there = place; /* only the maker closes */
        MPI_Bcast(&there, sizeof there, MPI_BYTE, 0, c->node);
        rc = node_memory_map(p, &there, bytes, leader, leader || all_write);
    }
    rc = comm_agree(c, rc); /* and now every rank has opened it */
    node_memory_close(&place);
    if (rc != 0 && *p) {
        munmap(*p, bytes);
        *p = NULL;
    }
    if (*p) {
        struct shared_block *block = malloc(sizeof *block);
        CHECK(block, "out of memory");
        *block = (struct shared_block){*p, bytes, c->shared};
        c->shared = block;
    }
    return rc;
}

int comm_node_shared(struct comm *c, void **p, size_t bytes)
{
    return share_block(c, p, bytes, false);
}

void comm_node_barrier(struct comm *c)
{
    comm_wait_begin(c);
    MPI_Barrier(c->node);
    comm_wait_end(c);
}

/* -- open and close ------------------------------------------------------------------------------- */

static void find_ranks(struct comm *c)
{
    MPI_Comm_create_errhandler(abort_on_mpi_error, &c->errhandler);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, c->errhandler);
    MPI_Comm_set_errhandler(MPI_COMM_SELF, c->errhandler);
    MPI_Comm_dup(MPI_COMM_WORLD, &c->world);
    MPI_Comm_set_errhandler(c->world, c->errhandler);
    MPI_Comm_rank(c->world, &c->rank);
    MPI_Comm_size(c->world, &c->size);
    MPI_Comm_split_type(c->world, MPI_COMM_TYPE_SHARED, c->rank, MPI_INFO_NULL, &c->node);
    MPI_Comm_set_errhandler(c->node, c->errhandler);
    MPI_Comm_rank(c->node, &c->node_rank);
    MPI_Comm_size(c->node, &c->node_size);
    int leader = c->node_rank == 0;
    MPI_Allreduce(&leader, &c->n_nodes, 1, MPI_INT, MPI_SUM, c->world);
}

int comm_open(struct comm **out, int *argc, char ***argv)
{
    *out = NULL;
    int started = 0, level;
    MPI_Initialized(&started);
    CHECK(!started, "comm_open called twice");
    /* Alone, without mpirun: start no helper process for features that we do not use. */
    setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
    /* MULTIPLE, so that the watchdog's thread may abort; everything else stays on one thread. */
    if (MPI_Init_thread(argc, argv, MPI_THREAD_MULTIPLE, &level) != MPI_SUCCESS)
        return error_set(ERR_SYSTEM, "MPI does not start");
    struct comm *c = calloc(1, sizeof *c);
    CHECK(c, "out of memory");
    c->chunk_bytes = CHUNK_BYTES;
    find_ranks(c);
    c->words = calloc(3 * (size_t)c->size, sizeof *c->words);
    c->counts = calloc(2 * (size_t)c->size, sizeof *c->counts);
    CHECK(c->words && c->counts, "out of memory");
    error_set_abort_hook(comm_abort);

    void *page = NULL;
    static const char build[] = PACKAGE_VERSION " " GIT_REVISION;
    int rc = share_block(c, &page, sizeof(struct node_page), true);
    c->page = page;
    atomic_store(&abort_page, c->page);
    if (rc == 0)
        rc = comm_hash_equal(c, hash_bytes(build, sizeof build, 0), "the build of rlhf-hpc");
    *out = c;
    return rc;
}

void comm_close(struct comm *c)
{
    if (!c)
        return;
    comm_sum_i64_finish(c);
    MPI_Barrier(c->world); /* nobody aborts for a neighbour's sake any more */
    atomic_store(&abort_page, NULL);
    c->page = NULL;
    while (c->shared) {
        struct shared_block *block = c->shared;
        c->shared = block->next;
        munmap(block->p, block->bytes);
        free(block);
    }
    MPI_Comm_free(&c->node);
    MPI_Comm_free(&c->world);
    MPI_Errhandler_free(&c->errhandler);
    free(c->words);
    free(c->counts);
    free(c->sums);
    free(c);
    MPI_Finalize();
}

void comm_describe_library(struct text *out)
{
    char said[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int n;
    MPI_Get_library_version(said, &n);
    text_add(out, said, strcspn(said, ",\n"));
}

int comm_rank(const struct comm *c)
{
    return c->rank;
}

int comm_size(const struct comm *c)
{
    return c->size;
}

int comm_node_rank(const struct comm *c)
{
    return c->node_rank;
}

int comm_node_size(const struct comm *c)
{
    return c->node_size;
}

int comm_nodes(const struct comm *c)
{
    return c->n_nodes;
}

/* -- agreement ------------------------------------------------------------------------------------ */

int comm_agree(struct comm *c, int rc)
{
    CHECK(rc <= 0, "comm_agree of %d: results are 0 or negative", rc);
    int mine[2] = {rc, rc < 0 ? c->rank : INT_MAX}, least[2];
    comm_wait_begin(c);
    MPI_Allreduce(mine, least, 2, MPI_INT, MPI_MIN, c->world);
    comm_wait_end(c);
    if (least[0] == 0 || c->size == 1)
        return least[0];

    int root = least[1];
    struct text message = {0};
    if (c->rank == root)
        text_add_string(&message, error_message());
    uint64_t head[2] = {message.n, (uint64_t)error_kind()};
    MPI_Bcast(head, 2, MPI_UINT64_T, root, c->world);
    CHECK(head[0] < MESSAGE_BYTES, "error message of %llu bytes", (unsigned long long)head[0]);
    char *bytes = calloc(1, head[0] + 1);
    CHECK(bytes, "out of memory");
    if (c->rank == root && message.n)
        memcpy(bytes, message.bytes, message.n);
    MPI_Bcast(bytes, (int)head[0], MPI_CHAR, root, c->world);

    int same = rc < 0 && !strcmp(bytes, error_message()), all_same;
    MPI_Allreduce(&same, &all_same, 1, MPI_INT, MPI_MIN, c->world);
    if (all_same)
        error_set((enum error)head[1], "%s", bytes);
    else
        error_set((enum error)head[1], "rank %d: %s", root, bytes);
    free(bytes);
    text_free(&message);
    return least[0];
}

static int compare_hashes(struct comm *c, uint64_t hash, const char *what, enum error kind)
{
    uint64_t *all = c->words;
    comm_wait_begin(c);
    MPI_Allgather(&hash, 1, MPI_UINT64_T, all, 1, MPI_UINT64_T, c->world);
    comm_wait_end(c);
    struct text names = {0};
    int n = 0;
    for (int r = 1; r < c->size; r++) {
        if (all[r] == all[0])
            continue;
        if (n++ < RANKS_NAMED_MAX)
            text_format(&names, "%s%d", n > 1 ? ", " : "", r);
    }
    if (n > RANKS_NAMED_MAX)
        text_format(&names, " and %d more", n - RANKS_NAMED_MAX);
    if (n)
        error_set(kind, "%s is not the same on all ranks: rank%s %s differ%s from rank 0", what,
                  n > 1 ? "s" : "", text_string(&names), n > 1 ? "" : "s");
    text_free(&names);
    return n ? -1 : 0;
}

int comm_hash_equal(struct comm *c, uint64_t hash, const char *what)
{
    return compare_hashes(c, hash, what, ERR_RUN);
}

int comm_same_input(struct comm *c, const void *bytes, size_t n, const char *what)
{
    return compare_hashes(c, hash_bytes(bytes, n, 0), what, ERR_INPUT);
}

/* -- moving bytes --------------------------------------------------------------------------------- */

void comm_barrier(struct comm *c)
{
    comm_wait_begin(c);
    MPI_Barrier(c->world);
    comm_wait_end(c);
}

void comm_broadcast(struct comm *c, void *bytes, size_t n, int root)
{
    comm_wait_begin(c);
    for (char *p = bytes; n;) {
        size_t k = n < c->chunk_bytes ? n : c->chunk_bytes;
        MPI_Bcast(p, (int)k, MPI_BYTE, root, c->world);
        p += k;
        n -= k;
    }
    comm_wait_end(c);
}

void comm_broadcast_text(struct comm *c, struct text *t)
{
    uint64_t n = t->n;
    comm_broadcast(c, &n, sizeof n, 0);
    if (c->rank != 0) {
        text_clear(t);
        static const char zeros[4096];
        for (uint64_t left = n; left;) {
            size_t k = left < sizeof zeros ? left : sizeof zeros;
            text_add(t, zeros, k);
            left -= k;
        }
    }
    comm_broadcast(c, t->bytes, n, 0);
}

/* Every rank's words, one rank's after the other, to all ranks. n [size] words. MPI counts in int and copies what it
 * sends, so it goes in rounds of at most chunk_bytes a rank.
 */
static void gather_words(struct comm *c, void *to, const void *mine, const uint64_t *n)
{
    uint64_t chunk = c->chunk_bytes / 8, longest = 0, total = 0;
    int *count = c->counts, *place = c->counts + c->size;
    for (int r = 0; r < c->size; total += n[r++])
        longest = n[r] > longest ? n[r] : longest;
    CHECK(total <= INT_MAX, "%llu bytes of records: MPI places at most 16 GiB", (unsigned long long)total * 8);
    for (uint64_t done = 0; done < longest; done += chunk) {
        uint64_t start = 0;
        for (int r = 0; r < c->size; start += n[r++]) {
            uint64_t sent = n[r] < done ? n[r] : done, left = n[r] - sent;
            count[r] = (int)(left < chunk ? left : chunk);
            place[r] = (int)(start + sent);
        }
        const uint64_t *from = count[c->rank] ? (const uint64_t *)mine + done : mine;
        MPI_Allgatherv(from, count[c->rank], MPI_UINT64_T, to, count, place, MPI_UINT64_T, c->world);
    }
}

static int compare_keys(const void *a, const void *b)
{
    int64_t x = ((const struct record *)a)->key, y = ((const struct record *)b)->key;
    return (x > y) - (x < y);
}

void comm_gather_records(struct comm *c, struct record_list *all, const struct record_list *local)
{
    enum { RECORD_WORDS = sizeof(struct record) / 8 };
    uint64_t mine[2] = {(uint64_t)local->n, local->bytes_used / 8};
    uint64_t *sizes = c->words, *n = c->words + 2 * c->size; /* [size][2]; [size] */
    int64_t n_all = 0;
    size_t bytes = 0;
    comm_wait_begin(c);
    MPI_Allgather(mine, 2, MPI_UINT64_T, sizes, 2, MPI_UINT64_T, c->world);
    comm_wait_end(c);
    for (int r = 0; r < c->size; r++) {
        n_all += (int64_t)sizes[2 * r];
        bytes += sizes[2 * r + 1] * 8;
        n[r] = sizes[2 * r] * RECORD_WORDS;
    }
    records_clear(all);
    records_reserve(all, n_all, bytes);
    gather_words(c, all->records, local->records, n);
    for (int r = 0; r < c->size; r++)
        n[r] = sizes[2 * r + 1];
    gather_words(c, all->bytes, local->bytes, n);
    size_t start = 0; /* of a rank's bytes */
    for (int r = 0; r < c->size; start += sizes[2 * r++ + 1] * 8)
        for (uint64_t i = 0; i < sizes[2 * r]; i++)
            all->records[all->n++].start += start;
    all->bytes_used = bytes;
    if (all->n > 1)
        qsort(all->records, (size_t)all->n, sizeof *all->records, compare_keys);
    for (int64_t i = 1; i < all->n; i++)
        CHECK(all->records[i].key != all->records[i - 1].key, "record %lld was gathered twice",
              (long long)all->records[i].key);
}

/* -- sums ----------------------------------------------------------------------------------------- */

/* Hands MPI the next piece, if there is one. MPI allocates as much again for each piece in flight; few and small ones
 * are faster than all at once (page faults) and bound that memory. When pieces are issued depends on no timing, so that
 * all ranks issue them in the same order among their other collectives.
 */
static bool issue_piece(struct comm *c)
{
    while (c->next_sum < c->n_sums && c->sums[c->next_sum].done == c->sums[c->next_sum].n)
        c->next_sum++;
    if (c->next_sum == c->n_sums)
        return false;
    struct sum *s = &c->sums[c->next_sum];
    size_t bytes = c->chunk_bytes < SUM_BYTES ? c->chunk_bytes : SUM_BYTES;
    int64_t most = (int64_t)(bytes / sizeof *s->values), left = s->n - s->done;
    int n = (int)(left < most ? left : most);
    MPI_Iallreduce(MPI_IN_PLACE, s->values + s->done, n, MPI_INT64_T, MPI_SUM, c->world,
                   &c->in_flight[c->n_issued++ % SUMS_IN_FLIGHT]);
    s->done += n;
    return true;
}

void comm_sum_i64_start(struct comm *c, int64_t *values, int64_t n)
{
    if (c->n_sums == c->sums_room) {
        c->sums_room = c->sums_room ? 2 * c->sums_room : 16;
        c->sums = realloc(c->sums, (size_t)c->sums_room * sizeof *c->sums);
        CHECK(c->sums, "out of memory");
    }
    c->sums[c->n_sums++] = (struct sum){values, n, 0};
    while (c->n_issued < SUMS_IN_FLIGHT && issue_piece(c))
        ;
}

void comm_sum_i64_finish(struct comm *c)
{
    comm_wait_begin(c);
    for (int64_t i = 0; i < c->n_issued; i++) {
        MPI_Wait(&c->in_flight[i % SUMS_IN_FLIGHT], MPI_STATUS_IGNORE);
        issue_piece(c);
    }
    comm_wait_end(c);
    c->n_sums = c->next_sum = 0;
    c->n_issued = 0;
}

int comm_max_flag(struct comm *c, int flag)
{
    int largest;
    comm_wait_begin(c);
    MPI_Allreduce(&flag, &largest, 1, MPI_INT, MPI_MAX, c->world);
    comm_wait_end(c);
    return largest;
}

/* Gathered and folded in the order of the ranks: even here there is no floating-point reduction by MPI. */
void comm_timing_min_mean_max(struct comm *c, double *min, double *mean, double *max,
                              const double *values, int n)
{
    double *all = malloc((size_t)n * (size_t)c->size * sizeof *all + 1);
    CHECK(all, "out of memory");
    comm_wait_begin(c);
    MPI_Allgather(values, n, MPI_DOUBLE, all, n, MPI_DOUBLE, c->world);
    comm_wait_end(c);
    for (int i = 0; i < n; i++) {
        double low = all[i], high = all[i], sum = 0;
        for (int r = 0; r < c->size; r++) {
            double x = all[(int64_t)r * n + i];
            low = x < low ? x : low;
            high = x > high ? x : high;
            sum += x;
        }
        min[i] = low;
        mean[i] = sum / c->size;
        max[i] = high;
    }
    free(all);
}
