"""pantok: tokenize recordings of sight, sound, motion and text with one vocabulary, and train a world model on them.

Every `--help` runs this module, so the public names are loaded when they are first used: no torch, not even numpy.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pantok.encode import Codec as Codec
    from pantok.errors import InputError as InputError
    from pantok.errors import OptionError as OptionError
    from pantok.errors import OutputError as OutputError
    from pantok.errors import PantokError as PantokError
    from pantok.errors import StoreError as StoreError
    from pantok.errors import TokenError as TokenError
    from pantok.errors import VocabularyError as VocabularyError
    from pantok.experience import Block as Block
    from pantok.experience import Clock as Clock
    from pantok.experience import Episode as Episode
    from pantok.experience import Source as Source
    from pantok.experience import Track as Track
    from pantok.fit import fit_vocabulary as fit_vocabulary
    from pantok.stream import LevelCodes as LevelCodes
    from pantok.stream import TokenStream as TokenStream
    from pantok.stream import TrackTokens as TrackTokens
    from pantok.vocabulary import Level as Level
    from pantok.vocabulary import TokenizerState as TokenizerState
    from pantok.vocabulary import Vocabulary as Vocabulary

__version__ = "0.1.0"

_here = Path(__file__).parent
if not (_here / "commands").is_dir():  # a checkout, where commands/ and formats/ stand beside this folder
    __path__.append(str(_here.parent))

_HOMES = {
    "encode": ("Codec",),
    "errors": (
        "InputError",
        "OptionError",
        "OutputError",
        "PantokError",
        "StoreError",
        "TokenError",
        "VocabularyError",
    ),
    "experience": ("Block", "Clock", "Episode", "Source", "Track"),
    "fit": ("fit_vocabulary",),
    "stream": ("LevelCodes", "TokenStream", "TrackTokens"),
    "vocabulary": ("Level", "TokenizerState", "Vocabulary"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
