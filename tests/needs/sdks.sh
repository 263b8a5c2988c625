#!/usr/bin/env bash
# The official SDKs of OpenAI (Python, Node) and Anthropic (Python), for the tests of the gateway. They are put into
# tests/.installed/sdks, whatever the target directory is. Nothing is done when these versions are there.
set -euo pipefail
cd "$(dirname "$0")/.."
python_packages=(openai==3.51.0 anthropic==2.10.0)
node_packages=(openai@6.49.0)
into="$PWD/.installed/sdks"
wanted="$(python3 -c 'import sys; print(*sys.version_info[:2])' 2>/dev/null || echo none) ${python_packages[*]} ${node_packages[*]}"
if [ -f "$into/done" ] && [ "$(cat "$into/done")" = "$wanted" ]; then
    exit 0
fi

# A Debian machine may have neither; root may change that.
need() {
    command -v "$1" >/dev/null && return
    echo "tests/needs/sdks.sh: $1 is not there; installing $2"
    local apt=(apt-get)
    if [ "$(id -u)" != 0 ]; then apt=(sudo -n apt-get); fi
    if ! { "${apt[@]}" -qq update && "${apt[@]}" -qq install -y --no-install-recommends $2; } >&2; then
        echo "tests/needs/sdks.sh: $1 is missing, and $2 could not be installed; install it, then run: bash tests/install.sh" >&2
        exit 1
    fi
}
need python3 "python3 python3-pip"
need node "nodejs npm"
need npm npm
if ! python3 -m pip --version >/dev/null 2>&1; then
    need pip3 python3-pip
fi
if ! node -e 'process.exit(Number(process.versions.node.split(".")[0]) >= 18 ? 0 : 1)'; then
    echo "tests/needs/sdks.sh: node $(node --version) is older than 18, which the SDK needs; install a newer one, then run: bash tests/install.sh" >&2
    exit 1
fi
offline() {
    echo "tests/needs/sdks.sh: the SDKs could not be fetched ($1). The tests of the gateway need them: with a network, run: bash tests/install.sh" >&2
    exit 1
}
# Says what a command said only if it fails: pip and npm also talk about things that are none of ours.
run() {
    local said
    said=$("$@" 2>&1) && return
    echo "$said" >&2
    return 1
}
rm -rf "$into"
mkdir -p "$into/python" "$into/node"
echo "tests/needs/sdks.sh: installing ${python_packages[*]} ${node_packages[*]} (npm) into tests/.installed"
run python3 -m pip install --disable-pip-version-check --no-input --target "$into/python" "${python_packages[@]}" || offline pip
run npm install --no-audit --no-fund --no-save --prefix "$into/node" "${node_packages[@]}" || offline npm
printf %s "$wanted" >"$into/done"
