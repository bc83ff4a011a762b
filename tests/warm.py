"""Commands in processes of their own that need not import torch anew: one process imports what others wrote, and forks.

What is started ready is only the libraries; pantok's own modules are imported by each command, in the order in which a
user's process does, so an import that is missing or goes in a circle fails here too. No thread of Python's runs when it
forks; the pools of OpenBLAS and jemalloc start anew by handlers of their own.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

LIBRARIES = [
    *("torch", "torch._dynamo", "torch.optim", "numba", "numba.typed", "av", "zarr", "pyarrow", "pyarrow.parquet"),
    *("scipy.fft", "scipy.signal", "scipy.linalg", "scipy.spatial", "scipy.stats", "scipy.ndimage", "scipy.cluster.vq"),
    *("soundfile", "safetensors.torch", "sentencepiece", "tokenizers", "vector_quantize_pytorch"),
    *("click", "rich.console", "rich.progress", "rich.table"),
]
READ_AT_IMPORT = ("OMP_", "MKL_", "OPENBLAS_", "NUMBA_", "TORCH", "PYTORCH", "PYTHON", "LD_", "KMP_", "CUDA_")


def at_import(environment: dict[str, str]) -> dict[str, str]:
    """What the libraries read when they are imported: a command with others than the server's starts from nothing."""
    return {k: v for k, v in environment.items() if k.startswith(READ_AT_IMPORT)}


class Warm:
    """The process that has the libraries, started when it is first asked."""

    def __init__(self) -> None:
        self.environment = at_import(dict(os.environ))
        self.channel, theirs = socket.socketpair()
        command = [sys.executable, str(Path(__file__).resolve()), str(theirs.fileno())]
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def run(self, words: list[str], cwd: Path | None, timeout: float, out: int, err: int) -> int:
        """Exit code of `pantok WORDS`, its output in the files of the descriptors; -N where signal N ended it."""
        asked = json.dumps({"words": words, "cwd": str(cwd or Path.cwd()), "environment": dict(os.environ)}).encode()
        self.channel.settimeout(timeout)
        socket.send_fds(self.channel, [len(asked).to_bytes(4, "little")], [out, err])
        self.channel.sendall(asked)
        answer = self.channel.recv(4)
        if len(answer) < 4:
            raise RuntimeError(f"the process that starts commands ended: {self.process.wait()}")
        return int.from_bytes(answer, "little", signed=True)

    def close(self) -> None:
        self.channel.close()
        self.process.wait(timeout=30)


def serve(number: int) -> None:
    channel = socket.socket(fileno=number)
    for name in LIBRARIES:
        import_module(name)
    import numba

    numba.njit(lambda x: x + 1)(1)  # its registries are filled when it first compiles
    assert threading.active_count() == 1, "a fork would lose threads"
    gc.collect()
    gc.freeze()  # a collection in a child would copy every page that it looks at
    while True:
        size, files, _, _ = socket.recv_fds(channel, 4, 2)
        if not size:
            return
        asked = json.loads(channel.recv(int.from_bytes(size, "little"), socket.MSG_WAITALL))
        child = os.fork()
        if not child:
            channel.close()
            end(partial(start, asked, files))
        for file in files:
            os.close(file)
        _, status = os.waitpid(child, 0)
        channel.sendall(os.waitstatus_to_exitcode(status).to_bytes(4, "little", signed=True))


def end(run: Callable[[], None]) -> None:
    """Ends the process as the interpreter does, but does not take the libraries apart: that takes a second."""
    code: object = 0
    try:
        run()
    except SystemExit as stopped:
        code = stopped.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    sys.stderr.flush()
    os._exit((code or 0) & 255)


def start(asked: dict, files: list[int]) -> None:
    import runpy

    for file, target in zip(files, (1, 2), strict=True):
        os.dup2(file, target)
        os.close(file)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.path[0] = asked["cwd"]  # as `python -m` has it
    sys.argv = ["pantok", *asked["words"]]
    runpy.run_module("pantok", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
