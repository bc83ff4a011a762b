"""Records sample_data/robot/: an arm that moves a puck, an arm that opens and shuts a drawer, a four-legged walker.

MuJoCo simulates, Meta-World and dm_control bring the scenes; the controllers are written below. The two need different
versions of MuJoCo, hence two environments (and libegl1 and libgl1-mesa-dri from Debian for rendering without a GPU):

    pip install av pyarrow packaging mujoco==3.3.7 metaworld==3.0.0    # python record_sim.py arm-01 arm-02
    pip install av pyarrow mujoco==3.17.0 dm_control==1.0.50           # python record_sim.py quadruped-01

Each sensor is written at its own rate, all on the simulation's clock; a row is the state before its action.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("MUJOCO_GL", "egl")

import av
import mujoco
import numpy as np
import pyarrow as pa
import pyarrow.parquet

OUT = Path(__file__).parents[1] / "robot"
Point = tuple[str, np.ndarray, float]
"""What the arm is about, where its hand goes, and whether the gripper is to be shut (1) or open (-1)."""


class Camera:
    """An H.264 file of rendered frames, one each 1/fps s from 0 on."""

    def __init__(self, path: Path, model: mujoco.MjModel, size: tuple[int, int], fps: int) -> None:
        model.vis.quality.offsamples = 4
        model.vis.quality.shadowsize = 1024
        self.renderer = mujoco.Renderer(model, size[1], size[0])
        self.view = mujoco.MjvCamera()
        self.file = av.open(path, "w", options={"movflags": "+faststart"})
        self.stream = self.file.add_stream("libx264", fps, options={"crf": "16", "preset": "slow"})
        self.stream.width, self.stream.height = size
        self.stream.pix_fmt = "yuv420p"
        self.fps, self.count = fps, 0

    def shoot(self, data: mujoco.MjData) -> None:
        self.renderer.update_scene(data, self.view)
        frame = av.VideoFrame.from_ndarray(self.renderer.render(), format="rgb24")
        frame.pts, frame.time_base = self.count, Fraction(1, self.fps)
        self.count += 1
        self.file.mux(self.stream.encode(frame))

    def close(self) -> None:
        self.file.mux(self.stream.encode())
        self.file.close()


def write_parquet(path: Path, rows: list[dict[str, float | bool]]) -> None:
    def column(name: str) -> np.ndarray:
        values = np.array([row[name] for row in rows])
        return values if name == "time_s" or values.dtype == bool else values.astype(np.float32)

    pa.parquet.write_table(pa.table({name: column(name) for name in rows[0]}), path, compression="zstd")


# ---------------------------------------------------------------- the arm: 80 Hz control, 20 frames a second
def pick_and_place(env: Any) -> Iterator[Point]:
    """Puts the puck on one spot, then on another, letting go each time. The spot is the task's goal, shown as a dot."""
    up, low = np.array([0, 0, 0.14]), np.array([0, 0, 0.03])
    for spot in (np.array([0.12, 0.62, 0.02]), np.array([-0.12, 0.78, 0.02])):
        env._target_pos = env.model.site("goal").pos = spot
        mujoco.mj_kinematics(env.model, env.data)
        puck = env._get_pos_objects().copy()
        yield "reach for the puck", puck + up, -1
        yield "go down to the puck", puck + low, -1
        yield "grasp the puck", puck + low, 1
        yield "lift the puck", puck + up, 1
        yield "carry the puck", spot + up, 1
        yield "set the puck down", spot + low, 1
        yield "let go", spot + low, -1
        yield "back off", spot + up, -1


def drawer(env: Any) -> Iterator[Point]:
    """Hooks the handle, pulls the drawer open, and pushes it shut again from outside."""
    closed = env._get_pos_objects().copy()
    opened = closed - (0, 0.17, 0)
    yield "reach for the handle", closed + (0, -0.01, 0.12), -1
    yield "hook the handle", closed + (0, -0.01, -0.02), -1
    yield "pull the drawer open", opened + (0, -0.02, -0.02), -1
    yield "let go of the handle", opened + (0, -0.01, 0.12), -1
    yield "move in front of the drawer", opened + (0, -0.09, 0.12), 1
    yield "go down before the handle", opened + (0, -0.09, 0), 1
    yield "push the drawer shut", closed + (0, -0.01, 0), 1
    yield "back off", closed + (0, -0.14, 0.1), 1


ARMS = {
    "arm-01": (
        "pick-place-v3", pick_and_place,
        "Pick up the red puck and set it down on the blue dot; do the same with the next dot.",
    ),
    "arm-02": ("drawer-open-v3", drawer, "Open the drawer by its handle, then push it shut again."),
}  # fmt: skip


def record_arm(name: str) -> None:
    import metaworld

    task, script, instruction = ARMS[name]
    tasks = metaworld.MT1(task, seed=3)
    env = tasks.train_classes[task]()
    env.set_task(tasks.train_tasks[0])
    env.max_path_length = 10**6
    camera = Camera(OUT / f"{name}.mp4", env.model, (160, 120), fps=20)
    camera.view.lookat[:] = 0, 0.68, 0.1
    camera.view.distance, camera.view.azimuth, camera.view.elevation = 0.8, 150, -30
    env.reset()
    start = env.data.time
    rows: list[dict[str, float | bool]] = []
    events: list[dict[str, float | str]] = []
    for what, goal, grip in script(env):
        began = len(rows)
        while True:
            since, error = len(rows) - began, goal - env.get_endeff_pos()
            assert since < 160, f"{name}: {what}: the hand does not get there"
            if np.linalg.norm(error) < 0.012 and since >= (24 if what in ("grasp the puck", "let go") else 8):
                break
            speed = np.clip(np.linalg.norm(error) * 6, 0.02, 0.3) * min(1, (since + 1) / 12)
            action = np.array([*(error / max(np.linalg.norm(error), 1e-9) * speed), grip], np.float32)
            if len(rows) % 4 == 0:
                camera.shoot(env.data)
            rows.append({"time_s": round(env.data.time - start, 9), **arm_state(env), "gripper_shut": grip > 0})
            rows[-1] |= {f"action_{a}": float(v) for a, v in zip(("x", "y", "z", "grip"), action, strict=True)}
            rows[-1]["reward"] = float(env.step(action)[1])
        events.append({"start_s": began / 80, "end_s": len(rows) / 80, "text": what})
    camera.close()
    write_parquet(OUT / f"{name}.parquet", rows)
    (OUT / f"{name}.txt").write_text(instruction + "\n")
    (OUT / f"{name}.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    print(name, len(rows), "rows", camera.count, "frames", len(events), "events")


def arm_state(env: Any) -> dict[str, float]:
    model, data, state = env.model, env.data, {}
    joints = [model.joint(i).name.removeprefix("right_") for i in range(9)]
    for kind, values, count in (("q", data.qpos, 9), ("dq", data.qvel, 9), ("torque", data.qfrc_constraint, 7)):
        state |= {f"{kind}_{joint}": float(values[i]) for i, joint in enumerate(joints[:count])}
    state["touch"] = touch(model, data, {model.body("rightpad").id, model.body("leftpad").id})
    for kind, place in (("hand", env.get_endeff_pos()), ("object", env._get_pos_objects())):
        state |= {f"{kind}_{a}": float(v) for a, v in zip("xyz", place, strict=True)}
    return {**state, "opening": float(env._get_obs()[3])}


def touch(model: mujoco.MjModel, data: mujoco.MjData, bodies: set[int]) -> float:
    """The sum of normal forces on the finger pads, newtons."""
    force, total = np.zeros(6), 0.0
    for i in range(data.ncon):
        if {int(model.geom_bodyid[g]) for g in data.contact[i].geom} & bodies:
            mujoco.mj_contactForce(model, data, i, force)
            total += float(force[0])
    return total


# ---------------------------------------------------------------- the quadruped: IMU 500 Hz, joints 50 Hz, 25 frames/s
LEGS = ("front_left", "front_right", "back_right", "back_left")
JOINTS = tuple(f"{part}_{leg}" for leg in LEGS for part in ("yaw", "pitch", "knee", "ankle"))


def trot(time: float, heading: float) -> np.ndarray:
    """Set points (yaw, lift, extend for each leg). Diagonal legs swing together; the side that steps further steers."""
    wanted = 0.0 if time < 4 else min((time - 4) * 0.5, np.pi / 2)
    turn = np.clip((wanted - heading + np.pi) % (2 * np.pi) - np.pi, -0.5, 0.5)
    effort = np.clip((time - 0.5) / 1.0, 0, 1)
    phase = 2 * np.pi * (1.8 * time + np.array([0, 0.5, 0, 0.5]))
    left = np.array([1, -1, -1, 1])
    targets = np.zeros((4, 3))
    targets[:, 0] = 0.8 * effort * left * (1 - left * turn) * np.cos(phase)
    targets[:, 1] = -0.5 - effort * np.minimum(0, np.sin(phase))
    return targets.ravel()


def record_quadruped(name: str) -> None:
    from dm_control import suite

    env = suite.load("quadruped", "walk", task_kwargs={"random": 1})
    env.reset()
    physics = env.physics
    model, data = physics.model.ptr, physics.data.ptr
    model.opt.timestep = 0.002
    data.qpos[:] = data.qvel[:] = data.act[:] = 0
    data.qpos[2:4] = 0.6, 1.0  # stands level, over the ground
    data.time = 0
    mujoco.mj_forward(model, data)
    camera = Camera(OUT / f"{name}.mp4", model, (128, 128), fps=25)
    camera.view.distance, camera.view.azimuth, camera.view.elevation = 3.2, 60, -22
    camera.view.lookat[:] = 0, 0, 0.4
    low, high = model.actuator_ctrlrange.T
    rows: list[dict[str, float | bool]] = []
    imu = ["time_s,ax,ay,az,wx,wy,wz"]
    for step in range(8 * 500):
        time = step / 500
        if step % 20 == 0:
            camera.view.lookat[:2] += 0.15 * (data.body("torso").xpos[:2] - camera.view.lookat[:2])
            camera.shoot(data)
        if step % 10 == 0:
            across = data.body("torso").xmat.reshape(3, 3)[:, 0]
            action = np.clip(trot(time, float(np.arctan2(across[1], across[0]))), low, high)
            data.ctrl[:] = action
            row: dict[str, float | bool] = {"time_s": time}
            row |= {f"q_{j}": float(data.joint(j).qpos[0]) for j in JOINTS}
            row |= {f"dq_{j}": float(data.joint(j).qvel[0]) for j in JOINTS}
            names = ("x", "y", "z", "qw", "qx", "qy", "qz")
            row |= {f"torso_{name}": float(v) for name, v in zip(names, data.qpos[:7], strict=True)}
        mujoco.mj_step(model, data)  # leaves in sensordata what was measured at `time`
        measured = np.concatenate([data.sensor("imu_accel").data, data.sensor("imu_gyro").data])
        imu.append(f"{time:.3f}," + ",".join(f"{v:.4f}" for v in measured))
        if step % 10 == 0:
            for leg in LEGS:
                force = data.sensor(f"force_toe_{leg}").data
                row |= {f"force_{leg}_{a}": float(v) for a, v in zip("xyz", force, strict=True)}
                row[f"ground_{leg}"] = bool(np.linalg.norm(force) > 1)
            row |= {f"action_{model.actuator(i).name}": float(v) for i, v in enumerate(action)}
            row["reward"] = float(env.task.get_reward(physics))
            rows.append(row)
    camera.close()
    write_parquet(OUT / f"{name}.parquet", rows)
    (OUT / f"{name}.csv").write_text("\n".join(imu) + "\n")
    (OUT / f"{name}.txt").write_text("Trot straight ahead for four seconds, then turn to the left.\n")
    print(name, len(rows), "rows", len(imu) - 1, "of the IMU", camera.count, "frames")


def main() -> None:
    OUT.mkdir(exist_ok=True)
    for name in sys.argv[1:]:
        record_arm(name) if name in ARMS else record_quadruped(name)


if __name__ == "__main__":
    main()
