#!/usr/bin/env bash
# Build the Python environment of Fruits on a node from a wheelhouse, without a package index.
#
#   bootstrap_emr.sh WHEELHOUSE PREFIX PYTHON
#
#   WHEELHOUSE  the folder or s3://… address of the wheels and of requirements.txt, which pins the hash of each
#   PREFIX      the folder of the environment, such as /opt/fruits
#   PYTHON      the interpreter of the environment, such as python3.11
#
# It is safe to run again: a complete environment is kept, an incomplete one is rebuilt.
# On failure it exits with a code other than 0, and EMR ends the cluster.
set -Eeuo pipefail # E: the ERR trap covers functions
shopt -s inherit_errexit

log() { printf '%(%FT%TZ)T bootstrap: %s\n' -1 "$*"; }
fail() { log "FAILED: $*" >&2; exit 1; }
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
export TZ=UTC

[ $# -eq 3 ] || fail "usage: bootstrap_emr.sh WHEELHOUSE PREFIX PYTHON"
wheelhouse=$1 prefix=$2 python=$3
marker=$prefix/.complete # the digest of the installed requirements; written last
command -v "$python" >/dev/null || fail "$python is not installed on this node: the EMR release does not match the staged Python"

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
if ! [ -w "$prefix" ]; then
    mkdir -p "$prefix" 2>/dev/null || { as_root mkdir -p "$prefix" && as_root chown "$(id -u)" "$prefix"; }
fi

exec 9>"$prefix/.lock"
flock 9

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() { # NAME: one file of the wheelhouse, or * for all
    case $wheelhouse in
        s3://*) aws s3 cp --quiet --recursive "$wheelhouse" "$work" --exclude '*' --include "$1" ;;
        *) cp -r "$wheelhouse"/$1 "$work" ;;
    esac
}
fetch requirements.txt
[ -s "$work/requirements.txt" ] || fail "$wheelhouse has no requirements.txt; stage it with: fruits cluster stage"
digest=$(sha256sum "$work/requirements.txt" | cut -d ' ' -f 1)
if [ -f "$marker" ] && [ "$(cat "$marker")" = "$digest" ]; then
    log "$prefix is complete already"
    exit 0
fi

log "fetching $wheelhouse"
fetch '*'
log "building $prefix with $("$python" --version)"
rm -f "$marker"
find "$prefix" -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} +
"$python" -m venv --without-pip "$prefix"
pip=$(echo "$work"/pip-*.whl)
PIP_NO_INDEX=1 PIP_FIND_LINKS=$work PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_CONFIG_FILE=/dev/null \
    "$prefix/bin/python" -I "$pip/pip" install --quiet --no-deps --require-hashes --only-binary :all: \
    -r "$work/requirements.txt" # the system may have an old pip or none

log "testing $prefix"
"$prefix/bin/python" -I -c 'import backends, fruits.cli.main, openvino, pandas, pyarrow, s3fs'
"$prefix/bin/fruits" --version
chmod -R a+rX "$prefix"
printf '%s' "$digest" >"$marker"
log "$prefix is complete"
