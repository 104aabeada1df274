#!/usr/bin/env bash
# make bundle: the archive is small; unpacked elsewhere and started from an empty environment it gives the bits of the build, with
# libraries of its own but for glibc; in a jail that holds glibc, bash and basic tools alone it runs too, and so do the tests that
# travel with it. The jail needs root; without, that part is left out.
set -euo pipefail
export srcdir=${srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
export builddir=${builddir:-$srcdir/build}
. "$srcdir/tests/mpi/ppo_runs.sh"
most_bytes=$((32 << 20))
shim=$(dirname "$program")/tests/shim

read -r archive bytes _ < <(make -s -C "$builddir" bundle | tail -n 1)
archive=$(cd "$builddir" && pwd)/${archive%:}
[ -f "$archive" ] || fail "no archive"
echo "$(basename "$archive"): $bytes bytes"
[ "$bytes" -lt $most_bytes ] || fail "more than $most_bytes bytes"
mkdir "$work/jail"
tar -C "$work/jail" -xf "$archive"
bundle=$work/jail/$(basename "$archive" .tar.xz)
options="-s run.max_steps=2 -s ppo.batch_size=8 -s ppo.mini_batch_size=4 -s ppo.ppo_epochs=1 -s run.sample_steps=2"

# what the bundle must do: COMMAND.. in its folder, env.sh sourced, nothing else known
bare() {
    (cd "$bundle" && env -i HOME="$work" PATH=/usr/bin:/bin bash -c '. ./env.sh && "$@"' bare "$@")
}

# The loader's log names each object it has started.
ppo here 2 $options || { cat "$work/here.log"; fail "the build"; }
bare env LD_DEBUG=files LD_DEBUG_OUTPUT="$work/loaded" mpirun --oversubscribe -np 2 rlhf-hpc input/tiny-ppo.cfg $options \
    -s ppo.batch_size=8 -s 'data.prompt_tokens=[2, 7]' -s 'generate.max_new_tokens=[3, 20]' -s generate.ignore_eos=false \
    -s run.save_steps=0 -s run.output_dir="$work/there" >"$work/there.log" 2>&1 || { cat "$work/there.log"; fail "the bundle"; }
same here there
sed -n 's/.*calling init: //p' "$work"/loaded.* | sort -u >"$work/objects"
grep -c "^$bundle/" "$work/objects" | sed 's/$/ objects of the bundle were loaded/'
if grep -v "^$bundle/" "$work/objects" | grep -Ev '/(ld-linux|lib(c|m|pthread|rt|dl|resolv|util|anl|nss_[a-z]*)\.so)'; then
    fail "these came from this machine"
fi

# its GPU tests say why they do not run; where CUDA's libraries are, its module loads and plans
rc=0
bare tests/gpu/check.sh quick >"$work/log" 2>&1 || rc=$?
tail -n 1 "$work/log"
[ $rc = 0 ] || [ $rc = 77 ] || { cat "$work/log"; fail "tests/gpu/check.sh: $rc"; }
if [ -f "$bundle/bin/rlhf-hpc-cuda.so" ] && ! ldd "$builddir/rlhf-hpc-cuda.so" | grep -q 'not found'; then
    bare rlhf-hpc --plan --bench tests/bench/neox-20b.cfg >"$work/log" 2>&1 || { cat "$work/log"; fail "a plan by the bundle's module"; }
fi

# in_jail COMMAND..: the same with the jail for a root
in_jail() {
    unshare -m bash -c 'set -e
        mount --rbind /dev "$0/dev" && mount --rbind /sys "$0/sys" && mount -t proc proc "$0/proc"
        exec chroot "$0" /usr/bin/env -i HOME=/ PATH=/usr/bin bash -c "cd $1 && . ./env.sh && \"\$@\"" "${@:1}"' \
        "$work/jail" "/$(basename "$bundle")" "$@"
}

# Programs and their libraries, links followed.
into_jail() {
    local file
    for file in $(command -v "$@") $(ldd $(command -v "$@") | awk '$2 == "=>" { print $3 } $1 ~ /^\/.*[^:]$/ { print $1 }' | sort -u); do
        mkdir -p "$work/jail/$(dirname "$file")"
        cp -Ln "$file" "$work/jail/$file"
    done
}

if [ "$(id -u)" != 0 ] || ! unshare -m true 2>/dev/null; then
    echo "no jail: not root"
    exit 0
fi
mkdir -p "$work/jail/dev" "$work/jail/sys" "$work/jail/proc" "$work/jail/tmp" "$work/jail/usr/bin"
ln -s usr/bin "$work/jail/bin"
into_jail bash awk basename cat chmod cmp cp cut date dirname env grep head id ls mkdir mktemp mv readlink rm sed sleep sort tail \
    timeout touch tr wc
libc=$(ldd "$(command -v bash)" | awk '$1 == "libc.so.6" { print $3 }')
for file in "$(dirname "$libc")"/lib{c,m,pthread,rt,dl,resolv,util,anl,nss_files,nss_dns}.so.?; do
    cp -Ln "$file" "$work/jail/$(dirname "$libc")/"
done
ln -sf bash "$work/jail/usr/bin/sh"
in_jail mpirun --oversubscribe -np 2 rlhf-hpc -s run.output_dir=/jailed -s run.max_steps=2 input/tiny-ppo.cfg >"$work/log" 2>&1 ||
    { cat "$work/log"; fail "in the jail"; }
grep -q 'step  *2/2' "$work/log" || { cat "$work/log"; fail "in the jail: no step 2"; }
if [ -e "$shim/rlhf-hpc-cuda.so" ] && [ -x "$bundle/tests/ops/rope" ]; then
    mkdir "$work/jail/shim"
    cp "$shim/rlhf-hpc-cuda.so" "$shim/libcuda.so.1" "$work/jail/shim/"
    for operation in activation adamw rope; do
        in_jail bash -c "LD_LIBRARY_PATH=\$LD_LIBRARY_PATH:/shim RLHF_TEST_DEVICE=cuda RLHF_TEST_SMALL=1 tests/ops/$operation" \
            >"$work/log" 2>&1 || { cat "$work/log"; fail "in the jail: $operation"; }
    done
fi
echo "runs with glibc, bash and basic tools alone"
