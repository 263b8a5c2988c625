#!/usr/bin/env bash
# Installs what the tests need beside Rust and a C compiler: each script of tests/needs puts one thing there, or finds that it is there.
set -euo pipefail
cd "$(dirname "$0")"
shopt -s nullglob
for need in needs/*.sh; do
    bash "$need"
done
