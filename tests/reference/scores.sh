#!/bin/sh
# Score heads written here in transformers and peft, and merged: see scores_roundtrip.py.
# Needs Python ($RLHF_HPC_PYTHON, python3) with torch, transformers and peft.
srcdir=${srcdir:-.} build=${builddir:-.}
python=${RLHF_HPC_PYTHON:-python3}
"$python" -c 'import peft, torch, transformers' 2>/dev/null || {
    echo "skipped: $python has no torch, transformers and peft: set RLHF_HPC_PYTHON"
    exit 77
}
[ -x "$build/tests/reference/folders" ] || { echo "skipped: make tests/reference/folders"; exit 77; }
exec "$python" "$srcdir/tests/reference/scores_roundtrip.py" "$build/tests/reference/folders" "$build/rlhf-hpc"
