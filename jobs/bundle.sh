#!/usr/bin/env bash
# The built program with the shared libraries it needs, Open MPI's launcher among them, as one archive for nodes that lack them:
# unpack it anywhere, ". env.sh" in bash, and mpirun -np N rlhf-hpc input.cfg. Not in it: glibc, the driver, CUDA's libraries and
# NCCL. The tests that need a GPU travel with it: tests/gpu/check.sh, tests/bench/gpu.sh. For Debian's and Ubuntu's Open MPI 4.
#   jobs/bundle.sh NAME [PROGRAM..]   from the build folder: NAME.tar.xz of ./rlhf-hpc, rlhf-hpc-cuda.so and test programs
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
name=$1 && shift
out=$PWD/$name
prefix=$(dirname "$(dirname "$(command -v mpirun)")")
libs=lib/$(gcc -dumpmachine)

# what the program's kind of run cannot use: network transports with libraries of their own, other launchers
unused='ucx|ofi|openib|psm|portals|usnic|oshmem|memheap|atomic|monitoring|flux|gridengine|simulator|pml_cm|mtl_'
# comes from the node
of_node='^(ld-linux|(libc|libm|libpthread|librt|libdl|libresolv|libutil|libanl)\.|libcuda|libcublas|libnccl|libnvidia)'

if ! [ -d "$prefix/$libs/openmpi/lib/openmpi3" ]; then
    echo "jobs/bundle.sh: $prefix/$libs has no openmpi/lib/openmpi3: it knows Debian's Open MPI 4 only" >&2
    exit 1
fi
rm -rf "$out" && mkdir -p "$out/bin" "$out/$libs/openmpi/lib/openmpi3" "$out/$libs/pmix2/lib" "$out/share" "$out/etc/openmpi"

copy_programs() {
    cp rlhf-hpc "$out/bin/"
    ln -s bin/rlhf-hpc "$out/rlhf-hpc" # where a build has it, for the tests
    if [ -f rlhf-hpc-cuda.so ]; then
        cp rlhf-hpc-cuda.so "$out/bin/"
    fi
    cp -L "$prefix/bin/orterun" "$prefix/bin/orted" "$out/bin/"
    ln -s orterun "$out/bin/mpirun"
    for program in "$@"; do
        mkdir -p "$out/$(dirname "$program")"
        cp "$program" "$out/$program"
    done
}

copy_mpi() {
    cp -r "$prefix/share/openmpi" "$out/share/"
    cp /etc/openmpi/openmpi-mca-params.conf "$out/etc/openmpi/"
    cp -rL "$prefix/$libs/pmix2/lib/pmix" "$out/$libs/pmix2/lib/"
    cp -r "$prefix/$libs/pmix2/share" "$out/$libs/pmix2/"
    for plugin in "$prefix/$libs"/openmpi/lib/openmpi3/*.so; do
        if ! [[ $(basename "$plugin") =~ $unused ]]; then
            cp -L "$plugin" "$out/$libs/openmpi/lib/openmpi3/"
        fi
    done
}

copy_libraries() {
    local soname path
    find "$out" -type f \( -name '*.so*' -o -perm -u+x \) -print0 | xargs -0 ldd 2>/dev/null |
        awk '$2 == "=>" && $3 ~ /^\// { print $1, $3 }' | sort -u |
        while read -r soname path; do
            if ! [[ $soname =~ $of_node ]]; then
                cp -Ln "$path" "$out/$libs/$soname"
            fi
        done
    find "$out" -type f \( -name '*.so*' -o -path "$out/bin/*" -o -path "$out/tests/*" -perm -u+x \) \
        -exec strip --strip-unneeded {} + 2>/dev/null || true # not all are programs
}

# What tests/gpu and tests/bench/gpu.sh run and read.
copy_inputs() {
    (cd "$source" && tar -cf - README.md LICENSE input tests/gpu/*.sh tests/mpi/run.sh tests/mpi/ppo_runs.sh tests/mpi/killed.sh \
        tests/reference tests/bench/gpu.sh tests/bench/peer_ppo.py tests/bench/*.cfg tests/bench/*/config.json) | tar -C "$out" -xf -
}

write_env() {
    cat >"$out/env.sh" <<END
# . env.sh, in bash: what the programs need here. CUDA_LIBS: folders of libcudart, libcublasLt and libnccl, colons between; by default
# the toolkit's and those of Python's packages.
bundle=\$(cd "\$(dirname "\${BASH_SOURCE[0]:-\$0}")" && pwd)
if [ -z "\${CUDA_LIBS:-}" ]; then
    for folder in "\${CUDA_HOME:-/usr/local/cuda}/lib64" \$(python3 -c 'import glob, nvidia
print(*[folder for path in nvidia.__path__ for folder in glob.glob(path + "/*/lib")])' 2>/dev/null); do
        [ ! -d "\$folder" ] || CUDA_LIBS=\${CUDA_LIBS:+\$CUDA_LIBS:}\$folder
    done
fi
export OPAL_PREFIX=\$bundle OPAL_SYSCONFDIR=\$bundle/etc/openmpi
export PMIX_PKGLIBDIR=\$bundle/$libs/pmix2/lib/pmix PMIX_PKGDATADIR=\$bundle/$libs/pmix2/share/pmix HWLOC_PLUGINS_PATH=/nonexistent
export PATH=\$bundle/bin:\$PATH
export LD_LIBRARY_PATH=\$bundle/$libs\${CUDA_LIBS:+:\$CUDA_LIBS}\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
if ! command -v ssh rsh srun >/dev/null; then
    export OMPI_MCA_plm=isolated # no way to start ranks elsewhere, which the launcher would ask for
fi
if [ "\$(id -u)" = 0 ]; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
END
}

copy_programs "$@"
copy_mpi
copy_libraries
copy_inputs
write_env
tar -C "$(dirname "$out")" -cf - "$name" | xz -T0 >"$name.tar.xz"
rm -rf "$out"
echo "$name.tar.xz: $(stat -c %s "$name.tar.xz") bytes"
