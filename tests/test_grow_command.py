"""`pantok vocab grow` on the command line: what is written, what is left as it is, what is refused."""

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from pantok import tokenizers
from pantok.commands.cli import pantok as group
from pantok.formats.vocab import load_vocabulary, read_lineage

SAMPLES = Path(__file__).parent.parent / "sample_data"


def test_the_command(pantok, vocabulary, tmp_path):
    out = tmp_path / "grown.vocab"
    args = ("vocab", "grow", vocabulary, "--with", SAMPLES / "music", "--most", "32", "-o", out, "--only", "audio")
    done = pantok(*args, "--json")
    assert done.code == 0, done.err
    old, new = load_vocabulary(vocabulary), load_vocabulary(out)
    assert new.reads(old) and new.size > old.size
    assert tokenizers.load(new.states["audio"]).levels == new.levels("audio")
    assert set(json.loads(done.out)["after"]["bits_per_second"]) == {"audio"}


def test_what_does_not_pay_stays_and_what_pays_is_written(vocabulary, tmp_path, monkeypatch):
    """A bit a second more of numbers had kept fifteen thousand fewer of video from being written."""
    from pantok.evolve import judge

    music, walk = SAMPLES / "music" / "tabla.ogg", tmp_path / "walk.csv"
    rng = np.random.default_rng(1)
    rows = np.stack([np.arange(4000) / 50, np.sin(np.arange(4000) / 7), rng.normal(size=4000).cumsum() * 40], 1)
    np.savetxt(walk, rows, delimiter=",", header="t,x,y", comments="")
    really = judge.judge
    said = {"audio": False, "numeric": True}

    def judged(old, new, *args, **kwargs):
        pair = really(old, new, *args, **kwargs)
        worse = said[old.modality] == (pair[1].bits < pair[0].bits)  # as if it were the other way round
        return pair[::-1] if worse else pair

    monkeypatch.setattr(judge, "judge", judged)
    out, sources = tmp_path / "grown.vocab", ["--with", str(music), "--with", str(walk)]

    def run(*more):
        return CliRunner().invoke(
            group, ["vocab", "grow", str(vocabulary), *sources, "--most", "64", "-o", str(out), *more]
        )

    done = run("--json")
    assert done.exit_code == 0, done.stderr
    old, new = load_vocabulary(vocabulary), load_vocabulary(out)
    assert new.states["numeric"].digest == old.states["numeric"].digest != new.states["audio"].digest
    document = json.loads(done.stdout)
    assert document["grown"] == ["audio"] and set(document["after"]["bits_per_second"]) == {"audio", "numeric"}
    step = read_lineage(out)[-1]
    assert set(step["after"]["bits_per_second"]) == set(step["after"]["levels"]) == {"audio"}
    said["audio"] = True
    done = run("--force", "--dry-run", "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["grown"] == ["audio", "numeric"]
    out = tmp_path / "none.vocab"
    done = run()
    assert done.exit_code == 3 and "audio and numeric stay as they are" in done.stderr and not out.exists()


def test_what_a_vocabulary_has_no_tokenizer_for_cannot_grow(pantok, tmp_path):
    """It said that no new code would pay, and that the vocabulary describes these recordings well."""
    home, music = tmp_path / "home.vocab", SAMPLES / "music" / "tabla.ogg"
    table = tmp_path / "a.csv"
    table.write_text("t,x\n" + "".join(f"{k / 50},{k % 7}\n" for k in range(200)))
    assert pantok("fit-vocab", table, "-o", home).code == 0
    grow = ("vocab", "grow", home, "-o", tmp_path / "x.vocab", "--with")
    done = pantok(*grow, music)
    assert done.code == 1 and "has no tokenizer for audio (learn one from them with pantok fit-vocab" in done.err
    done = pantok(*grow, table, "--only", "video")
    assert done.code == 1 and "holds no video" in done.err
    done = pantok(*grow, table, "--with", music)
    assert "audio: " in done.err and "has no tokenizer for it" in done.err
