"""Recordings with actions for the world model's benchmarks: a game with its sound, and a body seen from outside.

    pip install --target sim --no-deps ale-py==0.12.1 mujoco==3.9.0 absl-py glfw etils pyopengl
    PYTHONPATH=sim python benchmarks/world_model_recordings.py pong -o pong/ --episodes 24 --seconds 32
    PYTHONPATH=sim python benchmarks/world_model_recordings.py mujoco -o arm/ --episodes 24 --seconds 32

`pong` is Atari Pong out of ale-py's own wheel: 20 pictures a second of 64x64, the sound that the machine made (30,720
samples a second, written at 16,000), the move that was held, the points that it brought. `mujoco` is an arm of two
joints that may hit a puck in a box, from above: 20 pictures a second of 64x64, joint angles and speeds, the torques
that were held. Both are played by chance that holds on for a while, so that actions tell what comes; the player of
Pong also follows the ball now and then, so that there are rallies. A row is what was so before its action; its reward
is what the action brought. Same seed, same recordings. MUJOCO_GL=egl or osmesa renders without a GPU.
"""

from __future__ import annotations

import argparse
import csv
import os
from fractions import Fraction
from pathlib import Path

os.environ.setdefault("MUJOCO_GL", "egl")

import av
import numpy as np
import soundfile
from scipy.signal import resample_poly

FPS = 20
SIDE = 64


class Film:
    """An H.264 file of SIDE x SIDE frames, FPS a second."""

    def __init__(self, path: Path) -> None:
        self.file = av.open(str(path), "w")
        self.stream = self.file.add_stream("libx264", FPS, options={"crf": "10", "preset": "medium"})
        self.stream.width = self.stream.height = SIDE
        self.stream.pix_fmt = "yuv420p"
        self.count = 0

    def shoot(self, picture: np.ndarray) -> None:
        """picture: uint8 (SIDE, SIDE, 3)."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts, frame.time_base = self.count, Fraction(1, FPS)
        self.count += 1
        self.file.mux(self.stream.encode(frame))

    def close(self) -> None:
        self.file.mux(self.stream.encode())
        self.file.close()


def shrunk(picture: np.ndarray, side: int = SIDE) -> np.ndarray:
    """uint8 (side, side, 3) of (H, W, 3): the mean over the area of each new pixel."""
    out = picture.astype(np.float64)
    for axis in (0, 1):
        edges = np.linspace(0, out.shape[axis], side + 1)
        total = np.concatenate([np.zeros_like(out.take([0], axis)), np.cumsum(out, axis)], axis)
        low = np.minimum(edges.astype(int), out.shape[axis] - 1)
        shape = [-1 if a == axis else 1 for a in range(3)]
        at = total.take(low, axis) + (edges - low).reshape(shape) * (total.take(low + 1, axis) - total.take(low, axis))
        out = np.diff(at, axis=axis) / (edges[1] - edges[0])
    return np.rint(out).clip(0, 255).astype(np.uint8)


def write_table(path: Path, rows: list[dict[str, float]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)


# ---------------------------------------------------------------- Atari Pong
COURT, BETWEEN = slice(34, 194), slice(16, 144)
"""Lines between the walls (the score above them is left out) and columns from paddle to paddle."""
GROUND = (144, 72, 17)
MACHINE_FPS, SAMPLES = 60, 512
MOVES = {0: 0, 1: 3, -1: 4}
"""Which key of the machine moves the paddle up, down, or not."""


def bold(picture: np.ndarray) -> np.ndarray:
    """uint8 (SIDE, SIDE, 3) of the court: of each area the pixel least like the ground, so that the ball, 2x4 pixels
    of the machine, stays as bright as it is."""
    court = picture[COURT, BETWEEN]
    unlike = np.abs(court.astype(int) - GROUND).sum(2)
    # Cells of a whole number of pixels, all alike; where the picture is no multiple of SIDE they overlap.
    tall, wide = (-(-n // SIDE) for n in unlike.shape)
    rows, columns = ((np.arange(SIDE) * n) // SIDE for n in unlike.shape)
    y = (rows[:, None] + np.arange(tall))[:, None, :, None].clip(max=len(unlike) - 1)
    x = (columns[:, None] + np.arange(wide))[None, :, None, :].clip(max=unlike.shape[1] - 1)
    cells = court[y, x].reshape(SIDE, SIDE, -1, 3)
    best = unlike[y, x].reshape(SIDE, SIDE, -1).argmax(2)
    return np.take_along_axis(cells, best[:, :, None, None], 2)[:, :, 0]


def place_of(picture: np.ndarray, colour: tuple[int, int, int], columns: slice) -> float | None:
    """The mean line of what has a colour between two columns."""
    lines = np.nonzero(np.all(picture[COURT, columns] == colour, axis=2))[0]
    return float(lines.mean()) if len(lines) else None


def record_pong(folder: Path, episode: int, seconds: float, seed: int) -> str:
    from ale_py import ALEInterface, LoggerMode, roms

    ALEInterface.setLoggerMode(LoggerMode.Error)
    game = ALEInterface()
    game.setInt("random_seed", seed * 1000 + episode)
    game.setFloat("repeat_action_probability", 0.0)
    game.setBool("sound_obs", True)
    game.loadROM(roms.get_rom_path("pong"))
    rng = np.random.default_rng([seed, episode])
    for _ in range(60 + int(rng.integers(120))):  # the first serve comes at another time in each episode
        game.act(1)
    film, rows, sound = Film(folder / f"pong-{episode:02d}.mp4"), [], []
    move, left, follows = 0, 0, False
    for tick in range(round(seconds * FPS)):
        screen = game.getScreenRGB()
        film.shoot(bold(screen))
        if left == 0:
            left, follows = int(rng.integers(2, 12)), bool(rng.random() < 0.6)
            move = int(rng.integers(-1, 2))
        left -= 1
        held = move
        if follows:
            ball = place_of(screen, (236, 236, 236), slice(20, 140))
            mine = place_of(screen, (92, 186, 92), slice(140, 148))
            held = 0 if ball is None or mine is None or abs(ball - mine) < 4 else (1 if ball < mine else -1)
        gained = 0.0
        for _ in range(MACHINE_FPS // FPS):
            gained += game.act(MOVES[held])
            sound.append(np.array(game.getAudio(), np.uint8))
        rows.append({"time_s": tick / FPS, "action_move": held, "reward": gained})
        if game.game_over():
            game.reset_game()
    film.close()
    wave = (np.concatenate(sound).astype(np.float64) - 128) / 128
    wave = resample_poly(wave, 25, 48)  # 512 x 60 = 30,720 samples a second become 16,000
    soundfile.write(folder / f"pong-{episode:02d}.wav", wave.clip(-1, 1), 16_000, subtype="PCM_16")
    write_table(folder / f"pong-{episode:02d}.csv", rows)
    points = [row["reward"] for row in rows]
    return f"{len(rows)} frames, {sum(p > 0 for p in points)} points won, {sum(p < 0 for p in points)} lost"


# ---------------------------------------------------------------- an arm and a puck
SCENE = """
<mujoco>
  <option timestep="0.00333333333" integrator="implicitfast" gravity="0 0 0"/>
  <visual><headlight ambient="0.5 0.5 0.5" diffuse="0.5 0.5 0.5" specular="0 0 0"/></visual>
  <default><geom contype="1" conaffinity="1" friction="0.2" solref="0.02 0.3"/></default>
  <worldbody>
    <camera name="above" pos="0 0 3" fovy="40"/>
    <geom type="plane" size="1.2 1.2 0.1" rgba="0.15 0.2 0.3 1" contype="0" conaffinity="0"/>
    <geom type="box" pos="1.05 0 0.05" size="0.05 1.1 0.05" rgba="0.6 0.5 0.4 1"/>
    <geom type="box" pos="-1.05 0 0.05" size="0.05 1.1 0.05" rgba="0.6 0.5 0.4 1"/>
    <geom type="box" pos="0 1.05 0.05" size="1.1 0.05 0.05" rgba="0.6 0.5 0.4 1"/>
    <geom type="box" pos="0 -1.05 0.05" size="1.1 0.05 0.05" rgba="0.6 0.5 0.4 1"/>
    <body name="upper" pos="0 0 0.05">
      <joint name="shoulder" axis="0 0 1" damping="0.15" armature="0.01"/>
      <geom type="capsule" fromto="0 0 0 0.48 0 0" size="0.05" rgba="0.9 0.5 0.1 1" density="400"/>
      <body name="lower" pos="0.48 0 0">
        <joint name="elbow" axis="0 0 1" damping="0.1" armature="0.01" limited="true" range="-150 150"/>
        <geom type="capsule" fromto="0 0 0 0.42 0 0" size="0.045" rgba="0.95 0.85 0.2 1" density="400"/>
      </body>
    </body>
    <body name="puck" pos="0.6 0.6 0.05">
      <joint name="puck_x" type="slide" axis="1 0 0" damping="0.25"/>
      <joint name="puck_y" type="slide" axis="0 1 0" damping="0.25"/>
      <geom type="cylinder" size="0.11 0.05" rgba="0.3 0.9 0.9 1" density="200"/>
    </body>
  </worldbody>
  <actuator>
    <motor joint="shoulder" gear="1.2"/>
    <motor joint="elbow" gear="0.6"/>
  </actuator>
</mujoco>
"""


def record_mujoco(folder: Path, episode: int, seconds: float, seed: int) -> str:
    import mujoco

    model = mujoco.MjModel.from_xml_string(SCENE)
    model.vis.quality.offsamples = 4
    model.vis.quality.shadowsize = 0
    data = mujoco.MjData(model)
    renderer = mujoco.Renderer(model, SIDE * 2, SIDE * 2)
    rng = np.random.default_rng([seed, episode])
    data.qpos[:2] = rng.uniform(-np.pi, np.pi), rng.uniform(-2, 2)
    angle = data.qpos[0] + np.pi + rng.uniform(-0.8, 0.8)  # the puck begins away from the arm
    data.qpos[2:4] = 0.75 * np.cos(angle) - 0.6, 0.75 * np.sin(angle) - 0.6
    film, rows = Film(folder / f"arm-{episode:02d}.mp4"), []
    torque, goal, left, touched = np.zeros(2), np.zeros(2), 0, 0
    for tick in range(round(seconds * FPS)):
        mujoco.mj_forward(model, data)
        renderer.update_scene(data, camera="above")
        film.shoot(shrunk(renderer.render()))
        if left == 0:
            left, goal = int(rng.integers(3, 15)), rng.uniform(-1, 1, 2)
        left -= 1
        torque = 0.6 * torque + 0.4 * goal  # smooth, as a hand on a stick is
        q, dq = data.qpos[:2], data.qvel[:2]
        rows.append(
            {
                "time_s": tick / FPS,
                "proprio_shoulder_cos": np.cos(q[0]), "proprio_shoulder_sin": np.sin(q[0]), "proprio_elbow": q[1],
                "proprio_shoulder_speed": dq[0], "proprio_elbow_speed": dq[1],
                "action_shoulder": torque[0], "action_elbow": torque[1],
            }
        )  # fmt: skip
        data.ctrl[:] = torque
        for _ in range(15):  # 15 steps of 1/300 s are a frame
            mujoco.mj_step(model, data)
        puck = model.body("puck").id
        touched += any(puck in model.geom_bodyid[data.contact.geom[i]] for i in range(data.ncon))
    film.close()
    renderer.close()
    write_table(folder / f"arm-{episode:02d}.csv", rows)
    return f"{len(rows)} frames, the puck touched something at {touched}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pong", "mujoco"))
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=24)
    parser.add_argument("--first", type=int, default=0, help="number of the first episode, to go on where one stopped")
    parser.add_argument("--seconds", type=float, default=32)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    record = record_pong if given.what == "pong" else record_mujoco
    for episode in range(given.first, given.first + given.episodes):
        print(f"episode {episode:02d}:", record(given.output, episode, given.seconds, given.seed), flush=True)


if __name__ == "__main__":
    main()
