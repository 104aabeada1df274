#!/bin/sh
# jobs/parquet_to_jsonl.py, on files that pyarrow writes here. Needs Python ($RLHF_HPC_PYTHON, python3) with pyarrow.
srcdir=${srcdir:-.} python=${RLHF_HPC_PYTHON:-python3} convert=${srcdir:-.}/jobs/parquet_to_jsonl.py
"$python" -c 'import pyarrow.parquet' 2>/dev/null || { echo "skipped: $python has no pyarrow: set RLHF_HPC_PYTHON"; exit 77; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0

"$python" - "$work" <<'PYTHON' || exit 1
import os, sys
import pyarrow as pa, pyarrow.parquet as pq
work = sys.argv[1]
os.makedirs(work + "/set/data")
rows = [{"text": "caf\u00e9 %d" % i, "label": i % 2, "messages": [{"role": "user", "content": "q%d" % i}, {"role": "assistant", "content": None}],
         "x": float("nan") if i == 0 else i / 2, "raw": b"b"} for i in range(5)]
pq.write_table(pa.Table.from_pylist(rows[:3]), work + "/set/data/train-00000-of-00002.parquet", row_group_size=2)
pq.write_table(pa.Table.from_pylist(rows[3:]), work + "/set/data/train-00001-of-00002.parquet")
pq.write_table(pa.Table.from_pylist(rows[:1]), work + "/set/data/test-00000-of-00001.parquet")
pq.write_table(pa.table({"image": [b"\xff\xd8"]}), work + "/image.parquet")
open(work + "/broken.parquet", "wb").write(b"PAR1 and no more")
os.makedirs(work + "/empty")
PYTHON

same()
{
    cmp "$work/is" - || { echo "$1: other lines"; cat "$work/is"; failed=1; }
}

# refused TEXT ARG..: exit 1, one line that holds the text, no file left
refused()
{
    text=$1
    shift
    "$python" "$convert" "$@" -o "$work/out.jsonl" 2>"$work/stderr" && { echo "not refused: $*"; failed=1; }
    [ "$(wc -l <"$work/stderr")" = 1 ] && grep -qF -- "$text" "$work/stderr" && [ ! -e "$work/out.jsonl" ] && [ ! -e "$work/out.jsonl.part" ] ||
        { echo "looking for '$text':"; cat "$work/stderr"; failed=1; }
}

"$python" "$convert" "$work/set" --split train --columns text,label >"$work/is" || failed=1
same "all of a split" <<'LINES'
{"text": "café 0", "label": 0}
{"text": "café 1", "label": 1}
{"text": "café 2", "label": 0}
{"text": "café 3", "label": 1}
{"text": "café 4", "label": 0}
LINES
"$python" "$convert" "$work/set/data/train-00001-of-00002.parquet" --rows 1 -o "$work/is" 2>/dev/null || failed=1
same "lists, floats, bytes" <<'LINES'
{"text": "café 3", "label": 1, "messages": [{"role": "user", "content": "q3"}, {"role": "assistant", "content": null}], "x": 1.5, "raw": "b"}
LINES
"$python" "$convert" "$work/set" --split test --columns x >"$work/is" || failed=1
same "no number" <<'LINES'
{"x": null}
LINES
refused 'no .parquet file in it or below' "$work/empty"
refused "is of split 'dev'" "$work/set" --split dev
refused 'not a readable Parquet file' "$work/broken.parquet"
refused 'not a readable Parquet file' "$work/none.parquet"
refused "no column 'txt'; there is text, label" "$work/set" --columns txt
refused "row 0, column 'image': bytes that are not UTF-8" "$work/image.parquet"
exit $failed
