#!/usr/bin/env bash
# Build the Python environment of Fruits on a node from a wheelhouse, without a package index.
#
#   bootstrap_emr.sh WHEELHOUSE PREFIX PYTHON [MINUTES [ARCHIVE]]
#
#   WHEELHOUSE  the folder or s3://… address of the wheels and of requirements.txt, which pins the hash of each
#   PREFIX      the folder of the environment, such as /opt/fruits
#   PYTHON      the interpreter of the environment, such as python3.11
#   MINUTES     after which the master node shuts down, and its cluster with it, whatever runs on it
#   ARCHIVE     a Python build, a .tar.gz with python/bin/PYTHON in it, and its digest in ARCHIVE.sha256; it is unpacked
#               in PREFIX-python
#
# It is safe to run again: a complete environment is kept, an incomplete one is rebuilt.
# On failure it exits with a code other than 0, and EMR ends the cluster. Bash 4.2 of Amazon Linux 2 suffices: it has no
# inherit_errexit, so no command that may fail stands in a substitution within another command.
set -Eeuo pipefail # E: the ERR trap covers functions

log() { printf '%(%FT%TZ)T bootstrap: %s\n' -1 "$*"; }
fail() { log "FAILED: $*" >&2; exit 1; }
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
export TZ=UTC

[ $# -ge 3 ] && [ $# -le 5 ] || fail "usage: bootstrap_emr.sh WHEELHOUSE PREFIX PYTHON [MINUTES [ARCHIVE]]"
wheelhouse=$1 prefix=$2 python=$3 minutes=${4:-} archive=${5:-}
marker=$prefix/.complete # the digest of the installed requirements; written last

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
own() { # FOLDER: create it, writable
    [ -w "$1" ] || mkdir -p "$1" 2>/dev/null || { as_root mkdir -p "$1" && as_root chown "$(id -u)" "$1"; }
    [ -w "$1" ] || as_root chown "$(id -u)" "$1"
}

# EMR describes a node in this file: https://docs.aws.amazon.com/emr/latest/ManagementGuide/emr-plan-bootstrap.html
node=${FRUITS_NODE_FILE:-/mnt/var/lib/info/instance.json}
if [ -n "$minutes" ] && [ -f "$node" ] && grep -q '"isMaster": *true' "$node"; then
    log "this cluster shuts down in $minutes minutes"
    as_root shutdown -h "+$minutes"
fi

own "$prefix"
exec 9>"$prefix/.lock"
flock 9

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() { # FOLDER NAME: one file of the folder, or * for all
    case $1 in
        s3://*) aws s3 cp --quiet --recursive "$1" "$work" --exclude '*' --include "$2" ;;
        *) cp -r "$1"/$2 "$work" ;;
    esac
}
fetch "$wheelhouse" requirements.txt
[ -s "$work/requirements.txt" ] || fail "$wheelhouse has no requirements.txt; stage it with: fruits cluster stage"
digest=$(sha256sum "$work/requirements.txt" | cut -d ' ' -f 1)
if [ -n "$archive" ]; then
    fetch "${archive%/*}" "${archive##*/}.sha256"
    [ -s "$work/${archive##*/}.sha256" ] || fail "$archive is not staged; stage it with: fruits cluster stage --python-archive"
    built=$(cut -d ' ' -f 1 "$work/${archive##*/}.sha256")
    digest=$digest-$built
fi
if [ -f "$marker" ] && [ "$(cat "$marker")" = "$digest" ]; then
    log "$prefix is complete already"
    exit 0
fi

if [ -n "$archive" ]; then
    log "unpacking $archive"
    fetch "${archive%/*}" "${archive##*/}"
    echo "$built  $work/${archive##*/}" | sha256sum --check --quiet || fail "$archive is not the file that was staged"
    own "$prefix-python"
    find "$prefix-python" -mindepth 1 -delete
    tar -xzf "$work/${archive##*/}" -C "$prefix-python"
    rm "$work/${archive##*/}"
    python=$prefix-python/python/bin/$python
fi
command -v "$python" >/dev/null || fail "$python is not installed on this node: the EMR release does not match the staged Python"

log "fetching $wheelhouse"
fetch "$wheelhouse" '*'
version=$("$python" --version)
log "building $prefix with $version"
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
[ -z "$archive" ] || chmod -R a+rX "$prefix-python"
printf '%s' "$digest" >"$marker"
log "$prefix is complete"
