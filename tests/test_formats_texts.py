"""Texts with and without times: what is read of each form, odd encodings, damage, and the way back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pantok.errors import InputError
from pantok.experience import NS
from pantok.formats.texts import read_corpus, read_texts, suffix_for, write_texts

MS = 1_000_000


def spans_of(path: Path) -> list[tuple[int, int | None, str]]:
    track = read_texts(path)
    values, clock = track.read()
    ends = track.info.get("ends_ns") or [None] * clock.count
    return list(zip(clock.times_ns.tolist(), ends, values.tolist(), strict=True))


def put(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refused(path: Path, *expected: str) -> None:
    with pytest.raises(InputError) as caught:
        read_texts(path)
    for words in (path.name, *expected):
        assert words in str(caught.value)
    assert caught.value.remedy


def test_plain_text_is_one_span_byte_for_byte(tmp_path: Path) -> None:
    content = "  One.\r\n\tTwo \u2028 three\x0b\n\n🤖 é e\u0301\n"
    assert spans_of(put(tmp_path / "a.txt", content)) == [(0, None, content)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom"])
@pytest.mark.parametrize("suffix", [".txt", ".srt", ".jsonl"])
def test_encodings_that_say_what_they_are(tmp_path: Path, encoding: str, suffix: str) -> None:
    text = "Größe, 猫, 🤖"
    content = {
        ".txt": text,
        ".srt": f"1\n00:00:01,000 --> 00:00:02,000\n{text}\n",
        ".jsonl": json.dumps({"start": 1, "end": 2, "text": text}, ensure_ascii=False),
    }[suffix]
    raw = ("\ufeff" + content).encode(encoding[:9]) if encoding.endswith("bom") else content.encode(encoding)
    expected = (0, None, text) if suffix == ".txt" else (NS, 2 * NS, text)
    assert spans_of(put(tmp_path / f"a{suffix}", raw)) == [expected]


def test_other_encodings_are_refused_with_the_command_that_mends_them(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", "Größe".encode("latin1"))
    refused(path, "byte 2", "iconv -f latin1 -t utf8 a.txt > new.txt")
    refused(put(tmp_path / "b.srt", b"\xff\xfe\x00\xd8"), "UTF-16")


def test_subtitles(tmp_path: Path) -> None:
    content = (
        "\ufeff1\n00:00:01,500 --> 00:00:04,000\nTwo lines,\n<i>one</i> cue\n\n"
        "2\n00:00:03,000 --> 00:00:03,250 X1:40 Y1:20\nOverlapping\n\n\n"
        "7\n100:00:00,001 --> 100:00:00,002\nA hundred hours\n\n4\n00:00:00,000 --> 00:00:00,100\nOut of order"
    )
    expected = [
        (0, 100 * MS, "Out of order"),
        (1500 * MS, 4000 * MS, "Two lines,\n<i>one</i> cue"),
        (3000 * MS, 3250 * MS, "Overlapping"),
        (360_000 * NS + MS, 360_000 * NS + 2 * MS, "A hundred hours"),
    ]
    for name, text in (
        ("unix", content),
        ("windows", content.replace("\n", "\r\n")),
        ("mac", content.replace("\n", "\r")),
    ):
        assert spans_of(put(tmp_path / f"{name}.srt", text)) == expected, name


def test_web_subtitles(tmp_path: Path) -> None:
    content = (
        "WEBVTT - a title\nKind: captions\n\nNOTE\nnot --> shown\n\nSTYLE\n::cue { color: red }\n\n"
        "intro\n00:01.000 --> 00:02.500 align:start position:10%\nHello\u2028world\n\n"
        "01:00:00.000 --> 01:00:01.000\nAn hour on\n"
    )
    expected = [(NS, 2500 * MS, "Hello\u2028world"), (3600 * NS, 3601 * NS, "An hour on")]
    assert spans_of(put(tmp_path / "a.vtt", content)) == expected
    assert "language" not in read_texts(tmp_path / "a.vtt").info
    assert read_texts(put(tmp_path / "b.vtt", content.replace("NOTE", "Language: en", 1))).info["language"] == "en"


def test_json_lines_under_all_names_of_time(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "start_ns": 1700000000000000001, "end_ns": 1700000000000000003},
        {"text": "b", "start_s": 0.1, "end_s": 0.3},
        {"text": "c\u2028d", "start": "1/3", "end": 0.5},
        {"text": "e", "time": 2, "speaker": "x"},
        {"text": "f", "t": 1e-9},
    ]
    content = "\r\n\n".join(json.dumps(r, ensure_ascii=False) for r in rows)
    assert spans_of(put(tmp_path / "a.jsonl", content)) == [
        (1, None, "f"),
        (100 * MS, 300 * MS, "b"),
        (333333333, 500 * MS, "c\u2028d"),
        (2 * NS, None, "e"),
        (1700000000000000001, 1700000000000000003, "a"),
    ]


@pytest.mark.parametrize(
    "row",
    [
        '{"text": "a"}', '{"start": 1}', '{"start": "soon", "text": "a"}', '{"start": NaN, "text": "a"}',
        '{"start": Infinity, "text": "a"}', '{"start": true, "text": "a"}', '{"start": 1, "text": 5}', '[1, "a"]',
        '"a"', "3", "null", '{"start": 1, "text": "a"', "[" * 100_000, '{"start": [1], "text": "a"}',
    ],
)  # fmt: skip
def test_json_lines_that_cannot_be_are_named(tmp_path: Path, row: str) -> None:
    good = '{"start": 0, "text": "fine"}\n'
    refused(put(tmp_path / "a.jsonl", good + row), "line 2", '{"start": 1.5, "text": "go"}')


def test_times_and_characters_that_cannot_be(tmp_path: Path) -> None:
    refused(put(tmp_path / "a.jsonl", '{"start": 1e30, "text": "a"}'), "span 1")
    refused(put(tmp_path / "b.jsonl", '{"start": 2, "end": 1, "text": "a"}'), "from 2 s to 1 s")
    refused(put(tmp_path / "c.jsonl", '{"start": 2, "text": "a\\ud800"}'), "half a character at 1")
    refused(put(tmp_path / "d.srt", "1\n00:00:02,000 --> 00:00:01,000\nBackwards\n"), "from 2 s to 1 s")


def test_what_holds_no_text(tmp_path: Path) -> None:
    for name, content in (("a.txt", ""), ("b.srt", "no cue at all\n"), ("c.vtt", "WEBVTT\n\n"), ("d.jsonl", "\n\n")):
        refused(put(tmp_path / name, content), "holds no text")


def test_a_corpus_is_every_text_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    put(tmp_path / "a.txt", "one\ntwo")
    put(tmp_path / "sub" / "b.srt", "1\n00:00:01,000 --> 00:00:02,000\nthree\n")
    put(tmp_path / "c.mp4", "not text")
    assert list(read_corpus([tmp_path, tmp_path / "a.txt"])) == ["one\ntwo", "three", "one\ntwo"]


# The way back

TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["a\n\nb", "", "\n", "a\r\nb", "00:00:01,000 --> 00:00:02,000", " a ", "a\n", "two\nlines", "2"]),
)


@settings(max_examples=200, deadline=None)
@example(spans=[(0, None, "\0", False)])
@example(spans=[(0, None, "\ufeffa", False)])
@example(spans=[(0, 10**9, "a\0b", True)])
@given(
    spans=st.lists(
        st.tuples(st.integers(0, 10**13), st.none() | st.integers(0, 10**10), TEXTS, st.booleans()),
        min_size=1,
        max_size=5,
    )
)
def test_what_is_written_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int | None, str, bool]]
) -> None:
    exact = []
    for start, length, text, whole in sorted(spans, key=lambda s: s[0]):
        start = start // MS * MS if whole else start
        end = None if length is None else start + (length // MS * MS if whole else length)
        exact.append((start, end, text))
    exact.sort(key=lambda s: s[0])
    if not any(text for _, _, text in exact):
        return
    path = tmp_path_factory.getbasetemp() / f"back{suffix_for(exact)}"
    write_texts(path, exact)
    assert spans_of(path) == exact
    path = tmp_path_factory.getbasetemp() / f"back{suffix_for(exact, 'eng')}"
    write_texts(path, exact, "eng")
    assert spans_of(path) == exact and read_texts(path).info["language"] == "eng"


def test_the_plainest_form_is_chosen() -> None:
    assert suffix_for([(0, None, "a\n\nb")]) == ".txt"
    assert suffix_for([(0, MS, "a"), (MS, 5 * MS, "two\nlines")]) == ".srt"
    assert suffix_for([(0, MS, "a"), (MS, 5 * MS, "two\nlines")], "eng") == ".vtt"
    assert suffix_for([(0, None, "a\n\nb")], "eng") == ".jsonl"
    assert suffix_for([(0, 1, "a")]) == ".jsonl"
    assert suffix_for([(5, None, "a")]) == ".jsonl"
    assert suffix_for([(0, MS, "a\n\nb")]) == ".jsonl"
    for text in ("\0", "a\0b", "\ufeffa"):
        assert suffix_for([(0, None, text)]) == suffix_for([(0, MS, text)]) == ".jsonl"
