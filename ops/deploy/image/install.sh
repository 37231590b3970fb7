#!/bin/sh
# Installs attn as in the image; works without Docker as well:
#
#   install.sh dependencies SOURCE TARGET   creates the environment TARGET with the pins of SOURCE/requirements/run.txt
#   install.sh attn SOURCE TARGET           builds the wheel of SOURCE and installs it into TARGET
#
# SOURCE is a checkout, TARGET a directory that does not exist before the first step. PYTHON (python3) is the interpreter
# of the environment. Only packages with a hash in SOURCE/requirements are installed.
set -eu

[ $# -eq 3 ] || { echo "usage: install.sh dependencies|attn SOURCE TARGET" >&2; exit 2; }
step=$1 source=$2 target=$3
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT

"${PYTHON:-python3}" -m venv "$tools/env"
"$tools/env/bin/pip" install --quiet --disable-pip-version-check --no-cache-dir --require-hashes \
  --requirement "$source/requirements/build.txt"

case $step in
  dependencies)
    "${PYTHON:-python3}" -m venv --without-pip "$target"
    "$tools/env/bin/uv" pip sync --quiet --python "$target/bin/python" --compile-bytecode --require-hashes \
      "$source/requirements/run.txt"
    ;;
  attn)
    # The wheel, not the checkout: so the image runs the released files.
    "$tools/env/bin/pip" wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation \
      --wheel-dir "$tools/wheel" "$source"
    "$tools/env/bin/uv" pip install --quiet --python "$target/bin/python" --compile-bytecode --no-deps --no-index \
      "$tools"/wheel/attn-*.whl
    ;;
  *)
    echo "install.sh: unknown step $step" >&2
    exit 2
    ;;
esac
