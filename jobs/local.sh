#!/usr/bin/env bash
# One machine, from nothing: installs what is missing, builds, then runs the main job or the tests.
#   jobs/local.sh run [OPTIONS] [input.cfg]   the main job (input/tiny-ppo.cfg) on two ranks
#   jobs/local.sh check                       make check
# BUILD=folder (default: build/ in the source tree), NP=ranks (default 2).
set -euo pipefail
cd "$(dirname "$0")/.."
source_dir=$PWD
build=${BUILD:-$source_dir/build}

packages="gcc g++ make autoconf automake libtool pkg-config openmpi-bin libopenmpi-dev libhdf5-openmpi-dev libconfig-dev
libjansson-dev libpcre2-dev libutf8proc-dev libcmocka-dev"

install_missing() {
    command -v dpkg-query >/dev/null || {
        echo "jobs/local.sh: not a Debian or Ubuntu system; it needs the equivalents of:" $packages >&2
        return 0
    }
    local missing=
    for p in $packages; do
        dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
    done
    [ -n "$missing" ] || return 0
    local sudo=
    if [ "$(id -u)" != 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
            sudo=sudo
        else
            echo "jobs/local.sh: these packages are missing and you may not install them:$missing" >&2
            echo "jobs/local.sh: ask an administrator for: apt-get install$missing" >&2
            exit 1
        fi
    fi
    echo "installing:$missing"
    $sudo apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

build() {
    [ -x configure ] && [ configure -nt configure.ac ] && [ Makefile.in -nt Makefile.am ] || ./autogen.sh
    mkdir -p "$build"
    cd "$build"
    [ -f Makefile ] && [ config.status -nt "$source_dir/configure" ] || "$source_dir/configure" -q
    make -s -j"$(nproc)"
}

case ${1:-} in
run)
    install_missing
    (build)
    [ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    shift
    [ $# -gt 0 ] || set -- input/tiny-ppo.cfg
    exec mpirun --oversubscribe -np "${NP:-2}" "$build/rlhf-hpc" "$@"
    ;;
check)
    install_missing
    (build)
    exec make -C "$build" -s -j"$(nproc)" check
    ;;
*)
    sed -n '2,5s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
