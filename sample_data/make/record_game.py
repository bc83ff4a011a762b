"""Records sample_data/game/: somebody in a room of acid who walks from medikit to medikit, seen and heard by himself.

    pip install av soundfile vizdoom==1.3.2        # and Debian's libopenal1
    python sample_data/make/record_game.py

ViZDoom runs at 35 tics a second; each tic gives a frame, 1,260 stereo samples, the state before the action, and the
action. The player turns to the medikit that takes the least turning and walking to reach, and walks.
"""

from __future__ import annotations

import math
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile
import vizdoom

OUT = Path(__file__).parents[1] / "game"
TICS_HZ, SOUND_HZ, SECONDS = 35, 44_100, 10


def start() -> vizdoom.DoomGame:
    game = vizdoom.DoomGame()
    game.load_config(os.path.join(vizdoom.scenarios_path, "health_gathering.cfg"))
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_available_game_variables([
        vizdoom.GameVariable.POSITION_X, vizdoom.GameVariable.POSITION_Y, vizdoom.GameVariable.ANGLE,
        vizdoom.GameVariable.VELOCITY_X, vizdoom.GameVariable.VELOCITY_Y, vizdoom.GameVariable.HEALTH,
    ])  # fmt: skip
    game.set_objects_info_enabled(True)
    game.set_sound_enabled(True)
    game.set_audio_buffer_enabled(True)
    game.set_audio_sampling_rate(vizdoom.SamplingRate.SR_44100)
    game.set_audio_buffer_size(1)
    game.add_game_args("+snd_efx 0")  # ViZDoom aborts with sound effects on
    game.set_window_visible(False)
    game.set_seed(7)
    game.init()
    return game


def choose(state: vizdoom.GameState) -> list[int]:
    """Turn left, turn right, forward: to the nearest medikit by angle and distance."""
    x, y, angle = state.game_variables[:3]
    best = (math.inf, 0.0)
    for thing in state.objects:
        if thing.name.endswith("Medikit"):
            dx, dy = thing.position_x - x, thing.position_y - y
            off = (math.degrees(math.atan2(dy, dx)) - angle + 180) % 360 - 180
            best = min(best, (math.hypot(dx, dy) + 2 * abs(off), off))
    off = best[1]
    return [int(off > 4), int(off < -4), int(abs(off) < 40)]


def main() -> None:
    OUT.mkdir(exist_ok=True)
    game = start()
    names = "time_s,x,y,angle_deg,vx,vy,health,action_left,action_right,action_forward,reward"
    lines, sound = [names], []
    with av.open(OUT / "medikits.mp4", "w", options={"movflags": "+faststart"}) as film:
        stream = film.add_stream("libx264", TICS_HZ, options={"crf": "20", "preset": "slow"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for tic in range(TICS_HZ * SECONDS):
            assert not game.is_episode_finished(), f"the player died in tic {tic}"
            state = game.get_state()
            frame = av.VideoFrame.from_ndarray(state.screen_buffer, format="rgb24")
            frame = frame.reformat(160, 120, format="yuv420p", interpolation="AREA")
            frame.pts, frame.time_base = tic, Fraction(1, TICS_HZ)
            film.mux(stream.encode(frame))
            sound.append(state.audio_buffer)
            action = choose(state)
            reward = game.make_action(action)
            x, y, angle, vx, vy, health = state.game_variables
            numbers = f"{x:.4f},{y:.4f},{angle:.3f},{vx:.5f},{vy:.5f},{health:.0f}"
            lines.append(f"{tic / TICS_HZ:.9f},{numbers},{action[0]},{action[1]},{action[2]},{reward:g}")
        film.mux(stream.encode())
    game.close()
    samples = np.concatenate(sound)
    soundfile.write(OUT / "medikits.flac", samples, SOUND_HZ, subtype="PCM_16")
    (OUT / "medikits.csv").write_text("\n".join(lines) + "\n")
    (OUT / "medikits.txt").write_text("The floor burns. Walk from medikit to medikit to stay alive.\n")
    print(len(lines) - 1, "tics", samples.shape, samples.dtype, np.abs(samples).max())


if __name__ == "__main__":
    main()
