"""What it costs to read every step of an RLDS dataset, against tensorflow_datasets reading the same folder.

python -m benchmarks.rlds DATASET PYTHON [--pairs 5]

DATASET: a folder with `features.json` and an `episode.toml` that says its rate. PYTHON: an interpreter that has
tensorflow and tensorflow_datasets. By turns, each in a process of its own: CPU and wall seconds of all threads without
the imports, and the most memory. Here pictures end as YUV 4:2:0, which the tokenizer takes, there as RGB.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

_MEASURED = """
import json, resource, sys, time
{imports}
cpu, wall = time.process_time(), time.perf_counter()
steps = 0
{body}
cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({{"steps": steps, "cpu_s": cpu, "wall_s": wall, "memory_mb": most}}))
"""
_OURS = """
for found in find_episodes([Path(sys.argv[1])]):
    for track in read_episode(found, None, lambda line: None).tracks.values():
        count = sum(len(block.values) for block in track.blocks())
        steps += count if track.name == "video" else 0
"""
_THEIRS = """
data = tfds.builder_from_directory(sys.argv[1]).as_dataset(split="all")
for episode in data:
    for step in tfds.as_numpy(episode["steps"]):
        steps += 1
"""


def measured(python: str, imports: str, body: str, dataset: str) -> dict[str, float]:
    code = _MEASURED.format(imports=imports, body=body)
    done = subprocess.run([python, "-c", code, dataset], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("python")
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    ours, theirs = [], []
    for _ in range(asked.pairs):
        imports = "from pathlib import Path\nfrom pantok.formats.folder import find_episodes, read_episode"
        ours.append(measured(sys.executable, imports, _OURS, asked.dataset))
        theirs.append(measured(asked.python, "import tensorflow_datasets as tfds", _THEIRS, asked.dataset))
    assert {run["steps"] for run in (*ours, *theirs)} == {ours[0]["steps"]}
    print(f"{ours[0]['steps']} steps; median of {asked.pairs}, by turns")
    for key in ("cpu_s", "wall_s", "memory_mb"):
        a, b = (statistics.median(run[key] for run in runs) for runs in (ours, theirs))
        print(f"{key:10} pantok {a:8.2f}   tensorflow_datasets {b:8.2f}   ratio {a / b:.2f}")


if __name__ == "__main__":
    main()
