#!/bin/sh
# Usage: install-sitelog.sh TARGET
# Builds the wheel of the sources around this script and installs it into the virtual environment TARGET.
set -eu
sources=$(cd "$(dirname "$0")/../.." && pwd)
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
"$1/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$wheels" "$sources"
"$1/bin/pip" install --quiet --disable-pip-version-check --no-deps "$wheels"/sitelog-*.whl
# The lock must hold all that the wheel asks for.
"$1/bin/pip" check --disable-pip-version-check
"$1/bin/sitelog" --version
