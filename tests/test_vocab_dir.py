"""A vocabulary on disk comes back whole, or says what is wrong with it in one line."""

import json
import os
import pickle
import random
import stat

import numpy as np
import pytest
from safetensors.numpy import load_file

from pantok.errors import VocabularyError
from pantok.formats.store_disk import seal, unseal
from pantok.formats.vocab import load_vocabulary, read_lineage, read_manifest, save_vocabulary
from pantok.vocabulary import Level, TokenizerState, Vocabulary


def a_vocabulary(seed: int = 0) -> Vocabulary:
    rng = np.random.default_rng(seed)
    audio = TokenizerState(
        "audio",
        {"rate": 16000, "strides": (1, 2), "nested": {"b": [1.5, None], "a": "é"}},
        (Level("gain", 255), Level("shape", 1024, "code", (320,))),
        {
            "transposed": rng.normal(size=(3, 5)).T,
            "half": rng.normal(size=7).astype(np.float16),
            "scalar": np.array(3, np.int64),
            "none": np.zeros((0, 4), np.uint16),
            "yes": np.array([True, False]),
        },
        metrics={"pesq": np.float32(2.5), "bad": float("nan"), "count": np.int64(3)},
    )
    text = TokenizerState(
        "text", {"kind": "sentencepiece"}, (Level("text", 300, "text"),), {}, {"model": rng.bytes(500) + b"\x00\r\n"}
    )
    return Vocabulary.build({"audio": audio, "text": text})


def equal(a: Vocabulary, b: Vocabulary) -> bool:
    return a.extents == b.extents and all(
        s.levels == b.states[m].levels
        and dict(s.blobs) == dict(b.states[m].blobs)
        and all(
            t.dtype == b.states[m].tensors[n].dtype and np.array_equal(t, b.states[m].tensors[n])
            for n, t in s.tensors.items()
        )
        for m, s in a.states.items()
    )


def read_all(path) -> None:
    load_vocabulary(path)
    read_lineage(path)


@pytest.mark.parametrize("lazy", [False, True])
def test_comes_back_whole(tmp_path, lazy):
    vocabulary = a_vocabulary()
    save_vocabulary(vocabulary, tmp_path / "a.vocab")
    again = load_vocabulary(tmp_path / "a.vocab", lazy=lazy)
    assert again.id == vocabulary.id
    assert again.reads(vocabulary) and vocabulary.reads(again)
    assert equal(vocabulary, pickle.loads(pickle.dumps(again)))
    assert again.states["audio"].metrics == {"pesq": 2.5, "bad": None, "count": 3}
    assert os.listdir(tmp_path) == ["a.vocab"]


def test_other_programs_read_it(tmp_path):
    vocabulary = a_vocabulary()
    save_vocabulary(vocabulary, tmp_path / "a.vocab")
    manifest = json.loads((tmp_path / "a.vocab/manifest.json").read_text())
    assert next(iter(manifest)) == "format"
    assert manifest["vocabulary_id"] == vocabulary.id
    assert manifest["extents"][-1]["start"] + manifest["extents"][-1]["length"] == vocabulary.size
    tensors = load_file(tmp_path / "a.vocab/audio.safetensors")
    np.testing.assert_array_equal(tensors["transposed"], vocabulary.states["audio"].tensors["transposed"])
    assert (tmp_path / "a.vocab/text/model").read_bytes() == vocabulary.states["text"].blobs["model"]


def test_the_identity_is_the_content(tmp_path):
    """Saved again from what was loaded, the id is the same; another tensor gives another."""
    save_vocabulary(a_vocabulary(), tmp_path / "a.vocab")
    save_vocabulary(load_vocabulary(tmp_path / "a.vocab"), tmp_path / "b.vocab")
    assert load_vocabulary(tmp_path / "b.vocab").id == a_vocabulary().id != a_vocabulary(1).id


def test_lineage(tmp_path):
    save_vocabulary(a_vocabulary(), tmp_path / "a.vocab")
    (born,) = read_lineage(tmp_path / "a.vocab")
    assert born["op"] == "born" and born["vocabulary_id"] == a_vocabulary().id
    save_vocabulary(a_vocabulary(), tmp_path / "b.vocab", lineage=[born, {"op": "merge", "gain": np.float32(0.5)}])
    assert [line["op"] for line in read_lineage(tmp_path / "b.vocab")] == ["born", "merge"]


def test_replaced_only_by_force_and_only_a_vocabulary(tmp_path):
    save_vocabulary(a_vocabulary(), tmp_path / "a.vocab")
    with pytest.raises(VocabularyError, match=r"a\.vocab: is there already .*--force"):
        save_vocabulary(a_vocabulary(1), tmp_path / "a.vocab")
    assert load_vocabulary(tmp_path / "a.vocab").id == a_vocabulary().id
    save_vocabulary(a_vocabulary(1), tmp_path / "a.vocab", force=True)
    assert load_vocabulary(tmp_path / "a.vocab").id == a_vocabulary(1).id
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(VocabularyError, match="is not a vocabulary, so it is not replaced"):
        save_vocabulary(a_vocabulary(), tmp_path / "home", force=True)
    assert (tmp_path / "home/letter.txt").read_text() == "dear"
    assert sorted(os.listdir(tmp_path)) == ["a.vocab", "home"]


def test_every_flipped_bit_is_named(tmp_path):
    path = tmp_path / "a.vocab"
    save_vocabulary(a_vocabulary(), path)
    draw = random.Random(0)
    files = sorted(f for f in path.rglob("*") if f.is_file())
    assert len(files) == 4
    for file in files:
        whole = file.read_bytes()
        for at in [0, len(whole) - 1, *(draw.randrange(len(whole)) for _ in range(30))]:
            hurt = bytearray(whole)
            hurt[at] ^= 1 << draw.randrange(8)
            file.write_bytes(hurt)
            with pytest.raises(VocabularyError) as caught:
                read_all(path)
            assert file.name in str(caught.value) and "\n" not in str(caught.value), (file, at)
        file.write_bytes(whole)
    assert load_vocabulary(path).id == a_vocabulary().id


def test_a_changed_tensor_is_named_with_both_hashes(tmp_path):
    """Even where sizes and checksums have been brought into line, the content has its own hash."""
    path = tmp_path / "a.vocab"
    save_vocabulary(a_vocabulary(), path)
    save_vocabulary(a_vocabulary(1), tmp_path / "b.vocab")
    (path / "audio.safetensors").write_bytes((tmp_path / "b.vocab/audio.safetensors").read_bytes())
    with pytest.raises(VocabularyError, match=r"audio\.safetensors: is damaged: it holds .* hash .* hash "):
        load_vocabulary(path)
    manifest = unseal((path / "manifest.json").read_bytes(), "")
    other = unseal((tmp_path / "b.vocab/manifest.json").read_bytes(), "")
    manifest["files"]["audio.safetensors"] = other["files"]["audio.safetensors"]
    (path / "manifest.json").write_bytes(seal(manifest))
    stored = a_vocabulary().states["audio"].digest
    with pytest.raises(VocabularyError, match=rf"audio\.safetensors: .*{stored}"):
        load_vocabulary(path)
    late = load_vocabulary(path, lazy=True)
    with pytest.raises(VocabularyError, match=r"audio\.safetensors"):
        late.states["audio"].tensors["half"]


def test_other_formats_are_refused_by_name(tmp_path):
    path = tmp_path / "a.vocab"
    save_vocabulary(a_vocabulary(), path)
    manifest = unseal((path / "manifest.json").read_bytes(), "")
    newer = {**manifest, "format": 7}
    for data in (seal(newer), json.dumps(newer).encode()):
        (path / "manifest.json").write_bytes(data)
        with pytest.raises(
            VocabularyError,
            match=r"a\.vocab: its manifest\.json is of format 7, pantok .* reads format 1, 2 and 3 \(upgrade",
        ):
            load_vocabulary(path)


def test_what_is_not_a_vocabulary(tmp_path):
    for name, problem in (
        ("nothing", "there is no such"),
        ("empty", "it has no manifest"),
        ("file", "has no manifest"),
    ):
        if name == "empty":
            (tmp_path / name).mkdir()
        elif name == "file":
            (tmp_path / name).write_text("x")
        with pytest.raises(VocabularyError, match=f"{name}: .*{problem}.*fit-vocab"):
            load_vocabulary(tmp_path / name)
    (tmp_path / "empty/manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(VocabularyError, match="is not a vocabulary's"):
        load_vocabulary(tmp_path / "empty")
    (tmp_path / "empty/manifest.json").write_text("")
    with pytest.raises(VocabularyError, match=r"manifest\.json is empty"):
        load_vocabulary(tmp_path / "empty")


def test_a_missing_file_is_named(tmp_path):
    save_vocabulary(a_vocabulary(), tmp_path / "a.vocab")
    (tmp_path / "a.vocab/text/model").unlink()
    with pytest.raises(VocabularyError, match=r"text/model: is missing"):
        load_vocabulary(tmp_path / "a.vocab")


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pantok.formats.vocab.write_file", full)
    with pytest.raises(VocabularyError, match=r"a\.vocab: cannot be written: no space left"):
        save_vocabulary(a_vocabulary(), tmp_path / "a.vocab")
    assert os.listdir(tmp_path) == []


def test_the_manifest_alone_is_quick(tmp_path):
    """`read_manifest` opens no tensor file: it answers where that file cannot even be read."""
    save_vocabulary(a_vocabulary(), tmp_path / "a.vocab")
    (tmp_path / "a.vocab/audio.safetensors").unlink()
    assert read_manifest(tmp_path / "a.vocab")["vocabulary_id"] == a_vocabulary().id
    assert load_vocabulary(tmp_path / "a.vocab", lazy=True).id == a_vocabulary().id
    assert stat.S_ISDIR(os.stat(tmp_path / "a.vocab").st_mode)
