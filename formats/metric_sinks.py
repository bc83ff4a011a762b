"""Where the figures of a run go besides its own log: event files of TensorBoard, and Weights & Biases.

What is unusual: event files are written here, byte by byte, so that no package of TensorBoard's is needed to make them,
only to look at them. A file is a row of records; each is a protobuf message `Event`:

    uint64 length, masked CRC-32C of it, the message, masked CRC-32C of that       all little-endian
    Event    1 wall_time double · 2 step int64 · 3 file_version string · 5 summary · 7 session_log
    Summary  1 value, each: 1 tag string · 2 simple_value float
    session_log with status START (1) at a step says that what a killed run wrote from there on does not count

Sources: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto, framework/summary.proto;
CRC-32C (Castagnoli), RFC 3720 appendix B.4.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from pantok.errors import OptionError, OutputError
from pantok.formats.store_disk import reason

FOLDER = "tensorboard"


class Sink(Protocol):
    """Takes the records of a run's log as they are made."""

    def log(self, record: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record by tag; those of training and those of what was held out apart. Pairs are intervals.

    >>> scalars({"step": 4, "loss": 2.0, "learning_rate": 0.5})
    {'train/loss': 2.0, 'train/learning_rate': 0.5}
    >>> scalars({"step": 4, "by_track": {"video": {"share": 1}}, "latents_95": [8, 11]})
    {'held_out/by_track/video/share': 1.0, 'held_out/latents_95/low': 8.0, 'held_out/latents_95/high': 11.0}
    """
    about = "train" if "loss" in record else "held_out"
    return {
        f"{about}/{tag}": value for key, given in record.items() if key != "step" for tag, value in _leaves(key, given)
    }


def _leaves(tag: str, given: Any) -> Iterator[tuple[str, float]]:
    if isinstance(given, Mapping):
        for key, value in given.items():
            yield from _leaves(f"{tag}/{key}", value)
    elif isinstance(given, list | tuple) and len(given) == 2:
        yield from (*_leaves(f"{tag}/low", given[0]), *_leaves(f"{tag}/high", given[1]))
    elif isinstance(given, int | float) and not isinstance(given, bool):
        yield tag, float(given)


class TensorBoard:
    """Event files in a folder of the run, one for each time that it was started. Raises OutputError."""

    def __init__(self, run: Path, step: int = 0) -> None:
        """step: that the run goes on from; what was written of later ones does not count."""
        self._folder = run / FOLDER
        number = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while True:
                name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{number}"
                try:
                    self._file = open(self._folder / name, "xb")  # noqa: SIM115 (closed by close)
                    break
                except FileExistsError:
                    number += 1
        except OSError as error:
            raise self._refused(error) from error
        self._write(_field(3, b"brain.Event:2"))
        # The first one begins too: only a second START is taken for a restart.
        self._write(_number(2, step + 1 if step else 0) + _field(7, _number(1, 1)))

    def log(self, record: Mapping[str, Any]) -> None:
        values = b"".join(
            _field(1, _field(1, tag.encode()) + struct.pack("<Bf", 2 << 3 | 5, value))
            for tag, value in scalars(record).items()
        )
        self._write(_number(2, int(record["step"])) + _field(5, values))

    def close(self) -> None:
        self._file.close()

    def _write(self, message: bytes) -> None:
        data = struct.pack("<Bd", 1 << 3 | 1, time.time()) + message
        head = struct.pack("<Q", len(data))
        try:
            self._file.write(head + _masked(head) + data + _masked(data))
            self._file.flush()
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> OutputError:
        return OutputError(
            self._folder, f"cannot be written: {reason(error)}", "free space, or leave --tensorboard out"
        )


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


@cache
def _table() -> tuple[int, ...]:
    found = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return tuple(found)


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli).

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def wandb_package() -> Any:
    """Raises OptionError where it is not there."""
    try:
        import wandb
    except ImportError as error:
        raise OptionError("--wandb", "needs a package that is not there", "pip install wandb") from error
    return wandb


class WandB:
    """A run at Weights & Biases, or offline where WANDB_MODE says so. The same folder is the same run.

    Raises OptionError where the package is not there, or refuses.
    """

    def __init__(self, project: str, run: Path, config: Mapping[str, Any]) -> None:
        wandb = wandb_package()
        kept = run / "wandb_id"
        try:
            if not kept.exists():
                kept.write_text(os.urandom(6).hex())
            self._run = wandb.init(
                project=project, name=run.name, id=kept.read_text().strip(), resume="allow", dir=str(run),
                config=dict(config),
            )  # fmt: skip
        except Exception as error:  # of many sorts, all of them about the service
            said = " ".join(str(error).split()) or type(error).__name__
            remedy = "`wandb login`, or WANDB_MODE=offline to keep it here"
            raise OptionError(f"--wandb {project}", said, remedy) from error

    def log(self, record: Mapping[str, Any]) -> None:
        self._run.log(scalars(record), step=int(record["step"]))

    def close(self) -> None:
        self._run.finish()
