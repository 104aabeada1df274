/* Watchdog thread.
 *
 * It counts its own ticks instead of reading a clock: time in which the whole process was stopped (SIGSTOP by a batch
 * system, a suspended machine) is one tick, not a hang.
 */
#include "watchdog.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "comm.h"
#include "error.h"
#include "timing.h"

struct watchdog {
    const struct comm *comm;
    struct progress *progress;
    double timeout_sec, tick_sec;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t closing;
    bool closed; /* under the lock */
};

static struct timespec later(double sec)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    long ns = t.tv_nsec + (long)((sec - (double)(long)sec) * 1e9);
    t.tv_sec += (long)sec + ns / 1000000000;
    t.tv_nsec = ns % 1000000000;
    return t;
}

static void bark(const struct watchdog *w, bool waiting)
{
    char line[256], who[32] = "", step[48] = "";
    const char *phase = atomic_load(&w->progress->phase);
    long long number = atomic_load(&w->progress->step);
    if (comm_size(w->comm) > 1)
        snprintf(who, sizeof who, "rank %d: ", comm_rank(w->comm));
    if (number > 0)
        snprintf(step, sizeof step, " of step %lld", number);
    snprintf(line, sizeof line, "%sno progress for %g s in phase %s%s%s (run.hang_timeout)", who, w->timeout_sec,
             phase ? phase : "start", step, waiting ? ", waiting for other ranks" : "");
    comm_abort(line);
}

static void *watch(void *argument)
{
    struct watchdog *w = argument;
    double quiet_sec = 0, last = timing_now();
    unsigned long seen = atomic_load(&w->progress->n_ticks);
    pthread_mutex_lock(&w->lock);
    while (!w->closed) {
        struct timespec until = later(w->tick_sec);
        pthread_cond_timedwait(&w->closing, &w->lock, &until);
        double now = timing_now(), passed = now - last;
        last = now;
        unsigned long ticks = atomic_load(&w->progress->n_ticks);
        enum comm_waiting waiting = comm_waiting(w->comm);
        quiet_sec += passed < 2 * w->tick_sec ? passed : 2 * w->tick_sec;
        if (ticks != seen || waiting == COMM_WAITS_FOR_WORK)
            quiet_sec = 0;
        seen = ticks;
        if (!w->closed && quiet_sec > (waiting ? 2 : 1) * w->timeout_sec)
            bark(w, waiting);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int watchdog_open(struct watchdog **out, const struct comm *c, struct progress *progress, double timeout_sec)
{
    *out = NULL;
    if (!(timeout_sec > 0))
        return 0;
    struct watchdog *w = calloc(1, sizeof *w);
    CHECK(w, "out of memory");
    w->timeout_sec = timeout_sec;
    w->tick_sec = timeout_sec < 10 ? timeout_sec / 10 : 1;
    w->comm = c;
    w->progress = progress;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&w->closing, &attributes);
    pthread_condattr_destroy(&attributes);

    sigset_t all, before; /* signals are the main thread's */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&w->thread, NULL, watch, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) {
        pthread_cond_destroy(&w->closing);
        pthread_mutex_destroy(&w->lock);
        free(w);
        return error_set(ERR_SYSTEM, "watchdog: cannot start a thread: %s", strerror(code));
    }
    *out = w;
    return 0;
}

void watchdog_close(struct watchdog *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->closed = true;
    pthread_cond_signal(&w->closing);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->closing);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
