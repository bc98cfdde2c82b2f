#!/usr/bin/env bash
# Builds the Python environment of Fruits on a node, from a wheelhouse and from nothing else.
#
#   bootstrap_emr.sh WHEELHOUSE PREFIX PYTHON
#
#   WHEELHOUSE  wheels, and requirements.txt, which pins each of them by its hash: s3://… or a folder
#   PREFIX      where the environment goes, such as /opt/fruits
#   PYTHON      the interpreter that it is made with, such as python3.11
#
# It may run any number of times: what is there and whole is left as it is, what is there and not whole is made anew.
# It tells what it does, and ends with another code than 0 where anything is wrong; EMR then ends the cluster.
set -Eeuo pipefail # E: what fails in a function is told too
shopt -s inherit_errexit

say() { printf '%(%FT%TZ)T bootstrap: %s\n' -1 "$*"; }
fail() { say "FAILED: $*" >&2; exit 1; }
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
export TZ=UTC

[ $# -eq 3 ] || fail "usage: bootstrap_emr.sh WHEELHOUSE PREFIX PYTHON"
wheelhouse=$1 prefix=$2 python=$3
whole=$prefix/.whole # holds the digest of what was installed; written last
command -v "$python" >/dev/null || fail "$python is not on this node; the release of EMR and the staged Python do not agree"

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }
if ! [ -w "$prefix" ]; then
    mkdir -p "$prefix" 2>/dev/null || { as_root mkdir -p "$prefix" && as_root chown "$(id -u)" "$prefix"; }
fi

exec 9>"$prefix/.lock"
flock 9

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch() { # NAME: one file of the wheelhouse, or all of it
    case $wheelhouse in
        s3://*) aws s3 cp --quiet --recursive "$wheelhouse" "$work" --exclude '*' --include "$1" ;;
        *) cp -r "$wheelhouse"/$1 "$work" ;;
    esac
}
fetch requirements.txt
[ -s "$work/requirements.txt" ] || fail "$wheelhouse holds no requirements.txt; was it staged?"
digest=$(sha256sum "$work/requirements.txt" | cut -d ' ' -f 1)
if [ -f "$whole" ] && [ "$(cat "$whole")" = "$digest" ]; then
    say "$prefix is whole already"
    exit 0
fi

say "fetching $wheelhouse"
fetch '*'
say "making $prefix with $("$python" --version)"
rm -f "$whole"
find "$prefix" -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} +
"$python" -m venv --without-pip "$prefix"
pip=$(echo "$work"/pip-*.whl)
PIP_NO_INDEX=1 PIP_FIND_LINKS=$work PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_CONFIG_FILE=/dev/null \
    "$prefix/bin/python" -I "$pip/pip" install --quiet --no-deps --require-hashes --only-binary :all: \
    -r "$work/requirements.txt" # by the pip of the wheelhouse: that of the system may be old, or missing

say "looking at it"
"$prefix/bin/python" -I -c 'import backends, fruits.cli.main, openvino, pandas, pyarrow, s3fs'
"$prefix/bin/fruits" --version
chmod -R a+rX "$prefix"
printf '%s' "$digest" >"$whole"
say "$prefix is whole"
