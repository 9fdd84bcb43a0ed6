"""A sweep: the same facts edited by themselves at every layer and token, one edit at a time, each undone and measured.

For a layer l, a role of a token t (`palimpsest.edit.keys`) and a fact i, with p and p' the probability of the new answer o* after
the prompt before and after the edit,

    es, em, ps, pm, ns, nm    of the edited model, as in `palimpsest.evaluate.counterfact`
    rewrite                   (p' - p) / (1 - p)          the share of what was missing that the edit brought (Hase et al. 2023,
                                                          section 4.1); 1 is certainty, 0 no change, below 0 a loss

p is the geometric mean probability of a token of o*, which for an answer of one token is its probability.

Where a role is no place of its own in a prompt, the fact is absent from that cell and counted as such: a subject of one token
has only a last one, one of two tokens no middle, and a prompt that ends with its subject no last token beside it. Without this, one
measurement would stand in several rows.

A sweep says where this method can write. It does not say where facts are: edits succeed at layers that tracing does not point to.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.edit import Edit, cached_moments, editor
from palimpsest.edit.artefact import versions
from palimpsest.edit.closed_form import ClosedForm
from palimpsest.edit.keys import TOKENS
from palimpsest.edit.registry import Editor
from palimpsest.errors import InputError, OutputError, PalimpsestError, SettingError, did_you_mean
from palimpsest.evaluate.counterfact import CounterFact
from palimpsest.evaluate.sweep_result import Record, Sweep
from palimpsest.facts import Fact, shipped_text
from palimpsest.model import Model
from palimpsest.runs import Plan, Progress, Run, merge

ROLES = ("subject_first", "subject_middle", "subject_last", "last")
LAYERS = 10  # of a sweep for which none are named
FACTS_AT_ONCE = 8  # searched together: a kill costs at most so many edits


@dataclass(frozen=True)
class _Item:
    """What is done at once: some facts in one cell, or on the unedited model (layer None)."""

    facts: tuple[Fact, ...]
    layer: int | None = None
    token: str = ""


def sweep(
    model: Model,
    facts: Sequence[Fact],
    *,
    method: str = "rome",
    layers: Sequence[int] | None = None,
    tokens: Sequence[str] = ROLES,
    out: str | PathLike[str] | None = None,
    shard: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Sweep:
    """Edit each of `facts` by itself at every layer and token, and measure it with the CounterFact suite.

        found = sweep(model, facts, layers=range(0, 30, 3), out="sweep/")
        found.table("rewrite"), found.best_layer()

    Args:
        model: left as it was found.
        facts: with both answers; one that fails is kept with its error and stops no other.
        method: a name from `palimpsest.edit.method_names()`. At other tokens than subject_last it must have the setting `token`.
        layers: edited one at a time; ten spread over the depth when None.
        tokens: roles, see `palimpsest.edit.keys`.
        out: a folder for plan.json, samples.jsonl and results.json; the same call resumes an interrupted sweep.
        shard: "i/n", this process's share of the work (needs `out`); once every shard is done, the same call without it merges.
        progress: called with (done, total, label).
        settings: of the method.

    Raises:
        InputError: there are no facts, or two have one id.
        SettingError: a layer, token, method or setting is wrong, or another plan is in `out`.
        OutputError: `out` cannot be written.
    """
    facts, tokens = _checked_facts(facts), _checked_tokens(tokens)
    layers = spread_layers(model.n_layers) if layers is None else [model.anatomy.check_layer(l) for l in layers]
    if not layers:
        raise SettingError("A sweep needs at least one layer, got none; leave layers out for ten over the depth.")
    if len(set(layers)) < len(layers):
        raise SettingError(f"Each layer of a sweep stands once, got {list(layers)}; drop the copies.")
    if shard is not None and out is None:
        raise SettingError("A shard needs an output folder (out=...), where the shards are merged.")
    items = _items(facts, layers, tokens)
    work = _Work(model, method, settings, progress)
    first = work.editor_at(layers[0], tokens[0])
    plan = Plan(list(items), _plan_settings(model, facts, first, layers, tokens, settings, files=out is not None))
    if isinstance(first, ClosedForm) and first.settings.covariance == "measured" and "moments" not in settings:
        text = settings.get("text") or shipped_text()
        tokens_read = first.settings.moment_tokens
        cached_moments(
            model, layers, text, tokens=tokens_read, progress=progress
        )  # all layers in one pass, then from disk

    def one(name: str | int) -> Record:
        return work.do(items[str(name)])

    def result(records: Sequence[Record]) -> Sweep:
        return Sweep(tuple(records), tuple(facts), tuple(layers), tokens, plan.settings)

    if out is None:
        return result(list(_in_memory(items, one, progress)))
    if shard is None and any(Path(out).glob("samples-*-of-*.jsonl")) and not (Path(out) / "samples.jsonl").is_file():
        merge(Path(out))
    with Run(Path(out), plan, shard) as run:
        found = result(run.map(one, progress))
        if shard is None:
            run.finish(found.to_json())
    return found


def spread_layers(depth: int, count: int = LAYERS) -> list[int]:
    """At most `count` layers of a model with `depth`, evenly from the first to the last.

    >>> spread_layers(30, 4)
    [0, 10, 19, 29]
    >>> spread_layers(3)
    [0, 1, 2]
    """
    if depth <= count:
        return list(range(depth))
    return [round(i * (depth - 1) / (count - 1)) for i in range(count)]


def absent_role(model: Model, fact: Fact, token: str) -> str:
    """Why the role is no token of its own in the prompt of `fact`; "" where it is one."""
    encoded = model.encode(fact.text)
    subject = encoded.tokens_of(*fact.subject_span)
    if token == "subject_first" and len(subject) < 2:
        return "the subject has one token, which is its last"
    if token == "subject_middle" and len(subject) < 3:
        return f"the subject has {len(subject)} tokens and none between its first and last"
    if token == "last" and subject[-1] == len(encoded) - 1:
        return "the prompt ends with its subject"
    return ""


class _Work:
    """The edits of one item. The editor of the last cell is kept, because its contexts are made once."""

    def __init__(self, model: Model, method: str, settings: Mapping[str, Any], progress: Progress | None) -> None:
        self.model, self.method, self.settings, self.progress = model, method, settings, progress
        self.suite = CounterFact()
        self._cell: tuple[int, str] | None = None
        self._editor: Editor | None = None

    def editor_at(self, layer: int, token: str) -> Editor:
        """The method at one layer and token."""
        if self._cell != (layer, token) or self._editor is None:
            # methods without the setting edit at the last subject token, so only others are asked for
            given = {} if token == "subject_last" else {"token": token}
            self._editor = editor(self.model, self.method, layers=layer, **{**self.settings, **given})
            self._cell = (layer, token)
        return self._editor

    def do(self, item: _Item) -> Record:
        """The record of one item, without its id."""
        if item.layer is None:
            return {"layer": None, "token": None, "facts": [self._unedited(fact) for fact in item.facts]}
        rows = {fact.id: absent_role(self.model, fact, item.token) for fact in item.facts}
        there = [fact for fact in item.facts if not rows[fact.id]]
        made = dict(zip([fact.id for fact in there], self._edits(there, item), strict=True))
        records = [
            {"fact": fact.id, "absent": rows[fact.id]} if rows[fact.id] else self._edited(fact, made[fact.id])
            for fact in item.facts
        ]
        return {"layer": item.layer, "token": item.token, "facts": records}

    def _edits(self, facts: list[Fact], item: _Item) -> list[Edit | PalimpsestError]:
        """An edit, or why there is none, for every fact by itself; together where the method can and all succeed."""
        if not facts:
            return []
        assert item.layer is not None
        made_by = self.editor_at(item.layer, item.token)
        together: Callable[[Sequence[Fact]], list[Edit]] | None = getattr(made_by, "edit_each", None)
        if together is not None:
            try:
                return list(together(facts))
            except (OutputError, SettingError):
                raise
            except PalimpsestError:  # one of them cannot be edited: find out which
                pass
        return [self._alone(made_by, fact) for fact in facts]

    def _alone(self, made_by: Editor, fact: Fact) -> Edit | PalimpsestError:
        try:
            return made_by.edit([fact])
        except (OutputError, SettingError):
            raise
        except PalimpsestError as error:
            return error

    def _edited(self, fact: Fact, edit: Edit | PalimpsestError) -> Record:
        if isinstance(edit, PalimpsestError):
            return {"fact": fact.id, "error": str(edit)}
        try:
            with edit.applied(self.model):
                (post,) = self.suite.measure(self.model, [fact])
        except InputError as error:
            return {"fact": fact.id, "error": str(error)}
        return {"fact": fact.id, "post": post, "norm": edit.norm}

    def _unedited(self, fact: Fact) -> Record:
        try:
            (pre,) = self.suite.measure(self.model, [fact])
        except InputError as error:
            return {"fact": fact.id, "error": str(error)}
        return {"fact": fact.id, "pre": pre}


def _items(facts: Sequence[Fact], layers: Sequence[int], tokens: Sequence[str]) -> dict[str, _Item]:
    """Every item by name. Facts are cut into the same chunks in every cell, whatever was interrupted."""
    chunks = [tuple(facts[i : i + FACTS_AT_ONCE]) for i in range(0, len(facts), FACTS_AT_ONCE)]
    items = {f"unedited/{i}": _Item(chunk) for i, chunk in enumerate(chunks)}
    for layer in layers:
        for token in tokens:
            items |= {f"layer {layer}/{token}/{i}": _Item(chunk, layer, token) for i, chunk in enumerate(chunks)}
    return items


def _in_memory(
    items: Mapping[str, _Item], one: Callable[[str | int], Record], progress: Progress | None
) -> Iterator[Record]:
    for i, name in enumerate(items):
        try:
            yield {"id": name, **one(name)}
        except (OutputError, SettingError):
            raise
        except PalimpsestError as error:
            yield {"id": name, "error": str(error)}
        if progress:
            progress(i + 1, len(items), name)


def _plan_settings(
    model: Model,
    facts: Sequence[Fact],
    made_by: Editor,
    layers: Sequence[int],
    tokens: Sequence[str],
    settings: Mapping[str, Any],
    *,
    files: bool,
) -> dict[str, Any]:
    """Everything the numbers depend on. The card is that of the first cell; layer, token and moments differ in others."""
    content = json.dumps([fact.to_json() for fact in facts], sort_keys=True)
    plan: dict[str, Any] = {
        "model": model.name,
        "suite": CounterFact.name,
        "method": made_by.name,
        "layers": list(layers),
        "tokens": list(tokens),
        "facts": f"sha256:{hashlib.sha256(content.encode()).hexdigest()}",
        "method_settings": json.loads(json.dumps(dict(made_by.card))),
        "facts_at_once": FACTS_AT_ONCE if hasattr(made_by, "edit_each") else 1,
        "versions": versions(),
    }
    if files:
        plan["weights"] = model.fingerprint()
    return plan


def _checked_facts(facts: Sequence[Fact]) -> list[Fact]:
    facts = list(facts)
    if not facts:
        raise InputError("There are no facts to sweep over; the file may be empty or every record bad.")
    twice = [fact.id for i, fact in enumerate(facts) if any(fact.id == other.id for other in facts[:i])]
    if twice:
        raise InputError(f"Two facts have the id {twice[0]!r}; ids must differ, so give each its own.")
    return facts


def _checked_tokens(tokens: Sequence[str]) -> tuple[str, ...]:
    for token in tokens:
        if token not in TOKENS:
            raise SettingError(f"There is no token role {token!r}.{did_you_mean(token, TOKENS)}")
    if not tokens or len(set(tokens)) < len(tokens):
        raise SettingError(f"A sweep needs token roles, each once, got {list(tokens)}; choose of {', '.join(TOKENS)}.")
    return tuple(tokens)
