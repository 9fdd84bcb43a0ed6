"""Answers kept in a file, so that the unedited model is asked only once, whatever is edited and measured afterwards.

    cache = AnswerCache("answers/", model)
    answer(model, asks, cache=cache)

One file for each model (its weights, its tokenizer and the version of the network's code, hashed) holds a JSON line for each
answer. A line that is not whole or does not say what it should is skipped, and what it would have answered is asked again.

Next-token distributions are not kept: one is a number for every token of the vocabulary, 200 kB for smollm2, more to read than
to compute.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.edit.artefact import versions
from palimpsest.errors import InputError
from palimpsest.evaluate.asks import (
    Answer,
    Ask,
    Likelihood,
    LikelihoodAnswer,
    NextToken,
    NextTokenAnswer,
    Passage,
    PassageAnswer,
    Written,
)
from palimpsest.model import Model
from palimpsest.runs import check_writable
from palimpsest.runs.atomic import cannot_write

_KINDS: tuple[type[Likelihood | Written | Passage], ...] = (Likelihood, Written, Passage)


class AnswerCache:
    """The answers of one model, in a folder.

    Args:
        folder: made if need be; several models and several processes may share it.
        model: with nothing applied to it that its weights do not show (a memory).

    Raises:
        InputError: an edit is applied to the model.
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: str | PathLike[str], model: Model) -> None:
        if model.applied:
            raise InputError(
                "Answers are kept of the unedited model only, and an edit is applied to it; undo it first."
            )
        self.path = check_writable(Path(folder)) / f"answers-{_identity(model)[:20]}.jsonl"
        self._known = dict(_lines(self.path))

    def __len__(self) -> int:
        return len(self._known)

    def get(self, ask: Ask) -> Answer | None:
        """What was answered before, or None."""
        return self._known.get(ask)

    def put(self, answers: Mapping[Ask, Answer]) -> None:
        """Keep new answers; raises `OutputError` where the file cannot be written."""
        new: dict[Ask, Answer] = {
            ask: told for ask, told in answers.items() if not isinstance(ask, NextToken) and ask not in self._known
        }
        lines = "".join(json.dumps(_plain(ask, told)) + "\n" for ask, told in new.items())
        try:
            with self.path.open("ab+") as file:
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")  # someone was killed while writing the last line
                file.write(lines.encode())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        self._known |= new


def _identity(model: Model) -> str:
    """A hash of everything that the answers of a model depend on."""
    parts = [model.fingerprint(), model.tokenizer.backend_tokenizer.to_str(), str(versions()), str(model.net.config)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _plain(ask: Ask, told: Answer) -> dict[str, Any]:
    assert not isinstance(told, NextTokenAnswer)
    plain = told if isinstance(told, str) else dataclasses.asdict(told)
    return {"kind": type(ask).__name__, "ask": dataclasses.asdict(ask), "answer": plain}


def _lines(path: Path) -> list[tuple[Ask, Answer]]:
    """What the whole lines of a file say."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(_read(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            continue  # half a line, or another's
    return found


def _read(line: dict[str, Any]) -> tuple[Ask, Answer]:
    (kind,) = (kind for kind in _KINDS if kind.__name__ == line["kind"])
    ask, told = kind(**line["ask"]), line["answer"]
    if isinstance(ask, Written):
        return ask, str(told)
    if isinstance(ask, Passage):
        return ask, PassageAnswer(float(told["nll"]), int(told["tokens"]))
    return ask, LikelihoodAnswer(
        float(told["nll"]), tuple(bool(one) for one in told["right"]), tuple(int(one) for one in told["best"])
    )
