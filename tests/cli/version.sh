#!/bin/sh
# --version and --help: without mpirun, without starting MPI (which a broken setting of it would stop).
program=$builddir/rlhf-hpc
for option in --version -V --help; do
    OMPI_MCA_pml=none "$program" $option >"${TMPDIR:-/tmp}/rlhf-hpc-version.$$" 2>&1
    code=$?
    said=$(cat "${TMPDIR:-/tmp}/rlhf-hpc-version.$$")
    rm -f "${TMPDIR:-/tmp}/rlhf-hpc-version.$$"
    [ $code -eq 0 ] || { echo "$option: exit code $code: $said"; exit 1; }
    case $option in
    --help) lines='Usage: reference.cfg' ;;
    *) lines='rlhf-hpc compiler MPI HDF5 CUDA NCCL CPU chosen' ;;
    esac
    for word in $lines; do
        case $said in *"$word"*) ;; *) echo "$option does not mention $word: $said"; exit 1 ;; esac
    done
done
