"""Every error that a user may meet, drawn as one tree.

    PantokError                      one line: `<thing>: <problem> (<remedy>)`
    ├── InputError(ValueError)       a recording that cannot be read or understood
    │   └── NothingToLearnError      recordings without anything that this modality could learn from
    ├── VocabularyError(ValueError)  a vocabulary that is missing, damaged, or not the one asked for
    ├── TokenError(ValueError)       a code that its level does not have; names the position
    ├── StoreError(OSError)          a token store that is damaged, half written, or cannot be written
    ├── OutputError(OSError)         a file that cannot be written: a full disk, no permission
    ├── OptionError(ValueError)      options that contradict each other or the data
    └── DivergedError(ArithmeticError)   a training whose loss is no longer finite

Each inherits the builtin that a caller of the library would catch. A bug is never dressed as one
of these: it keeps its traceback.
"""

from __future__ import annotations


class PantokError(Exception):
    """Something that a user can mend. `thing` is what it is about, most often a path."""

    def __init__(self, thing: object, problem: str, remedy: str = "") -> None:
        self.thing = str(thing)
        self.problem = problem
        self.remedy = remedy
        super().__init__(self.thing, problem, remedy)

    def __str__(self) -> str:
        tail = f" ({self.remedy})" if self.remedy else ""
        return " ".join(f"{self.thing}: {self.problem}{tail}".split())


class InputError(PantokError, ValueError):
    """A recording that cannot be read or understood."""


class NothingToLearnError(InputError):
    """Recordings, each of them sound, that hold nothing a modality could learn from: silence, say, or no rows."""


class VocabularyError(PantokError, ValueError):
    """A vocabulary that is missing, damaged, or not the one that was asked for."""


class TokenError(PantokError, ValueError):
    """A code that its level does not have."""


class StoreError(PantokError, OSError):
    """A token store that is damaged, half written, or cannot be written."""


class OutputError(PantokError, OSError):
    """A file that cannot be written."""


class OptionError(PantokError, ValueError):
    """Options that contradict each other or the data."""


class DivergedError(PantokError, ArithmeticError):
    """A training whose loss is no longer finite."""
