"""What happens to a store: kill -9 while four processes write, flipped bits, removed objects. Counts what was missed.

    python benchmarks/faults.py [--kills 100] [--bits 1000]

Prints a markdown table. Exits with 1 if an episode that was said to be committed is lost or differs, if a flipped bit
or a removed object is not found by `verify`, or if verify names anything in a store to which nothing was done.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pantok.formats.store import Store
from pantok.formats.store_verify import verify_store

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests.store_streams import a_stream, a_vocabulary  # noqa: E402

VOCABULARY = a_vocabulary()
EPISODES = 400
WRITE = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.store_streams import a_stream, a_vocabulary
from pantok.formats.store import Store
vocabulary = a_vocabulary()
store = Store.create_or_open(sys.argv[1], vocabulary)
print("ready", flush=True)
for number in range(int(sys.argv[3]), int(sys.argv[4])):
    stream = a_stream(number, vocabulary)
    if not store.has(stream.id, stream.sources, stream.parameters):
        store.write([stream])
        print(stream.id, flush=True)
"""


def kills(path: Path, wanted: int) -> tuple[int, int, int, int]:
    """(kills, episodes said to be committed, of those lost, faults found) with four writers all the time."""
    draw, done, lost, faults = random.Random(0), 0, 0, 0
    said: set[str] = set()
    Store.create(path, VOCABULARY)
    while done < wanted:
        writers = []
        for k in range(4):  # overlapping shares, another part of the store each round
            first = (k * 60 + done * 3) % EPISODES
            words = [sys.executable, "-c", WRITE, str(path), str(ROOT), str(first), str(first + 100)]
            writers.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))
        for writer in writers:
            assert writer.stdout is not None
            writer.stdout.readline()
        for writer in draw.sample(writers, 4):
            time.sleep(draw.uniform(0, 0.25))
            writer.send_signal(signal.SIGKILL)
            said.update(writer.communicate()[0].split())
            done += writer.returncode == -signal.SIGKILL
            store = Store.open(path)
            lost += len(said - set(store.episodes))
        faults += sum(problem.is_fault for problem in verify_store(path))
    store = Store.open(path)
    for name in sorted(said):
        expected = a_stream(int(name[-3:]), VOCABULARY)
        same = all(
            (x.codes == y.codes).all()
            for t in expected.tracks
            for x, y in zip(expected.tracks[t].levels, store.read(name).tracks[t].levels, strict=True)
        )
        lost += not same
    store.write([a_stream(999, VOCABULARY)])  # the next run clears up and completes
    faults += len(list(Store.open(path).verify()))
    return done, len(said), lost, faults


def harm(path: Path, bits: int) -> tuple[int, int, int, int]:
    """(bits flipped, of those not found, objects removed, of those not found)."""
    draw = random.Random(1)
    assert not [p for p in verify_store(path) if p.is_fault]
    files = sorted(f for f in path.rglob("*") if f.is_file())
    missed = 0
    for _ in range(bits):
        file = draw.choice(files)
        data = file.read_bytes()
        at = draw.randrange(len(data))
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :])
        name = str(file.relative_to(path))
        missed += not any(p.path == name for p in verify_store(path) if p.is_fault)
        file.write_bytes(data)
    lost = 0
    newest = max((path / "manifest").glob("*.json"))  # without it what it listed is found unlisted
    for file in files:
        data = file.read_bytes()
        file.unlink()
        name = str(file.relative_to(path))
        found = list(verify_store(path))
        lost += not (any(p.path == name for p in found) or (file == newest and found))
        file.write_bytes(data)
    return bits, missed, len(files), lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--bits", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done, said, lost, faults = kills(Path(folder) / "killed.zarr", options.kills)
        small = Store.create(Path(folder) / "small.zarr", VOCABULARY)
        small.write(a_stream(n, VOCABULARY) for n in range(3))
        flipped, missed, removed, unseen = harm(small.path, options.bits)
    print("| what was done | how often | what went wrong |\n|---|---|---|")
    print(f"| kill -9 of one of four writers ({said} episodes committed) | {done} | {lost} lost, {faults} faults |")
    print(f"| a bit flipped | {flipped} | {missed} not found |")
    print(f"| an object removed | {removed} | {unseen} not found |")
    sys.exit(bool(lost or faults or missed or unseen))


if __name__ == "__main__":
    main()
