#!/usr/bin/env python3
"""Parquet files to the JSON Lines that data.path reads; needs pyarrow and nothing else.

    jobs/parquet_to_jsonl.py INPUT.. [-o OUT.jsonl] [--columns a,b] [--split NAME] [--rows N]

INPUT is a .parquet file, or a folder as the Hugging Face hub has data sets: its *.parquet in it and below, sorted by name; with
--split only those whose name, or whose folder's, begins with NAME ("train-00000-of-00002.parquet", "train/0.parquet"). Row groups
are read one at a time, so memory does not grow with the files. Lists and structs stay what they are (messages, chosen, input_ids);
bytes that are UTF-8 become strings. Without -o the lines go to standard output. OUT is written under a temporary name first.
"""
import argparse
import datetime
import decimal
import json
import math
import os
import sys


def refuse(message):
    sys.exit("parquet_to_jsonl.py: " + message)


try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as e:
    refuse("%s: install pyarrow (pip install pyarrow)" % e)


def has_split(path, root, split):
    parts = os.path.relpath(path, root).split(os.sep)
    return any(p == split or p.startswith((split + "-", split + ".", split + "_")) for p in parts)


def files_of(inputs, split):
    found = []
    for given in inputs:
        if not os.path.isdir(given):
            found.append(given)
            continue
        below = sorted(os.path.join(folder, name) for folder, _, names in os.walk(given) for name in names
                       if name.endswith(".parquet"))
        chosen = [p for p in below if not split or has_split(p, given, split)]
        if not below:
            refuse("%s: no .parquet file in it or below" % given)
        if not chosen:
            refuse("%s: none of its %d .parquet files is of split %r: %s" % (given, len(below), split, ", ".join(
                os.path.relpath(p, given) for p in below[:5])))
        found += chosen
    return found


def plain(value, where):
    """A value as JSON has it; keys with null stay, as the program takes them for absent."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: plain(v, where) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v, where) for v in value]
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            refuse("%s: bytes that are not UTF-8 (an image?): leave the column out with --columns" % where)
    if isinstance(value, (datetime.date, datetime.datetime, datetime.time)):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    refuse("%s: a value of type %s has no form in JSON: leave the column out with --columns" % (where, type(value).__name__))


def rows_of(path, columns):
    try:
        f = pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as e:
        refuse("%s: not a readable Parquet file: %s" % (path, str(e).splitlines()[0]))
    names = f.schema_arrow.names
    for c in columns or []:
        if c not in names:
            refuse("%s: no column %r; there is %s" % (path, c, ", ".join(names)))
    row = 0
    for group in range(f.num_row_groups):
        try:
            table = f.read_row_group(group, columns=columns)
        except (OSError, pa.ArrowInvalid) as e:
            refuse("%s: row group %d: %s" % (path, group, str(e).splitlines()[0]))
        for batch in table.to_batches(max_chunksize=1024):
            for r in batch.to_pylist():
                yield {k: plain(v, "%s: row %d, column %r" % (path, row, k)) for k, v in r.items()}
                row += 1


def write(out, files, columns, limit):
    n = 0
    for path in files:
        for row in rows_of(path, columns):
            if n == limit:
                return n
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            n += 1
    return n


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("inputs", nargs="+", metavar="INPUT")
    p.add_argument("-o", "--output", metavar="OUT.jsonl")
    p.add_argument("--columns", type=lambda s: s.split(","), help="columns to keep, a comma between; default: all")
    p.add_argument("--split", help="of a folder: train, test, ..")
    p.add_argument("--rows", type=int, default=-1, help="stop after this many")
    o = p.parse_args()
    files = files_of(o.inputs, o.split)
    if not o.output:
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        write(sys.stdout, files, o.columns, o.rows)
        return
    part = o.output + ".part"
    try:
        with open(part, "w", encoding="utf-8", newline="\n") as out:
            n = write(out, files, o.columns, o.rows)
        os.replace(part, o.output)
    except OSError as e:
        refuse("%s: %s" % (o.output, e.strerror))
    finally:
        if os.path.exists(part):
            os.remove(part)
    print("%d rows of %d files: wrote %s" % (n, len(files), o.output), file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except BrokenPipeError:
        os._exit(1)
