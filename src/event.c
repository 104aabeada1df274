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

static size_t varint_bytes(uint64_t x)
{
    size_t n = 1;
    for (; x >= 0x80; x >>= 7)
        n++;
    return n;
}

/* The n low bytes of x at to, the lowest first. */
static void put_fixed(void *to, uint64_t x, int n)
{
    for (int i = 0; i < n; i++)
        ((unsigned char *)to)[i] = (unsigned char)(x >> 8 * i);
}

static void add_fixed(struct text *out, uint64_t x, int n)
{
    unsigned char bytes[8];
    put_fixed(bytes, x, n);
    text_add(out, bytes, (size_t)n);
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

enum { HEADER_BYTES = 12 }; /* length and its checksum */

/* Room for the header, then fields 1 and 2 of the event; a step of 0 is the default, which is not written. Returns where the
 * record begins. */
static size_t begin_record(struct text *out, double wall_time, int64_t step)
{
    size_t start = out->n;
    text_add(out, (const char[HEADER_BYTES]){0}, HEADER_BYTES);
    add_double(out, 1, wall_time);
    if (step) {
        add_key(out, 2, WIRE_VARINT);
        add_varint(out, (uint64_t)step);
    }
    return start;
}

static void end_record(struct text *out, size_t start)
{
    char *header = out->bytes + start;
    size_t n = out->n - start - HEADER_BYTES;
    put_fixed(header, n, 8);
    put_fixed(header + 8, masked(hash_crc32c(header, 8)), 4);
    add_fixed(out, masked(hash_crc32c(header + HEADER_BYTES, n)), 4);
}

void event_add_version(struct text *out, double wall_time)
{
    static const char FORMAT[] = "brain.Event:2";
    size_t start = begin_record(out, wall_time, 0);
    add_bytes(out, 3, FORMAT, sizeof FORMAT - 1);
    end_record(out, start);
}

void event_add_start(struct text *out, double wall_time, int64_t step)
{
    static const unsigned char START[] = {1 << 3 | WIRE_VARINT, 1};
    size_t start = begin_record(out, wall_time, step);
    add_bytes(out, 7, START, sizeof START);
    end_record(out, start);
}

/* Of a Value: key, length and bytes of the tag; key and float. */
static size_t value_bytes(const struct event_scalar *scalar)
{
    size_t n = strlen(scalar->tag);
    return 1 + varint_bytes(n) + n + 1 + 4;
}

void event_add_scalars(struct text *out, double wall_time, int64_t step, const struct event_scalar *scalar, int n)
{
    size_t summary = 0, start = begin_record(out, wall_time, step);
    for (int i = 0; i < n; i++)
        summary += 1 + varint_bytes(value_bytes(&scalar[i])) + value_bytes(&scalar[i]);
    add_key(out, 5, WIRE_BYTES);
    add_varint(out, summary);
    for (int i = 0; i < n; i++) {
        add_key(out, 1, WIRE_BYTES);
        add_varint(out, value_bytes(&scalar[i]));
        add_bytes(out, 1, scalar[i].tag, strlen(scalar[i].tag));
        add_float(out, 2, scalar[i].value);
    }
    end_record(out, start);
}

static double wall_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int flush(struct event_file *f)
{
    size_t n = f->records.n;
    const bool good = fwrite(f->records.bytes, 1, n, f->file) == n && fflush(f->file) == 0;
    text_clear(&f->records);
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
    event_add_version(&f->records, wall_now());
    event_add_start(&f->records, wall_now(), first_step);
    return flush(f);
}

int event_write(struct event_file *f, int64_t step, const struct event_scalar *scalar, int n)
{
    if (!f->file)
        return 0;
    event_add_scalars(&f->records, wall_now(), step, scalar, n);
    return flush(f);
}

void event_close(struct event_file *f)
{
    if (f->file)
        fclose(f->file);
    free(f->path);
    text_free(&f->records);
    *f = (struct event_file){0};
}
