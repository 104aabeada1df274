#!/usr/bin/env bash
# The built program with the shared libraries it needs, Open MPI's launcher among them, as one archive for nodes that lack them:
# unpack it anywhere, ". env.sh", and mpirun -np N rlhf-hpc input.cfg. Not in it: glibc, the driver, CUDA's libraries and NCCL.
# The tests that need a GPU travel with it: tests/gpu/check.sh.
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
of_node='^(ld-linux|libc\.|libm\.|libpthread|librt|libdl|libresolv|libutil|libcuda|libcudart|libcublas|libnccl|libnvidia)'

rm -rf "$out" && mkdir -p "$out/bin" "$out/$libs/openmpi/lib/openmpi3" "$out/$libs/pmix2/lib" "$out/share" "$out/etc/openmpi"

copy_programs() {
    cp rlhf-hpc "$out/bin/"
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
    find "$out" -type f \( -name '*.so*' -o -path "$out/bin/*" \) -exec strip --strip-unneeded {} + 2>/dev/null || true
}

copy_inputs() {
    for folder in input tests/gpu tests/bench tests/mpi; do
        mkdir -p "$out/$folder"
        cp -r "$source/$folder/." "$out/$folder/"
    done
    cp "$source/README.md" "$source/LICENSE" "$out/"
}

write_env() {
    cat >"$out/env.sh" <<END
# . env.sh: what the relocated programs need. CUDA_LIBS: folders of libcudart, libcublasLt and libnccl, where the loader
# does not find them (colons between).
here=\$(cd "\$(dirname "\${BASH_SOURCE[0]:-\$0}")" && pwd)
export OPAL_PREFIX=\$here OPAL_SYSCONFDIR=\$here/etc/openmpi
export PMIX_PKGLIBDIR=\$here/$libs/pmix2/lib/pmix PMIX_PKGDATADIR=\$here/$libs/pmix2/share/pmix HWLOC_PLUGINS_PATH=/nonexistent
export PATH=\$here/bin:\$PATH LD_LIBRARY_PATH=\$here/$libs\${CUDA_LIBS:+:\$CUDA_LIBS}\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
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
tar -C "$(dirname "$out")" -cJf "$name.tar.xz" "$name"
rm -rf "$out"
echo "$name.tar.xz: $(stat -c %s "$name.tar.xz") bytes"
