/* Event files: a few fields of protocol buffers by hand, framed as records. */
#include "event.h"

#include "error.h"
#include "file.h"
#include "hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 }; /* protocol buffers, "Encoding" */

static void add_varint(struct text *out, uint64_t x)
{
    for (; x >= 0x80; x >>= 7)
        text_add(out, &(unsigned char){(unsigned char)(x | 0x80)}, 1);
    text_add(out, &(unsigned char){(unsigned char)x}, 1);
}

static void add_key(struct text *out, int field, enum wire wire)
{
    add_varint(out, (uint64_t)field << 3 | (uint64_t)wire);
}

/* The n low bytes of x, the lowest first. */
static void add_fixed(struct text *out, uint64_t x, int n)
{
    for (int i = 0; i < n; i++)
        text_add(out, &(unsigned char){(unsigned char)(x >> 8 * i)}, 1);
}

static void add_bytes(struct text *out, int field, const void *bytes, size_t n)
{
    add_key(out, field, WIRE_BYTES);
    add_varint(out, n);
    text_add(out, bytes, n);
}

static void add_double(struct text *out, int field, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    add_key(out, field, WIRE_64);
    add_fixed(out, bits, 8);
}

static void add_float(struct text *out, int field, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    add_key(out, field, WIRE_32);
    add_fixed(out, bits, 4);
}

static uint32_t masked(uint32_t crc)
{
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

/* The event as a record; empties it. */
static void add_record(struct text *out, struct text *event)
{
    size_t start = out->n;
    add_fixed(out, event->n, 8);
    add_fixed(out, masked(hash_crc32c(out->bytes + start, 8)), 4);
    text_add(out, event->bytes, event->n);
    add_fixed(out, masked(hash_crc32c(event->bytes, event->n)), 4);
    text_free(event);
}

/* Fields 1 and 2. A step of 0 is the default, which is not written. */
static void begin(struct text *event, double wall_time, int64_t step)
{
    add_double(event, 1, wall_time);
    if (step) {
        add_key(event, 2, WIRE_VARINT);
        add_varint(event, (uint64_t)step);
    }
}

void event_add_version(struct text *out, double wall_time)
{
    static const char FORMAT[] = "brain.Event:2";
    struct text event = {0};
    begin(&event, wall_time, 0);
    add_bytes(&event, 3, FORMAT, sizeof FORMAT - 1);
    add_record(out, &event);
}

void event_add_start(struct text *out, double wall_time, int64_t step)
{
    static const unsigned char START[] = {1 << 3 | WIRE_VARINT, 1};
    struct text event = {0};
    begin(&event, wall_time, step);
    add_bytes(&event, 7, START, sizeof START);
    add_record(out, &event);
}

void event_add_scalars(struct text *out, double wall_time, int64_t step, const struct event_scalar *scalar, int n)
{
    struct text event = {0}, summary = {0}, value = {0};
    for (int i = 0; i < n; i++) {
        text_clear(&value);
        add_bytes(&value, 1, scalar[i].tag, strlen(scalar[i].tag));
        add_float(&value, 2, scalar[i].value);
        add_bytes(&summary, 1, value.bytes, value.n);
    }
    begin(&event, wall_time, step);
    add_bytes(&event, 5, text_string(&summary), summary.n);
    add_record(out, &event);
    text_free(&value);
    text_free(&summary);
}

static double wall_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int append(struct event_file *f, struct text *records)
{
    const bool good = fwrite(records->bytes, 1, records->n, f->file) == records->n && fflush(f->file) == 0;
    text_free(records);
    return good ? 0 : error_set(ERR_FILE, "%s: cannot write: %s", f->path, strerror(errno));
}

int event_open(struct event_file *f, const char *folder, int64_t first_step)
{
    char host[256] = "host", name[320];
    *f = (struct event_file){0};
    gethostname(host, sizeof host - 1);
    for (long long at = (long long)time(NULL); !f->file; at++) { /* a second that no file has yet */
        snprintf(name, sizeof name, "events.out.tfevents.%010lld.%s", at, host);
        free(f->path);
        f->path = file_join(folder, name);
        f->file = fopen(f->path, "wbx");
        if (!f->file && errno != EEXIST) {
            error_set(ERR_FILE, "%s: cannot create: %s", f->path, strerror(errno));
            event_close(f);
            return -1;
        }
    }
    struct text records = {0};
    event_add_version(&records, wall_now());
    event_add_start(&records, wall_now(), first_step);
    return append(f, &records);
}

int event_write(struct event_file *f, int64_t step, const struct event_scalar *scalar, int n)
{
    struct text records = {0};
    if (!f->file)
        return 0;
    event_add_scalars(&records, wall_now(), step, scalar, n);
    return append(f, &records);
}

void event_close(struct event_file *f)
{
    if (f->file)
        fclose(f->file);
    free(f->path);
    *f = (struct event_file){0};
}
