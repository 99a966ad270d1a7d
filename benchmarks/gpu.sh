#!/usr/bin/env bash
# Everything that only a GPU can show, in one command of at most 8 minutes; its findings go into one file that grows.
#
#   benchmarks/gpu.sh                    all checks, into benchmarks/gpu/results.json
#   benchmarks/gpu.sh --out FILE NAME…   some checks, into another file (seen from the checkout); --help lists them.
#                                        What the file says of other checks stays
#   benchmarks/gpu.sh --toy --out FILE   the same code on the CPU with tiny networks: shows that it runs
#   benchmarks/gpu.sh --wheels           fetches what the machine with the GPU lacks, where there is a network
#
# The machine with the GPU needs Python, torch, torchvision, timm, scikit-learn, pandas and pyarrow; no Ray, no MLflow,
# no network. What else is needed and missing is installed from benchmarks/wheels/, beside it, for this command alone.
# PYTHON names the interpreter; WHEELS_FOR the Python version of the machine with the GPU (3.12).
set -euo pipefail
cd "$(dirname "$0")/.."
wheels=benchmarks/wheels
installed=$wheels/site-packages  # a name that mypy and pytest leave alone
packages='annotated-types|ftfy|open-clip-torch|pydantic|pydantic-core|regex|segment-anything|typing-extensions|typing-inspection|wcwidth'
modules='annotated_types ftfy open_clip pydantic pydantic_core regex segment_anything typing_extensions typing_inspection wcwidth'
python=${PYTHON:-python3}
if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ]; then python=.venv/bin/python; fi

if [ "${1:-}" = --wheels ]; then
    rm -rf "$wheels"
    mkdir -p "$wheels"
    # The versions of the lock, each checked against its hashes.
    awk -v names="^($packages)==" '/^[^ #]/ { wanted = $0 ~ names } wanted && !/^ *#/' requirements.lock > "$wheels/wanted.txt"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
        --python-version "${WHEELS_FOR:-3.12}" --implementation cp --platform manylinux_2_28_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --dest "$wheels" -r "$wheels/wanted.txt"
    ls -l "$wheels"
    du -sh "$wheels"
    exit
fi

# shellcheck disable=SC2086  # one word per module
if ! "$python" -c 'import importlib.util as u, sys; sys.exit(any(u.find_spec(n) is None for n in sys.argv[1:]))' $modules; then
    if [ ! -d "$installed" ]; then
        ls "$wheels"/*.whl > /dev/null 2>&1 || {
            echo "packages are missing: run 'benchmarks/gpu.sh --wheels' where there is a network, and bring $wheels" >&2
            exit 2
        }
        "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
            --target "$installed.part" "$wheels"/*.whl
        mv "$installed.part" "$installed"
    fi
    export PYTHONPATH="$PWD/$installed${PYTHONPATH:+:$PYTHONPATH}"
fi
exec "$python" -m benchmarks.gpu "$@"
