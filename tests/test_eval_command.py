"""`pantok eval` on a real clip with sound, motion and a caption: JSON, page, originals that are gone or changed."""

from __future__ import annotations

import json
import math
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from click.testing import CliRunner, Result

from pantok.commands.cli import pantok
from pantok.commands.evaluate import _wanted
from pantok.config import to_mapping
from pantok.encode import Codec
from pantok.fit import fit_vocabulary
from pantok.formats.folder import ReadOptions, find_episodes, read_episode
from pantok.formats.store import Store

SAMPLES = Path(__file__).parent.parent / "sample_data"


def make_recording(folder: Path) -> None:
    """Two seconds of a street at 96 x 64, of speech and of a wrist's motion, and a caption, under one name."""
    folder.mkdir()
    with av.open(str(SAMPLES / "street" / "walker.mp4")) as film, av.open(str(folder / "walk.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i, frame in zip(range(20), film.decode(video=0), strict=False):
            small = frame.reformat(96, 64, "yuv420p")
            small.pts, small.time_base = i, Fraction(1, 10)
            out.mux(stream.encode(small))
        out.mux(stream.encode(None))
    samples, rate = soundfile.read(SAMPLES / "speech" / "austen-2.wav", dtype="int16")
    soundfile.write(folder / "walk.wav", samples[rate : 3 * rate], rate)
    rows = (SAMPLES / "imu" / "watch.csv").read_text().splitlines()
    (folder / "walk.csv").write_text("\n".join(rows[:120]) + "\n")
    (folder / "walk.srt").write_text("1\n00:00:00,500 --> 00:00:01,500\nsomebody walks by\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `recordings/` and `home.zarr`, read at half the size and encoded at a given rate."""
    root = tmp_path_factory.mktemp("eval")
    make_recording(root / "recordings")
    reading = ReadOptions(size=48)
    (files,) = find_episodes([root / "recordings"])
    episode = read_episode(files, reading)
    settings = {"video": {"size": 16, "rounds": 0, "vectors": 2000, "dims": 8}, "audio": {"size": 32, "tick_size": 32}}
    settings["text"] = {"size": 300}
    vocabulary = fit_vocabulary([episode], settings)
    options = {"audio": {"bits_per_second": 8000.0}}
    parameters = {"read": to_mapping(reading), **options}
    Store.create(root / "home.zarr", vocabulary).write(
        [Codec(vocabulary).encode(episode, options, parameters=parameters)]
    )
    return root


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(pantok, ["eval", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def document(result: Result) -> dict[str, Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(result.stdout, parse_constant=refuse)


def test_json_has_its_keys_and_they_agree(made: Path) -> None:
    result = run(made / "home.zarr", "--json", "--levels", "1,3,6")
    assert result.exit_code == 0, result.output
    found = document(result)
    assert set(found) == {
        "store",
        "vocabulary",
        "limit_seconds",
        "most_tracks",
        "html",
        "episodes",
        "codebooks",
        "problems",
    }
    (episode,) = found["episodes"]
    tracks = {t["modality"]: t for t in episode["tracks"]}
    assert episode["id"] == "walk" and set(tracks) == {"video", "audio", "numeric", "text"}
    stream = Store.open(made / "home.zarr").read("walk")
    for track in tracks.values():
        codes = stream.tracks[track["track"]].levels
        assert [level["tokens"] for level in track["levels"]] == [len(level.codes) for level in codes]
        assert track["tokens"] == sum(level["tokens"] for level in track["levels"])
        assert track["bits"] == pytest.approx(
            sum(level["tokens"] * math.log2(level["cardinality"]) for level in track["levels"])
        )
        assert all(0 <= level["used"] <= level["cardinality"] for level in track["levels"])
        quality = track["quality"]
        assert quality["samples"] == quality["of_samples"] == track["samples"]
        whole = quality["prefixes"][-1]
        assert whole["tokens"] == track["tokens"] and whole["levels"] == len(track["levels"])
        assert whole["decode_seconds"] > 0
        # A caption alone lasts no time, so it has no rate and no speed.
        speeds = (track["bits_per_second"], quality["encode_speed"], quality["decode_speed"])
        assert all(v is None for v in speeds) if track["modality"] == "text" else all(v > 0 for v in speeds)
    video, audio, text = (tracks[m]["quality"] for m in ("video", "audio", "text"))
    assert tracks["video"]["bits_per_pixel"] == pytest.approx(tracks["video"]["bits"] / (20 * 48 * 72))
    assert [p["levels"] for p in video["prefixes"]][:3] == [1, 3, 6]
    assert set(video["prefixes"][0]["quality"]) == {"psnr_rgb_db", "psnr_luma_db", "ssim"}
    assert set(audio["prefixes"][0]["quality"]) == {"si_sdr_db", "mel_distance", "pesq_wb", "stoi"}
    for quality, key in ((video, "psnr_rgb_db"), (audio, "si_sdr_db")):
        ladder = [p["quality"][key] for p in quality["prefixes"]]
        assert ladder[-1] == max(ladder) and ladder[-1] > ladder[0] + 3
    # x264 is handed the very same pictures: at its dearest it must come near them, and it is beside our own rate.
    assert video["nearest_reference"]["codec"] == "x264" and audio["nearest_reference"]["codec"] == "Opus"
    assert max(p["quality"]["psnr_luma_db"] for p in video["references"]) > 30
    rate = video["nearest_reference"]["bits"] / video["prefixes"][-1]["bits"]
    assert 0.8 < rate < 1.25 or video["nearest_reference"]["setting"].startswith("crf 51")
    motion = tracks["numeric"]["quality"]
    assert set(motion["prefixes"][0]["quality"]) == {"max_error", "rms_error", "same_nonfinite"}
    bound = motion["certificate"]
    assert bound["holds"] and bound["channels"] and all(c["max_error"] <= c["bound"] for c in bound["channels"])
    assert motion["prefixes"][-1]["quality"]["max_error"] == max(c["max_error"] for c in bound["channels"])
    assert video["certificate"] is None
    assert text["prefixes"][0]["identical"] and text["nearest_reference"] is None


def test_the_limit_cuts_quality_and_not_rates(made: Path) -> None:
    found = document(run(made / "home.zarr", "--json", "--limit", "0.5", "--no-reference", "--levels", "1"))
    for track in found["episodes"][0]["tracks"]:
        if track["modality"] != "text":
            assert 0 < track["quality"]["seconds"] <= 1.0 < 1.9 < track["seconds"]
            assert track["quality"]["prefixes"][-1]["tokens"] < track["tokens"]
            assert track["quality"]["references"] == []


def test_of_many_tracks_some_from_all_over_are_decoded(vocabulary: Path, tmp_path: Path) -> None:
    folder, target = tmp_path / "recordings", tmp_path / "many.zarr"
    folder.mkdir()
    for number in range(9):
        rows = np.random.default_rng(number).normal(size=(50, 2)).cumsum(0)
        np.savetxt(folder / f"walk-{number}.csv", rows, delimiter=",", header="# rate_hz: 20\nx,y", comments="")
    (folder / "walk-8.txt").write_text("somebody walks by")
    words = ["encode", str(folder), "--vocab", str(vocabulary), "-o", str(target)]
    assert CliRunner().invoke(pantok, words).exit_code == 0
    result = run(target, "--most", "3", "--json")
    found = document(result)
    assert result.exit_code == 0 and found["most_tracks"] == 3
    assert [e["id"] for e in found["episodes"]] == [f"walk-{n}" for n in range(9)]
    tracks = [(e["id"], t) for e in found["episodes"] for t in e["tracks"]]
    assert all(t["tokens"] > 0 for _, t in tracks), "rates are of all"
    decoded = {(name, t["modality"]) for name, t in tracks if t["quality"] is not None}
    assert decoded == {("walk-0", "numeric"), ("walk-2", "numeric"), ("walk-5", "numeric"), ("walk-8", "text")}
    said = run(target, "--most", "3")
    assert "Quality of 3 of 9 tracks of numeric" in said.stderr and "text, from" not in said.stderr
    every = document(run(target, "--most", "0", "--json"))
    assert every["most_tracks"] is None
    assert all(t["quality"] is not None for e in every["episodes"] for t in e["tracks"])


def test_each_episode_gives_a_track_before_one_gives_a_second() -> None:
    drives = {f"drive-{n}": {f"proprio.{k}": "numeric" for k in range(6)} | {"video": "video"} for n in range(3)}
    chosen = [episode for episode, track in _wanted(drives, 6) if track != "video"]
    assert sorted(chosen) == sorted(2 * [*drives])
    assert len(_wanted(drives, 0)) == 21 and len(_wanted(drives, 100)) == 21


def test_the_table_and_the_page(made: Path) -> None:
    page = made / "report.html"
    result = run(made / "home.zarr", "--html", page, "--levels", "4")
    assert result.exit_code == 0, result.output
    assert "walk video" in result.stdout and "PESQ" in result.stdout and "x264 at" in result.stdout
    assert "Codebooks, over all tracks" in result.stdout and "Wrote" not in result.stdout
    html = page.read_text(encoding="utf-8")
    # Three moments of original, decoded, x264 and difference; two prefixes of one; four spectrograms with sound.
    assert html.count("data:image/") == 3 * 4 + 2 + 4 and html.count("data:audio/flac") == 4
    assert "walk" in html and "somebody" not in html
    # A page of ours is replaced, anything else is not.
    assert run(made / "home.zarr", "--html", page, "--no-reference", "--limit", "0.4").exit_code == 0
    other = made / "notes.html"
    other.write_text("my notes")
    refused = run(made / "home.zarr", "--html", other)
    assert refused.exit_code == 2 and "is not a report" in refused.stderr and other.read_text() == "my notes"


def test_originals_that_moved_changed_or_went(made: Path, tmp_path: Path) -> None:
    gone = tmp_path / "elsewhere"
    shutil.move(made / "recordings", gone)
    try:
        missing = run(made / "home.zarr", "--json", "--no-reference")
        assert missing.exit_code == 4
        (line,) = missing.stderr.splitlines()
        assert line.startswith("Skipped: walk:") and "the original is missing (--sources DIR" in line
        found = document(missing)
        assert len(found["problems"]) == 1
        tracks = found["episodes"][0]["tracks"]
        assert all(t["quality"] is None and t["tokens"] > 0 for t in tracks)
        moved = run(made / "home.zarr", "--sources", gone, "--no-reference", "--levels", "1", "--limit", "0.4")
        assert moved.exit_code == 0, moved.output
        with (gone / "walk.wav").open("ab") as file:
            file.write(b"\0")
        changed = run(made / "home.zarr", "--sources", gone)
        assert changed.exit_code == 4 and "has changed" in changed.stderr
        (gone / "walk.wav").write_bytes((gone / "walk.wav").read_bytes()[:-1])
    finally:
        shutil.move(gone, made / "recordings")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--limit", "-1"), "--limit"),
        (("--limit", "nan"), "--limit"),
        (("--levels", "0"), "--levels"),
        (("--levels", "a"), "--levels"),
        (("--episode", "nowhere*"), "--episode nowhere*: is not there"),
    ],
)
def test_wrong_options_are_said(made: Path, arguments: tuple[str, ...], says: str) -> None:
    result = run(made / "home.zarr", *arguments)
    assert result.exit_code == 2 and says in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_is_not_there_is_said(made: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "nothing.zarr").exit_code == 1
    unknown = run(made / "home.zarr", "--episode", "wolk")
    assert unknown.exit_code == 2 and "did you mean walk" in unknown.stderr
