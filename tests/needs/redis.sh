#!/usr/bin/env bash
# A Redis server, for the tests of the shared budget: Debian's package, or its files unpacked into tests/.installed where we may not install.
# The tests start servers of their own on free ports; the package's service is not started.
set -euo pipefail
cd "$(dirname "$0")/.."
if command -v redis-server >/dev/null || [ -x .installed/redis/usr/bin/redis-server ]; then
    exit 0
fi
become=()
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then become=(sudo -n); else become=(none); fi
fi
if [ "${become[*]-}" != none ]; then
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${become[@]}" tee "$policy" >/dev/null
        "${become[@]}" chmod +x "$policy"
        trap '"${become[@]}" rm -f "$policy"' EXIT
    fi
    install() { "${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends redis-server; }
    install || { "${become[@]}" apt-get update -q && install; }
    exit 0
fi
mkdir -p .installed/redis
cd .installed/redis
# What the server needs beside the C library.
apt-get download redis-server redis-tools libjemalloc2 liblua5.1-0 liblzf1 libhiredis0.14 lua-bitop lua-cjson
for package in *.deb; do dpkg -x "$package" . && rm "$package"; done
