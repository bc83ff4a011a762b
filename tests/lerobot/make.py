"""How the datasets beside this file were written: by `lerobot` itself, 0.4.4 (`v3.0`) and 0.3.3 (`v2.1`).

    python make.py v3.0        # in an environment with lerobot 0.4.4; with 0.3.3: v2.1

Three episodes of 12, 17 and 8 rows at 30 Hz. Row i of episode e: `observation.state` is sin(k + i / 10) + e for joint
k, `action` cos(k + i / 10) + e, the reward i; the camera `top` is grey 16 + 12 i + 4 e, `wrist` is black with a white
square at column 2 i.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

LENGTHS, TASKS = (12, 17, 8), ("pick the cube", "put it down", "pick the cube")
JOINTS = ["shoulder.pos", "elbow.pos", "gripper.pos"]
FEATURES = {
    "observation.state": {"dtype": "float32", "shape": (3,), "names": JOINTS},
    "action": {"dtype": "float32", "shape": (3,), "names": JOINTS},
    "observation.images.top": {"dtype": "video", "shape": (48, 64, 3), "names": ["height", "width", "channels"]},
    "observation.images.wrist": {"dtype": "video", "shape": (32, 64, 3), "names": ["height", "width", "channels"]},
    "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
    "next.done": {"dtype": "bool", "shape": (1,), "names": None},
}


def main(version: str) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    root = Path(__file__).parent / version
    dataset = LeRobotDataset.create("pantok/tests", fps=30, features=FEATURES, root=root, robot_type="none")
    for e, (length, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
        for i in range(length):
            wrist = np.zeros((32, 64, 3), np.uint8)
            wrist[8:24, 2 * i : 2 * i + 16] = 255
            row = {
                "observation.state": (np.sin(np.arange(3) + i / 10) + e).astype(np.float32),
                "action": (np.cos(np.arange(3) + i / 10) + e).astype(np.float32),
                "observation.images.top": np.full((48, 64, 3), 16 + 12 * i + 4 * e, np.uint8),
                "observation.images.wrist": wrist,
                "next.reward": np.array([i], np.float32),
                "next.done": np.array([i == length - 1]),
            }
            if version == "v2.1":
                dataset.add_frame(row, task)
            else:
                dataset.add_frame({**row, "task": task})
        dataset.save_episode()
    if version != "v2.1":
        dataset.finalize()


if __name__ == "__main__":
    main(sys.argv[1])
