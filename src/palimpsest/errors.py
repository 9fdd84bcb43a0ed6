"""Everything palimpsest raises on purpose, in one tree.

PalimpsestError
├── InputError            what the user handed over is wrong
│   ├── FactError         a fact breaks its own rules (empty subject, two "{}", blank target, ...)
│   ├── RecordError       a file of facts cannot be read (not UTF-8, cut short, unknown schema, ...)
│   └── SettingError      an option is unknown or out of range
├── ModelError            the model cannot be had, or cannot be looked inside
│   ├── AnatomyError      a site was not found, or does not mean what its name says
│   └── WeightError       weights are missing, not finite, or not the ones an edit was made for
├── EditError             an edit cannot be computed, applied, undone, saved or loaded
├── OutputError           a result cannot be written
└── ContractError         a method or an instrument breaks a clause of its contract

Each message is one sentence a person can act on: what happened, what was expected, what was found, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PalimpsestError(Exception):
    """The root: `except PalimpsestError` catches everything the library raises on purpose."""


class InputError(PalimpsestError, ValueError):
    """What the user handed over is wrong."""


class FactError(InputError):
    """A fact breaks its own rules."""


class RecordError(InputError):
    """A file of facts, or one record of it, cannot be read."""


class SettingError(InputError):
    """An option is unknown or out of range."""


class ModelError(PalimpsestError):
    """The model cannot be had, or cannot be looked inside."""


class AnatomyError(ModelError):
    """A site of the model was not found, or does not mean what its name says."""


class WeightError(ModelError):
    """Weights are missing, not finite, or not the ones an edit was made for."""


class EditError(PalimpsestError):
    """An edit cannot be computed, applied, undone, saved or loaded."""


class OutputError(PalimpsestError, OSError):
    """A result cannot be written."""


class ContractError(PalimpsestError, AssertionError):
    """A method or an instrument breaks a clause of its contract."""


def did_you_mean(word: object, options: Iterable[object]) -> str:
    """ " Did you mean 'rome'?" when `word` is close to one of `options`, else the list of them.

    >>> did_you_mean("rmoe", ["rome", "memit"])
    " Did you mean 'rome'?"
    >>> did_you_mean("x", ["rome", "memit"])
    ' Choose one of: rome, memit.'
    """
    names = [str(option) for option in options]
    close = difflib.get_close_matches(str(word), names, n=1)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Choose one of: {', '.join(names)}."
