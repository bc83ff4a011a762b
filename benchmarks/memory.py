"""The most memory that `pantok encode` takes for one file, with all its processes, as the kernel accounts it.

python benchmarks/memory.py FILE --vocab X.vocab
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--vocab", type=Path, required=True)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "out.zarr"
        began = time.perf_counter()
        command = [sys.executable, "-m", "pantok", "encode", str(args.file)]
        command += ["--vocab", str(args.vocab), "-o", str(store)]
        done = subprocess.run(command, check=False)
        assert done.returncode in (0, 4), done  # 4: a fault in the file was filled, and said
        seconds = time.perf_counter() - began
        stored = sum(f.stat().st_size for f in store.rglob("*") if f.is_file())
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print("| file | encode, s | peak memory, MB | store, MB |")
    print("|---|---|---|---|")
    print(f"| {args.file.name} | {seconds:.0f} | {peak / 1e6:.0f} | {stored / 1e6:.1f} |")


if __name__ == "__main__":
    main()
