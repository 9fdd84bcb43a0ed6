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
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from palimpsest.edit import Edit, cached_moments, editor
from palimpsest.edit.artefact import versions
from palimpsest.edit.closed_form import ClosedForm
from palimpsest.edit.keys import TOKENS
from palimpsest.edit.registry import Editor
from palimpsest.errors import InputError, OutputError, PalimpsestError, SettingError, did_you_mean
from palimpsest.evaluate.suites.counterfact import CounterFact, counterfact_scores
from palimpsest.evaluate.sweep_result import Record, Sweep
from palimpsest.facts import Fact, shipped_text
from palimpsest.model import Model
from palimpsest.runs import Plan, Progress, Run, merge

Result = TypeVar("Result")
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
    tokens: Sequence[str] | None = None,
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
        method: a name from `palimpsest.edit.method_names()`, with a setting `layers`.
        layers: edited one at a time; ten spread over the depth when None.
        tokens: roles, see `palimpsest.edit.keys`. When None all of `ROLES`, and subject_last alone for a method that has no
            setting `token`, which cannot be edited elsewhere.
        out: a folder for plan.json, samples.jsonl and results.json; the same call resumes an interrupted sweep.
        shard: "i/n", this process's share of the work (needs `out`); once every shard is done, the same call without it merges.
        progress: called with (done, total, label).
        settings: of the method.

    Raises:
        InputError: there are no facts, or two have one id.
        SettingError: a layer, token, method or setting is wrong, or another plan is in `out`.
        OutputError: `out` cannot be written.
    """
    facts = _checked_facts(facts)
    if "token" in settings:
        raise SettingError(f"A sweep goes over tokens, got token={settings['token']!r}; name them as tokens=(...,).")
    layers = spread_layers(model.n_layers) if layers is None else [model.anatomy.check_layer(l) for l in layers]
    if not layers:
        raise SettingError("A sweep needs at least one layer, got none; leave layers out for ten over the depth.")
    if len(set(layers)) < len(layers):
        raise SettingError(f"Each layer of a sweep stands once, got {list(layers)}; drop the copies.")
    if shard is not None and out is None:
        raise SettingError("A shard needs an output folder (out=...), where the shards are merged.")
    work = _Work(model, method, settings, progress)
    tokens = work.checked_tokens(tokens, layers[0])
    items = _items(facts, layers, tokens)
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
        self._has_token = False
        self._cell: tuple[int, str] | None = None
        self._editor: Editor | None = None

    def checked_tokens(self, tokens: Sequence[str] | None, layer: int) -> tuple[str, ...]:
        """The roles to sweep; `SettingError` where one does not exist, or the method has no choice of token."""
        asked = None if tokens is None else _checked_tokens(tokens)
        self._has_token = _names_token(editor(self.model, self.method, layers=layer, **self.settings).card)
        if not self._has_token and set(asked or ()) - {"subject_last"}:
            raise SettingError(
                f"The method {self.method} has no setting 'token' and is swept over layers alone, got tokens {list(asked or ())}; "
                f"leave tokens out."
            )
        return asked or (ROLES if self._has_token else ("subject_last",))

    def editor_at(self, layer: int, token: str) -> Editor:
        """The method at one layer and token."""
        if self._cell != (layer, token) or self._editor is None:
            chosen = {**self.settings, "token": token} if self._has_token else self.settings
            self._editor = editor(self.model, self.method, layers=layer, **chosen)
            self._cell = (layer, token)
        return self._editor

    def do(self, item: _Item) -> Record:
        """The record of one item, without its id. What fails is a row of it, whatever failed."""
        if item.layer is None:
            rows = [_row(fact, partial(self._unedited, fact)) for fact in item.facts]
            return {"layer": None, "token": None, "facts": rows}
        absent = {fact.id: _row(fact, partial(self._absent, fact, item.token)) for fact in item.facts}
        there = [fact for fact in item.facts if absent[fact.id].keys() == {"fact"}]
        made = dict(zip([fact.id for fact in there], self._edits(there, item), strict=True))
        rows = [
            _row(fact, partial(self._edited, fact, made[fact.id])) if fact.id in made else absent[fact.id]
            for fact in item.facts
        ]
        return {"layer": item.layer, "token": item.token, "facts": rows}

    def _edits(self, facts: list[Fact], item: _Item) -> list[Edit | PalimpsestError]:
        """An edit, or why there is none, for every fact by itself; together where the method can and all succeed."""
        if not facts:
            return []
        assert item.layer is not None
        made_by = _tried(partial(self.editor_at, item.layer, item.token))
        if isinstance(made_by, PalimpsestError):  # such as a singular second moment of this layer
            return [made_by] * len(facts)
        together: Callable[[Sequence[Fact]], list[Edit]] | None = getattr(made_by, "edit_each", None)
        if together is not None:
            found = _tried(partial(together, facts))
            if not isinstance(found, PalimpsestError):
                return list(found)
        # one of them cannot be edited: find out which
        return [_tried(partial(made_by.edit, [fact])) for fact in facts]

    def _absent(self, fact: Fact, token: str) -> Record:
        reason = absent_role(self.model, fact, token)
        return {"absent": reason} if reason else {}

    def _edited(self, fact: Fact, edit: Edit | PalimpsestError) -> Record:
        if isinstance(edit, PalimpsestError):
            return {"error": str(edit)}
        with edit.applied(self.model):
            (post,) = counterfact_scores(self.model, [fact])
        return {"post": post, "norm": edit.norm}

    def _unedited(self, fact: Fact) -> Record:
        (pre,) = counterfact_scores(self.model, [fact])
        return {"pre": pre}


def _tried(work: Callable[[], Result]) -> Result | PalimpsestError:
    """What `work` gives, or what it found wrong with a fact or a layer; a wrong setting or a full disk ends the sweep."""
    try:
        return work()
    except (OutputError, SettingError):
        raise
    except PalimpsestError as error:
        return error


def _row(fact: Fact, work: Callable[[], Record]) -> Record:
    """The row of one fact."""
    found = _tried(work)
    return {"fact": fact.id} | ({"error": str(found)} if isinstance(found, PalimpsestError) else found)


def _names_token(card: Mapping[str, Any]) -> bool:
    """Whether a method says, by itself or for the method it is like, which token it edits at."""
    return "token" in card or "token" in card.get("like", {})


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
        yield {"id": name, **one(name)}
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
