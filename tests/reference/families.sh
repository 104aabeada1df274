#!/bin/sh
# Random models of every family against transformers: see families_random.py.
#   tests/reference/families.sh [SEEDS]    models of each family (1)
# Needs cmocka at build time, and Python ($RLHF_HPC_PYTHON, python3) with torch, transformers and peft.
srcdir=${srcdir:-.} program=${builddir:-.}/tests/unit/families
python=${RLHF_HPC_PYTHON:-python3}
skip()
{
    echo "skipped: $1"
    exit 77
}
[ -x "$program" ] || skip "no $program"
"$python" -c 'import peft, torch, transformers' 2>/dev/null ||
    skip "$python has no torch, transformers and peft: set RLHF_HPC_PYTHON"
exec "$python" "$srcdir/tests/reference/families_random.py" "$program" "${1:-1}"
