#!/bin/sh
# The same with conversations of other seeds, rendered now; and with all chat templates of trl, where it is installed.
#   tests/reference/chat_live.sh [SEED..]
# Needs Python ($RLHF_HPC_PYTHON, python3) with transformers and jinja2.
srcdir=${srcdir:-.} builddir=${builddir:-.} python=${RLHF_HPC_PYTHON:-python3}
"$python" -c 'import jinja2, transformers' 2>/dev/null ||
    { echo "skipped: $python has no transformers or no jinja2: set RLHF_HPC_PYTHON"; exit 77; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trl=$("$python" -c 'import os, trl; print(os.path.join(os.path.dirname(trl.__file__), "chat_templates"))' 2>/dev/null)
for seed in ${*:-21}; do
    for templates in "$srcdir/tests/reference/templates" "$trl"; do
        [ -d "$templates" ] || continue
        "$python" "$srcdir/tests/reference/record_chat.py" --seed "$seed" --templates "$templates" "$work" || exit 1
        cp "$srcdir"/tests/reference/templates/*.json "$templates"/*.jinja "$work" || exit 1
        "$builddir/tests/reference/chat_check" "$work" "$work" || exit 1
    done
done
