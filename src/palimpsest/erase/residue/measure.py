"""Does the old fact still show? Read the unedited and the edited model, at every layer and wording, beside controls.

    found = residue(model, facts, edit)                       # one edit of all facts
    found = residue(model, facts, [edit_1, edit_2, ...])      # one edit a fact, each applied alone
    found = residue(model, facts)                             # no edit: how readable the facts are
    found.table(), found.auc(), found.certificates(), found.plot(), found.save("results.json")

For each pair of `pairs_of` (the edited fact, the same answer at other subjects, facts never known) each readout gives a score
at each of its columns. Readouts are fitted on the unedited model, and every pair is read under the edit it belongs to. Patil,
Hase and Bansal (2024) and Xie et al. (2025) find old answers after edits; what neither says, and this does, is how often the
same reading "finds" an answer that was never there.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from palimpsest.edit.artefact import Edit
from palimpsest.erase.residue.lens import LensReader
from palimpsest.erase.residue.pair import EDITED, NEVER_KNOWN, Pair
from palimpsest.erase.residue.pairs_of import pairs_of
from palimpsest.erase.residue.readout import Column, Reader, Readout, Table
from palimpsest.erase.residue.readouts import readout_of
from palimpsest.erase.residue.result import Residue
from palimpsest.erase.residue.states import LastStates, StreamReader, last_states
from palimpsest.errors import AnatomyError, EditError, InputError, SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.locate.known import ask_each, knowledge
from palimpsest.model import Model
from palimpsest.runs import Progress

DEFAULT = ("logit lens", "trained lens", "head", "wording")
GATES = ("known", "all")
Edits = Edit | Sequence[Edit] | None
Standing = Float[np.ndarray, "pairs layers answers measures"]


def residue(
    model: Model,
    facts: Sequence[Fact],
    edits: Edits = None,
    *,
    unknown: Sequence[Fact] = (),
    unknown_edits: Edits = None,
    pool: Sequence[Fact] | None = None,
    readouts: Sequence[str | Readout] = DEFAULT,
    gate: str = "known",
    controls: int | None = None,
    seed: int = 0,
    unedited: Residue | None = None,
    progress: Progress | None = None,
) -> Residue:
    """Read the old answers of some facts before and after an edit.

    Args:
        model: without any edit applied; it comes out as it went in.
        facts: the edited ones.
        edits: one edit for all of them, or one a fact, each applied alone; None reads the unedited model only.
        unknown: facts the model never knew, with the answers the world gives.
        unknown_edits: one for all of them or one a fact; `edits` when None and that is a single edit, else they are read unedited.
        pool: facts whose subjects and answers are controls; `facts`, `unknown` and the shipped ones when None.
        readouts: names ("logit lens", "trained lens", "head", "wording"; "probe", "attack", "sampling", "relearning") or readouts
            themselves. A method that was optimised against one is not judged by it.
        gate: "known": facts that the unedited model does not know count as never known; "all": every fact counts as edited.
        controls: same-answer controls a fact; 4, or more where facts are few, when None.
        seed: of every draw.
        unedited: an earlier result of the same call but for its edits: what it read of the unedited model is taken over.
        progress: called with (edits read, all, label).

    Raises:
        InputError: no fact can be asked, edits do not match facts, or `unedited` is of another call.
        SettingError: an unknown readout or gate, or a number out of range.
        EditError: an edit is applied already.
        WeightError: an edit was made for other weights.
    """
    if model.applied:
        raise EditError(
            f"{model.applied[-1].edit!r} is applied to {model.name}; undo it first, for residue reads the unedited model."
        )
    if gate not in GATES:
        raise SettingError(f"There is no gate {gate!r}.{did_you_mean(gate, GATES)}")
    if not readouts:
        raise SettingError(f"Residue needs at least one readout, got none; name some of {', '.join(DEFAULT)}.")
    of_fact = _edit_of(facts, edits, "facts")
    if unknown_edits is None and isinstance(edits, Edit):
        unknown_edits = edits
    of_fact |= _edit_of(unknown, unknown_edits, "never-known facts")
    known, not_known, left_out = _gated(model, facts, gate)
    asked = pairs_of(known, [*not_known, *unknown], pool, controls=controls, seed=seed)
    pairs = asked.pairs
    told = [fact for fact in asked.pool if fact.target_true is not None]
    readers, unread = _fitted(
        model, [readout_of(one, told) if isinstance(one, str) else one for one in readouts], pairs
    )
    before = _read_before(unedited, pairs) if unedited else _read(model, readers, pairs)
    unread |= _nowhere(before)
    work = _by_edit(pairs, of_fact)
    if progress:
        progress(0, len(work), "")
    after = _Scores(
        before.columns, before.scores.copy(), {name: values.copy() for name, values in before.standing.items()}
    )
    for done, (edit, rows) in enumerate(work, 1):
        with edit.applied(model):
            after.put(rows, _read(model, readers, [pairs[i] for i in rows]))
        if progress:
            progress(done, len(work), "edits read")
    edited = [i for i, pair in enumerate(pairs) if pair.group == EDITED]
    standing = {
        name: np.stack([values[edited], after.standing[name][edited]]) for name, values in before.standing.items()
    }
    settings = {
        "model": model.name,
        "method": _methods(of_fact),
        "edits": "none" if edits is None else "one for all" if isinstance(edits, Edit) else "one a fact",
        "unknown_edited": any(pair.of in of_fact for pair in pairs if pair.group == NEVER_KNOWN),
        "readouts": list(dict.fromkeys(column.readout for column in before.columns)),
        "gate": gate,
        "not_known": len(not_known),
        "seed": seed,
    }
    return Residue(
        pairs, before.columns, before.scores, after.scores, standing, {**left_out, **asked.left_out}, unread, settings
    )


class _Scores:
    """One reading of all pairs: a score a column, and where answers stand at each layer of each lens."""

    def __init__(
        self, columns: tuple[Column, ...], scores: Float[np.ndarray, "pairs columns"], standing: dict[str, Standing]
    ) -> None:
        self.columns, self.scores, self.standing = columns, scores, standing

    def put(self, rows: Sequence[int], other: "_Scores") -> None:
        """Write what was read of some of the pairs."""
        if other.columns != self.columns:
            raise InputError(
                "The reading under an edit asked other columns than that before it; give an earlier result of the same readouts, "
                "and readouts whose columns depend on no edit."
            )
        self.scores[list(rows)] = other.scores
        for name, values in other.standing.items():
            self.standing[name][list(rows)] = values


def _read_before(earlier: Residue, pairs: tuple[Pair, ...]) -> _Scores:
    """What an earlier result read of the unedited model, where it asked the same pairs."""
    if earlier.pairs != pairs:
        raise InputError(
            "The earlier result asked other pairs than this call does; give it the same facts, pool and seed."
        )
    standing = {}
    edited = [i for i, pair in enumerate(pairs) if pair.group == EDITED]
    for name, values in earlier.standing.items():
        standing[name] = np.full((len(pairs), *values.shape[2:]), np.nan)
        standing[name][edited] = values[0]
    return _Scores(earlier.columns, earlier.before, standing)


def _read(model: Model, readers: Sequence[Reader], pairs: Sequence[Pair]) -> _Scores:
    """All columns of all readers; those that read states at last tokens share one run of each text."""
    shared = [reader for reader in readers if isinstance(reader, StreamReader)]
    states: LastStates | None = None
    if shared:
        texts = [text for reader in shared for text in reader.texts(pairs)]
        states = last_states(model, texts, heads=any(reader.heads for reader in shared))
    tables: list[Table] = []
    standing: dict[str, Standing] = {}
    edited = [i for i, pair in enumerate(pairs) if pair.group == EDITED]
    for reader in readers:
        if isinstance(reader, StreamReader) and states is not None:
            tables.append(reader.score(model, states, pairs))
        else:
            tables.append(reader.read(model, pairs))
        if isinstance(reader, LensReader) and states is not None:
            found = reader.standing(model, states, [pairs[i] for i in edited])
            standing[reader.name] = np.full((len(pairs), *found.shape[1:]), np.nan)
            standing[reader.name][edited] = found
    columns = tuple(column for table in tables for column in table.columns)
    return _Scores(columns, np.concatenate([table.scores for table in tables], axis=1), standing)


def _fitted(model: Model, readouts: Sequence[Readout], pairs: Sequence[Pair]) -> tuple[list[Reader], dict[str, str]]:
    """Readers, and the reason for each readout that this model cannot be read by."""
    readers: list[Reader] = []
    unread: dict[str, str] = {}
    for readout in readouts:
        try:
            readers.append(readout.fit(model, pairs))
        except AnatomyError as error:
            unread[readout.name] = str(error)
    if not readers:
        raise AnatomyError(next(iter(unread.values())))
    return readers, unread


def _nowhere(before: _Scores) -> dict[str, str]:
    """Readouts that gave no score at all, as probes of relations with too few facts."""
    read: dict[str, bool] = {}
    for column, some in zip(before.columns, (~np.isnan(before.scores)).any(axis=0), strict=True):
        read[column.readout] = read.get(column.readout, False) or bool(some)
    return {
        name: "None of the facts and controls could be read by it; give a pool with more facts of their relations "
        "(a probe needs 14 subjects of one)."
        for name, any_read in read.items()
        if not any_read
    }


def _gated(model: Model, facts: Sequence[Fact], gate: str) -> tuple[list[Fact], list[Fact], dict[str, str]]:
    """Facts the model knows, those it does not, and why others cannot be asked."""
    left_out: dict[str, str] = {}
    able: list[Fact] = []
    for fact in facts:
        try:
            model.encode(fact.text)
            able.append(fact)
        except InputError as error:
            left_out[fact.id] = str(error)
    if gate == "all" or not able:
        return able, [], left_out
    with_answer = [fact for fact in able if fact.target_true is not None]
    found, failures = ask_each(knowledge, model, with_answer)
    known = [fact for i, fact in enumerate(with_answer) if i in found and found[i].known]
    known += [fact for fact in able if fact.target_true is None]  # `pairs_of` says what is wrong with them
    left_out |= {with_answer[i].id: reason for i, reason in failures.items()}
    not_known = [fact for i, fact in enumerate(with_answer) if i in found and not found[i].known]
    if not known:
        raise InputError(
            f"{model.name} knows none of the {len(facts)} facts (right on two of three wordings), so there is nothing to look for; "
            f"give facts it knows, or gate='all'."
        )
    return known, not_known, left_out


def _edit_of(facts: Sequence[Fact], edits: Edits, what: str) -> dict[str, Edit]:
    """The edit that each fact is read under, by id."""
    if edits is None:
        return {}
    if isinstance(edits, Edit):
        return {fact.id: edits for fact in facts}
    if len(edits) != len(facts):
        raise InputError(
            f"There must be one edit for all {what} or one for each, got {len(edits)} edits and {len(facts)} {what}."
        )
    return {fact.id: edit for fact, edit in zip(facts, edits, strict=True)}


def _by_edit(pairs: Sequence[Pair], of_fact: dict[str, Edit]) -> list[tuple[Edit, list[int]]]:
    """Rows of the pairs that are read under each edit; others keep what was read before."""
    rows: dict[int, tuple[Edit, list[int]]] = {}
    for i, pair in enumerate(pairs):
        if (edit := of_fact.get(pair.of)) is not None:
            rows.setdefault(id(edit), (edit, []))[1].append(i)
    return list(rows.values())


def _methods(of_fact: dict[str, Edit]) -> str:
    return ", ".join(sorted({edit.method for edit in of_fact.values()})) or "none"
