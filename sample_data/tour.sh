#!/usr/bin/env bash
# Installs pantok (into .venv, unless a virtual environment is active) and takes sample_data/, or other recordings,
# through the whole path: tour.sh [RESULTS [RECORDINGS]]
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-results/tour}
recordings=${2:-sample_data}
if [ -z "${VIRTUAL_ENV:-}" ]; then
    [ -x .venv/bin/python ] || python3 -m venv .venv
    . .venv/bin/activate
fi
python -m pip install --quiet -e . --config-settings editable_mode=compat

mkdir -p "$out"
run() { printf '\n$ %s\n' "$*" >&2; "$@"; }
run pantok fit-vocab "$recordings" -o "$out/sample.vocab" --force
run pantok encode "$recordings" --vocab "$out/sample.vocab" -o "$out/sample.zarr" --force
run pantok decode "$out/sample.zarr" -o "$out/decoded" --force
run pantok eval "$out/sample.zarr" --html "$out/report.html"

cat >&2 <<END

The vocabulary is in $out/sample.vocab, the token streams in $out/sample.zarr, what they decode to in
$out/decoded/, and the measurements, with pictures, in $out/report.html.
END
