"""Maps of many facts: resumable, in shared batches, with nothing dropped.

    found = trace_facts(model, facts, kinds=("state", "mlp", "attn"), out="traces/")
    found.average("mlp").plot()
    found.unknown, found.failed

Facts are worked off in chunks that depend on the facts alone, so that an interrupted run gives the same bytes.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from palimpsest.errors import InputError, PalimpsestError, SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.locate.tracing.lesion import Lesioner
from palimpsest.locate.tracing.maps import EffectMap
from palimpsest.locate.tracing.roles import RoleProfile, average
from palimpsest.locate.tracing.trace import Tracer
from palimpsest.model import Model
from palimpsest.runs import Plan, Progress, Run

FACTS_AT_ONCE = 4
STATE_BYTES = 2**29  # about, of the recorded states of one chunk of facts; a single fact may exceed it


@runtime_checkable
class Mapper(Protocol):
    """What makes maps of several facts at once: a `Tracer` or a `Lesioner`."""

    @property
    def card(self) -> dict[str, object]:
        """Its settings as plain data."""
        ...

    def each(
        self, model: Model, facts: Sequence[Fact], *, progress: Progress | None = None
    ) -> Sequence[EffectMap | PalimpsestError]:
        """A map, or why there is none, of every fact."""
        ...


@dataclass(frozen=True)
class Survey:
    """Maps of many facts, as plain data.

    Attributes:
        records: by label (a kind, or a kind and a corruption), the records in the order of the facts; one that failed has
            "error".
    """

    records: dict[str, list[dict[str, Any]]]

    def maps(self, label: str) -> list[dict[str, Any]]:
        """The maps of one label, without those that failed."""
        if label not in self.records:
            raise SettingError(f"There are no maps called {label!r}.{did_you_mean(label, self.records)}")
        return [record for record in self.records[label] if "error" not in record]

    @property
    def failed(self) -> dict[str, str]:
        """Item to the sentence that says why it has no map."""
        return {r["id"]: r["error"] for records in self.records.values() for r in records if "error" in r}

    @property
    def unknown(self) -> list[str]:
        """Ids of the facts that were mapped though the model does not know them; averages leave them out."""
        found = (record for label in self.records for record in self.maps(label) if not record["known"])
        return list(dict.fromkeys(record["fact"]["id"] for record in found))

    @property
    def withheld(self) -> dict[str, str]:
        """Item to the reason why its effects are not divided by its total effect."""
        found = (record for label in self.records for record in self.maps(label) if record["withheld"])
        return {record["id"]: record["withheld"] for record in found}

    def average(self, label: str, **settings: Any) -> RoleProfile:
        """The average by role of one label: see `palimpsest.locate.tracing.roles.average`."""
        return average(self.maps(label), label=label, **settings)

    def summary(self) -> dict[str, Any]:
        """As plain data: the averages there are, and who is not in them."""
        averages: dict[str, Any] = {}
        for label in self.records:
            try:
                averages[label] = self.average(label).to_json()
            except InputError as error:
                averages[label] = {"withheld": str(error)}
        return {
            "averages": averages,
            "unknown": self.unknown,
            "failed": self.failed,
            "ratios_withheld": self.withheld,
        }


def trace_facts(
    model: Model,
    facts: Sequence[Fact],
    *,
    kinds: Sequence[str] = ("state",),
    out: str | Path | None = None,
    spread_of: Sequence[Fact] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Survey:
    """Trace many facts; the same call with the same `out` takes an interrupted run up again.

    Args:
        model: read, never changed.
        facts: whose prompts are traced; ids must differ.
        kinds: of maps, each under its name.
        out: folder for samples.jsonl and results.json; nothing is written when None.
        spread_of: facts whose subjects set the noise level and are swapped in; `facts` themselves when None, or the shipped
            ones for a single fact.
        progress: called with (done, total, label).
        settings: of `palimpsest.trace`.

    Raises:
        SettingError: a setting is wrong, or `out` holds another run.
        InputError: there are no facts, or two have one id.
        OutputError: `out` cannot be written.
    """
    pool = spread_of if spread_of is not None else (facts if len(facts) > 1 else None)
    mappers = {kind: Tracer.of(model, pool, kind=kind, **settings) for kind in kinds}
    return survey(model, facts, mappers, out=out, progress=progress)


def lesion_facts(
    model: Model,
    facts: Sequence[Fact],
    *,
    kinds: Sequence[str] = ("state",),
    out: str | Path | None = None,
    spread_of: Sequence[Fact] | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Survey:
    """Lesion many facts: as `trace_facts`, with the settings of `palimpsest.lesion`."""
    pool = spread_of if spread_of is not None else (facts if len(facts) > 1 else None)
    mappers = {kind: Lesioner.of(model, pool, kind=kind, **settings) for kind in kinds}
    return survey(model, facts, mappers, out=out, progress=progress)


def survey(
    model: Model,
    facts: Sequence[Fact],
    mappers: Mapping[str, Mapper],
    *,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Survey:
    """Maps of every fact by every mapper, under the mappers' labels.

    Raises:
        InputError: there are no facts, or two have one id.
        SettingError: `out` holds another run.
        OutputError: `out` cannot be written.
    """
    if not facts:
        raise InputError("There are no facts to map; the file may be empty or every record bad.")
    for label in mappers:
        if "/" in label:
            raise SettingError(f"A label has no slash, because it comes before one in the item's name, got {label!r}.")
    by_id = {fact.id: fact for fact in facts}
    if len(by_id) < len(facts):
        double = next(fact.id for i, fact in enumerate(facts) if fact.id in [other.id for other in facts[:i]])
        raise InputError(f"Two facts have the id {double!r}; ids must differ, so give each its own.")
    if out is None:
        records: dict[str, list[dict[str, Any]]] = {label: [] for label in mappers}
        done, total = 0, len(mappers) * len(facts)
        for label, names in _chunks(model, mappers, by_id):
            for name, found in _mapped(model, mappers[label], [by_id[name] for name in names], progress, total == 1):
                result = {"error": str(found)} if isinstance(found, PalimpsestError) else found.to_json()
                records[label].append({"id": f"{label}/{name}", **result})
                done += 1
            if progress:
                progress(done, total, label)
        return Survey(records)
    content = json.dumps([fact.to_json() for fact in facts], sort_keys=True)
    plan = Plan(
        [f"{label}/{name}" for label in mappers for name in by_id],
        {
            "model": model.name,
            "weights": model.fingerprint(),
            "facts": hashlib.sha256(content.encode()).hexdigest(),
            "maps": {label: json.loads(json.dumps(mapper.card)) for label, mapper in mappers.items()},
        },
    )
    with Run(Path(out), plan) as run:
        for label, names in _chunks(model, mappers, by_id):
            left = set(run.remaining)
            if not any(f"{label}/{name}" in left for name in names):
                continue
            # the whole chunk again, also what was finished of it: another batch would round otherwise
            for name, found in _mapped(
                model, mappers[label], [by_id[name] for name in names], progress, run.total == 1
            ):
                item = f"{label}/{name}"
                if item not in left:
                    continue
                if isinstance(found, PalimpsestError):
                    run.fail(item, found)
                else:
                    run.record(item, found.to_json())
            if progress:
                progress(run.done, run.total, label)
        by_label: dict[str, list[dict[str, Any]]] = {label: [] for label in mappers}
        for record in run.records:
            by_label[record["id"].split("/", 1)[0]].append(record)
        result_of_all = Survey(by_label)
        run.finish(result_of_all.summary())
    return result_of_all


def _chunks(model: Model, mappers: Mapping[str, Mapper], by_id: Mapping[str, Fact]) -> Iterator[tuple[str, list[str]]]:
    """Facts that are mapped together: at most `FACTS_AT_ONCE`, and no more states than fit in `STATE_BYTES`."""
    for label, mapper in mappers.items():
        a_token = 3 * (model.n_layers + 1) * model.anatomy.width * model.net.dtype.itemsize  # base, held and donor
        chunk: list[str] = []
        held = 0
        for name, fact in by_id.items():
            tokens = 1 + len(fact.text) // 3  # about: a count by the tokenizer could fail, and the bound is a soft one
            size = tokens * int(str(mapper.card["samples"])) * a_token
            if chunk and (len(chunk) == FACTS_AT_ONCE or held + size > STATE_BYTES):
                yield label, chunk
                chunk, held = [], 0
            chunk.append(name)
            held += size
        if chunk:
            yield label, chunk


def _mapped(
    model: Model, mapper: Mapper, facts: Sequence[Fact], progress: Progress | None, alone: bool
) -> Iterator[tuple[str, EffectMap | PalimpsestError]]:
    found = mapper.each(model, facts, progress=progress if alone else None)
    yield from zip([fact.id for fact in facts], found, strict=True)
