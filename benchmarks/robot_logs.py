"""What reading a robot's log costs: an IMU of 200 Hz, joints of 50 Hz and a camera of 640x480 JPEG at 30 Hz, in MCAP.

    python -m benchmarks.robot_logs [--seconds 60] [--folder DIR] [--film FILE]

The log is made by the writer for ROS 2 (zstd, chunks of 768 KiB as rosbag2 makes them); its pictures are those of a
film. Measured, in CPU seconds of one thread: the walk, in which all numbers are decoded; the same numbers decoded by
mcap-ros2-support, message by message; the pictures, read once as YUV. The peak of memory is that of a process that
reads numbers and pictures and nothing else. Prints Markdown.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from pantok.formats.mcap_log import read_log
from tests.robot_logs import MS, T0, Sent, bag, header, vector

ROOT = Path(__file__).parent.parent
HEIGHT, WIDTH = 480, 640


def jpegs(film: Path, count: int) -> list[bytes]:
    """The first pictures of a film as a camera's driver packs them."""
    found = []
    with av.open(str(film)) as container:
        for frame in islice(container.decode(video=0), count):
            player = av.CodecContext.create("mjpeg", "w")
            player.width, player.height, player.pix_fmt, player.time_base = WIDTH, HEIGHT, "yuvj420p", Fraction(1, 30)
            player.options = {"qmin": "4", "qmax": "4"}
            picture = frame.reformat(WIDTH, HEIGHT, "yuvj420p")
            picture.pts = 0
            found.append(bytes(player.encode(picture)[0]))
    return found


def sent(seconds: int, pictures: list[bytes]) -> Iterator[Sent]:
    """Messages in the order in which they were logged, each a few milliseconds after it was taken."""
    rng = np.random.default_rng(1)
    motion = np.cumsum(rng.normal(0, 0.01, (seconds * 50, 7)), 0)
    felt = rng.normal(size=(seconds * 200, 6))
    shown = cycle(pictures)
    events = [(T0 + i * 5 * MS, "imu", i) for i in range(seconds * 200)]
    events += [(T0 + i * 20 * MS, "joints", i) for i in range(seconds * 50)]
    events += [(T0 + i * 10**9 // 30, "camera", i) for i in range(seconds * 30)]
    for time_ns, what, i in sorted(events):
        log = time_ns + int(rng.integers(MS // 10, 3 * MS))
        content: dict[str, Any] = {"header": header(time_ns)}
        if what == "imu":
            content |= {"orientation": vector((0, 0, 0, 1)), "angular_velocity": vector(felt[i, :3])}
            yield "/imu/data", "sensor_msgs/msg/Imu", content | {"linear_acceleration": vector(felt[i, 3:])}, log
        elif what == "joints":
            content |= {"name": [f"joint{n}" for n in range(7)], "position": motion[i].tolist()}
            yield "/joint_states", "sensor_msgs/msg/JointState", content | {"velocity": [], "effort": []}, log
        else:
            content |= {"format": "rgb8; jpeg compressed bgr8", "data": next(shown)}
            yield "/camera/image_raw/compressed", "sensor_msgs/msg/CompressedImage", content, log


def by_message(path: Path) -> int:
    with open(path, "rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        return sum(1 for _ in reader.iter_decoded_messages(topics=["/imu/data", "/joint_states"]))


def cpu_s(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def show(path: Path) -> int:
    """The pictures of the log, read once."""
    return sum(len(b) for t in read_log(path, {}, print) if t.kind == "video" for b in t.blocks())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=int, default=60)
    options.add_argument("--folder", type=Path)
    options.add_argument("--film", type=Path, default=next((ROOT / "sample_data").rglob("*.mp4"), None))
    options.add_argument("--peak", type=Path, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.peak:
        show(asked.peak)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return
    with tempfile.TemporaryDirectory() as made:
        path = bag(
            (asked.folder or Path(made)) / "log.mcap", sent(asked.seconds, jpegs(asked.film, 120)), chunk_size=768 << 10
        )
        numbers, pictures = asked.seconds * 250, asked.seconds * 30
        read_log(path, {}, print)  # what is imported when it is needed
        walk = min(cpu_s(lambda: read_log(path, {}, print)) for _ in range(3))
        single = cpu_s(lambda: by_message(path))
        video = cpu_s(lambda: show(path)) - walk
        command = [sys.executable, "-m", "benchmarks.robot_logs", "--peak", str(path)]
        peak = int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()[-1])
        size = f"{asked.seconds} s, {path.stat().st_size / 1e6:.0f} MB"
        print(f"{size}, {numbers:,} messages of numbers, {pictures:,} pictures\n")
        print("| what | CPU s | a second |\n|---|---:|---:|")
        print(f"| the walk, all numbers decoded | {walk:.2f} | {numbers / walk:,.0f} messages |")
        print(f"| the numbers by mcap-ros2-support, none kept | {single:.2f} | {numbers / single:,.0f} messages |")
        print(f"| pictures read as YUV | {video:.2f} | {pictures / video:,.0f} pictures |")
        print(f"\nPeak of memory, numbers and pictures: {peak / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
