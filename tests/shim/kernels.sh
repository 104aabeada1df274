#!/bin/sh
# Prints the kernels that the tests launched on the shim, with counts; fails when a kernel of the sources was not among them. Runs after
# the other tests, which append to $builddir/tests/shim/launched.txt (RLHF_SHIM_LOG); begins a new one for the next time.
launched=$builddir/tests/shim/launched.txt
if [ ! -s "$launched" ]; then
    echo "no test launched a kernel on the shim"
    exit 77
fi
awk '{ n[$1] += $2 } END { for (k in n) print k, n[k] }' "$launched" | sort >"$launched.sum"
rm "$launched"

# __global__, perhaps other words and __launch_bounds__(..), then the name before its parenthesis
cat "$srcdir"/cuda/*.cu "$srcdir"/cuda/*.cuh "$srcdir"/mpi/*.cu 2>/dev/null | tr '\n' ' ' |
    grep -oE '__global__ +((void|static|__launch_bounds__ *\([^()]*(\([^()]*\)[^()]*)*\)) *)+[A-Za-z_0-9]+ *\(' |
    sed -E 's/ *\($//; s/.*[ )]//' | sort -u >"$launched.sources"

cat "$launched.sum"
missing=$(cut -d' ' -f1 "$launched.sum" | sort | comm -13 - "$launched.sources")
n=$(wc -l <"$launched.sources")
rm "$launched.sum" "$launched.sources"
if [ -n "$missing" ]; then
    echo "kernels that no test launched:" $missing >&2
    exit 1
fi
echo "all $n kernels of the module were launched"
