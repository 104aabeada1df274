#!/bin/sh
# Makes ./configure from configure.ac. Needs autoconf 2.71, automake 1.16, libtool 2.4, pkg-config.
set -e
cd "$(dirname "$0")"
mkdir -p m4
exec autoreconf --force --install --warnings=all,no-portability
