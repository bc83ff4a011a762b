"""What it costs to read the episodes of a LeRobot dataset out of the film that they share, against reading that whole.

python benchmarks/lerobot.py [--episodes 100] [--frames 300] [--codec libsvtav1] [--pairs 5]

A dataset of version 3 with one camera of 640x480, a keyframe every second picture as LeRobot writes them. By turns:
every episode's pictures and rows through `read_episode`, and the film's pictures alone in one pass. CPU seconds of all
threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet

from pantok.formats.container import read_container
from pantok.formats.folder import find_episodes, read_episode

RATE, HEIGHT, WIDTH = 30, 480, 640
PLACE = {"chunk_index": 0, "file_index": 0}
FILE = "chunk-000/file-000"


def written(root: Path, episodes: int, frames: int, codec: str) -> Path:
    """The dataset; returns its film."""
    film = root / "videos" / "observation.images.top" / f"{FILE}.mp4"
    for folder in (film.parent, root / "data" / "chunk-000", root / "meta" / "episodes" / "chunk-000"):
        folder.mkdir(parents=True)
    count = episodes * frames
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    with av.open(str(film), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.height, stream.width, stream.pix_fmt, stream.codec_context.gop_size = HEIGHT, WIDTH, "yuv420p", 2
        stream.options = {"crf": "30", "preset": "12" if codec == "libsvtav1" else "veryfast"}
        for number in range(count):
            grey = (127 + 60 * np.sin((x + 2 * number) / 40) + 60 * np.cos((y + number) / 30)).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "gray")))
        container.mux(stream.encode(None))
    index = np.repeat(np.arange(episodes), frames)
    state = np.random.default_rng(0).normal(size=(count, 14)).astype(np.float32).cumsum(0)
    rows = {
        "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(state.ravel()), 14),
        "frame_index": np.tile(np.arange(frames), episodes), "episode_index": index, "task_index": np.zeros(count, int),
        "timestamp": (np.tile(np.arange(frames), episodes) / RATE).astype(np.float32),
    }  # fmt: skip
    pyarrow.parquet.write_table(pa.table(rows), root / "data" / f"{FILE}.parquet", row_group_size=frames)
    key = "videos/observation.images.top"
    said = [
        {"episode_index": e, "length": frames, f"{key}/from_timestamp": e * frames / RATE}
        | {f"{of}/{k}": v for of in ("data", key) for k, v in PLACE.items()}
        for e in range(episodes)
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(said), root / "meta" / "episodes" / f"{FILE}.parquet")
    info = {
        "codebase_version": "v3.0", "fps": RATE,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": {"observation.images.top": {"dtype": "video"}, "observation.state": {"dtype": "float32"}},
    }  # fmt: skip
    (root / "meta" / "info.json").write_text(json.dumps(info))
    return film


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--codec", default="libsvtav1")
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "robot")
        film = written(root, args.episodes, args.frames, args.codec)
        shared, whole = [], []
        for _ in range(args.pairs):
            began = time.process_time()
            count = 0
            for files in find_episodes([root]):
                tracks = read_episode(files).tracks
                assert tracks["proprio.state"].clock.count == args.frames
                count += sum(len(block) for block in tracks["video.top"].blocks())
            assert count == args.episodes * args.frames, count
            shared.append(time.process_time() - began)
            began = time.process_time()
            (track,) = read_container(film)
            assert sum(len(block) for block in track.blocks()) == count
            whole.append(time.process_time() - began)
        print("| film | episodes | CPU s, by episode | CPU s, the film in one pass | median ratio |")
        print("|---|---|---|---|---|")
        ratios = [a / b for a, b in zip(shared, whole, strict=True)]
        print(
            f"| {args.codec}, {film.stat().st_size / 1e6:.1f} MB | {args.episodes} of {args.frames} "
            f"| {min(shared):.2f} | {min(whole):.2f} | {statistics.median(ratios):.2f} |"
        )


if __name__ == "__main__":
    main()
