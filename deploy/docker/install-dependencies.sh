#!/bin/sh
# Usage: install-dependencies.sh TARGET
# Makes the virtual environment TARGET with exactly the locked versions, each archive held against its hash.
# uv does it in a tenth of pip's time, from pip's index; where it doesn't get through, pip does it. It isn't kept.
set -eu
here=$(dirname "$0")
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$1"
pip="$1/bin/pip --disable-pip-version-check"
index=${PIP_INDEX_URL:-$($pip config get global.index-url 2>/dev/null || echo https://pypi.org/simple)}
# Wheels only: a source archive would run its own code here, with whatever it needs fetched unlocked.
locked="--quiet --require-hashes --only-binary :all: --requirement"
# shellcheck disable=SC2086 # they are words
$pip install --target "$tools" $locked "$here/../../installer.lock" \
  && UV_DEFAULT_INDEX=$index "$tools/bin/uv" pip install --no-cache --system-certs --python "$1/bin/python" $locked "$here/requirements.lock" \
  || $pip install $locked "$here/requirements.lock"
