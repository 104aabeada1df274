/* TensorBoard event files: what TensorBoard shows as scalars, written as the run goes.
 *
 *   file    events.out.tfevents.<seconds>.<host>: records, one after the other
 *   record  uint64 n | uint32 masked CRC-32C of those 8 bytes | n bytes | uint32 masked CRC-32C of the n bytes
 *           masked: (crc >> 15 | crc << 17) + 0xa282ead8; little-endian. Source: TensorFlow, core/lib/io/record_writer.h
 *   bytes   Event { 1 wall_time: double; 2 step: varint; one of 3 file_version: string; 5 summary: Summary;
 *                   7 session_log: SessionLog }
 *           Summary { repeated 1 Value { 1 tag: string; 2 simple_value: float } }; SessionLog { 1 status: 1 is START }
 *           as protocol buffers encode them. Source: TensorFlow, core/util/event.proto, core/framework/summary.proto
 *
 * A file begins with the version "brain.Event:2". A run that continues opens a new file, whose START at its first step
 * makes TensorBoard forget what an earlier file says of that step and later ones.
 */
#ifndef RLHF_SRC_EVENT_H
#define RLHF_SRC_EVENT_H

#include "text.h"

#include <stdint.h>
#include <stdio.h>

struct event_scalar {
    const char *tag; /* borrowed */
    float value;
};

/* Append one record each. wall_time: seconds since 1970. */
void event_add_version(struct text *out, double wall_time);
void event_add_start(struct text *out, double wall_time, int64_t step);
void event_add_scalars(struct text *out, double wall_time, int64_t step, const struct event_scalar *scalar, int n);

struct event_file {
    FILE *file; /* NULL: not open, writing does nothing */
    char *path;
    struct text records; /* not yet written; its room is kept from step to step */
};

/* Makes a new file in folder, for steps from first_step on. Its name sorts behind those of earlier ones, since
 * TensorBoard reads them in that order. Errors: ERR_FILE. */
int event_open(struct event_file *f, const char *folder, int64_t first_step);
int event_write(struct event_file *f, int64_t step, const struct event_scalar *scalar, int n); /* at this time; flushed */
void event_close(struct event_file *f);

#endif
