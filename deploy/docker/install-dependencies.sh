#!/bin/sh
# Usage: install-dependencies.sh TARGET
# Makes the virtual environment TARGET with exactly the locked versions, each archive held against its hash.
set -eu
here=$(dirname "$0")
python3 -m venv "$1"
# Wheels only: a source archive would run its own code here, with whatever it needs fetched unlocked.
"$1/bin/pip" install --quiet --disable-pip-version-check \
  --require-hashes --only-binary :all: --requirement "$here/requirements.lock"
