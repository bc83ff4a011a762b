"""The walls between the rooms, walked import by import."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pantok

ROOT = Path(__file__).parent.parent
ROOMS = {"pantok": ROOT / "pantok", "pantok.formats": ROOT / "formats", "pantok.commands": ROOT / "commands"}
LOGS = {"mcap", "mcap_ros1", "mcap_ros2", "mcap_protobuf", "google.protobuf"}
CODECS = {"av", "soundfile", "zarr", "h5py", "pyarrow", "rosbags"} | LOGS
FORBIDDEN = {
    "pantok": CODECS | {"click", "rich", "safetensors", "pantok.formats", "pantok.commands"},
    "pantok.formats": {"click", "rich", "torch", "vector_quantize_pytorch", "pantok.commands"},
    "pantok.commands": CODECS | {"vector_quantize_pytorch"},
}


def imports_of(path: Path) -> set[str]:
    """Every module that the file imports, with its parents: `a.b.c` counts as a, a.b and a.b.c."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            found |= {".".join(parts[: i + 1]) for i in range(len(parts))}
    return found


def files() -> list[tuple[str, Path]]:
    return [(room, path) for room, folder in ROOMS.items() for path in sorted(folder.rglob("*.py"))]


@pytest.mark.parametrize(
    ("room", "path"), files(), ids=lambda v: str(v.relative_to(ROOT)) if isinstance(v, Path) else ""
)
def test_no_room_reaches_through_a_wall(room: str, path: Path) -> None:
    used = imports_of(path)
    if path.name == "__main__.py":
        used -= {"pantok.commands"}
    if path == ROOT / "pantok" / "loader_source.py":
        used -= {"pantok.formats"}  # the one door: training jobs name a store by its path
    assert not used & FORBIDDEN[room]
    assert not used & {"commands", "formats"}, "import pantok.commands and pantok.formats instead"
    if path == ROOT / "formats" / "tfrecord.py":
        used -= {"google.protobuf"}  # its records are messages too
    assert not used & LOGS or path == ROOT / "formats" / "mcap_file.py"
    assert "rosbags" not in used or path == ROOT / "formats" / "bag_file.py"
    if "vector_quantize_pytorch" in used:
        assert path.parent.name == "quantizers"


def test_no_module_shadows_the_standard_library() -> None:
    assert not {path.stem for _, path in files()} & set(sys.stdlib_module_names)


def test_every_folder_with_code_is_packaged() -> None:
    packages = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = set()
    for room, folder in ROOMS.items():
        for init in folder.rglob("__init__.py"):
            inside = init.parent.relative_to(folder).parts
            found.add(".".join((room, *inside)))
    assert found == packages


def test_help_loads_neither_numpy_nor_torch() -> None:
    code = "import sys, pantok, pantok.commands.cli; print(sorted({'numpy', 'torch', 'av', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    for name in pantok.__all__:
        assert getattr(pantok, name) is not None
    with pytest.raises(AttributeError):
        pantok.nothing  # noqa: B018
