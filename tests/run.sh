#!/usr/bin/env bash
# Installs pantok with its test extras (into .venv, unless a virtual environment is active) and runs the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -z "${VIRTUAL_ENV:-}" ]; then
    [ -x .venv/bin/python ] || python3 -m venv .venv
    . .venv/bin/activate
fi
python -m pip install --quiet -e ".[test]" --config-settings editable_mode=compat
exec python -m pytest -n "${PANTOK_TEST_WORKERS:-2}" --dist worksteal "$@"
