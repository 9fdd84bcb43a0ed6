"""Does the old fact still show? Residue of each method on 200 known facts of `world` and 100 of `smollm2`, at batch sizes 1, 10 and 100.

    python experiments/residue.py run [world|smollm2] [METHOD-SIZE ...]    # resumable: a finished job is not run again; results/residue/
    python experiments/residue.py again world smollm2                      # statistics made anew from the raw scores in run/residue/
    python experiments/residue.py page                                     # docs/residue-measured.md
    python experiments/residue.py trial [MODEL]                            # 6 facts, 3 methods, into run/residue-trial/

A job is a model, a method and how many facts each edit writes. The facts are the same in all jobs of a model, drawn relation by
relation; never-known facts (persons no model of the world has read; shipped facts that smollm2 does not know) are edited in the
same way, in edits of their own. Controls are subjects of the relation that no edit writes. What was read of the unedited model and
the values that a search found are kept in run/residue/kept/, from where other jobs take them.

Readouts are of two kinds: lenses, heads, first wordings and sampling (candidates after the prompt and in its lens; no texts are drawn)
may have been optimised against, for `overwrite` minimises its own residue map; judges (unseen wordings, probes, attacks, relearning) were
seen by no editor. Beside the residue stand ES, PS and NS of the same edits. Raw scores are left in run/residue/.
"""

import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

import palimpsest as pal
from palimpsest.edit import Edit, editor, method_names
from palimpsest.erase.residue import Column, Heads, LogitLens, Residue, TrainedLens, Wordings, pairs_of, residue
from palimpsest.errors import PalimpsestError
from palimpsest.evaluate import counterfact_scores
from palimpsest.facts import Fact
from palimpsest.locate import knowledge
from palimpsest.runs import atomic_write
from palimpsest.runs.json_text import plain
from palimpsest.statistics import cluster_bootstrap
from palimpsest.world import Corpus, made_world, newcomers
from residue_choose import CHOSEN, chosen  # beside this file

ROOT = Path(__file__).parents[1]
RESULTS, TRIAL, RAW = ROOT / "results" / "residue", ROOT / "run" / "residue-trial", ROOT / "run" / "residue"
METHODS: dict[str, dict[str, Any]] = {
    "rome": {"method": "rome"},
    "memit": {"method": "memit"},
    "alphaedit": {"method": "alphaedit"},
    "ft-l": {"method": "ft", "preset": "ft-l"},
    "overwrite": {"method": "overwrite"},
}
SIZES = (1, 10, 100)
SEED = 11
STATISTICS = 2  # how scores are compared (docs/decisions/0011); records without it were made before
WORLD_WORDS, PERSONS = 40_000, 40
METRICS = ("es", "ps", "ns")


def show(done: int, total: int, label: str) -> None:
    if done == total or done % 10 == 0:
        print(f"  {done}/{total} {label}", flush=True)


def spread(facts: Sequence[Fact], count: int, share: float = 1.0) -> list[Fact]:
    """So many facts, relation after relation in a drawn order; of no relation more than a share, so that subjects are left as controls."""
    by_relation: dict[str, list[Fact]] = {}
    for fact in random.Random(SEED).sample(list(facts), len(facts)):
        by_relation.setdefault(fact.relation, []).append(fact)
    queues = [own[: max(1, int(share * len(own)))] for own in by_relation.values()]
    chosen: list[Fact] = []
    while len(chosen) < count and any(queues):
        chosen += [own.pop(0) for own in queues if own]
    return chosen[:count]


class World:
    """The made world: every fact known, newcomers never."""

    name = "world"
    known, never, controls = 200, 60, 2  # facts, facts never known, other subjects a fact

    @cached_property
    def facts(self) -> list[Fact]:
        return spread(self.pool, self.known)

    @cached_property
    def pool(self) -> list[Fact]:
        return made_world().records()

    @cached_property
    def editable(self) -> list[Fact]:
        """Known facts that have a new answer."""
        return [fact for fact in self.pool if fact.target_new is not None]

    @cached_property
    def unknown(self) -> list[Fact]:
        """Newcomers, each with a new answer drawn from the relation's."""
        world = made_world()
        some = newcomers(world, PERSONS, seed=SEED)
        larger = world.with_newcomers(some)
        answers = {
            triple.relation: sorted({t.object for t in some.facts if t.relation == triple.relation})
            for triple in some.facts
        }
        made = []
        for triple in some.facts:
            choice = [answer for answer in answers[triple.relation] if answer != triple.object]
            made.append(larger.record(triple, random.Random(f"{SEED}/{triple}").choice(choice)))
        return spread(made, self.never)

    @cached_property
    def text(self) -> str:
        return Corpus(made_world(), seed=SEED).text(WORLD_WORDS).replace("\n", "\n\n")  # a document a paragraph

    def readouts(self) -> list[Any]:
        lenses = [LogitLens(), TrainedLens(self.text, progress=show), Heads()]
        return [*lenses, *wordings(self.text, 3, 8), *judges(self.pool)]


class SmolLM2:
    """Shipped facts: some the model knows, and some it does not; half as many as on `world`, for each costs seventy times as much."""

    name = "smollm2"
    known, never, controls = 100, 30, 1

    def __init__(self, model: pal.Model) -> None:
        self.pool = list(pal.read_facts("shipped").facts)
        known = {found.fact for found in knowledge(model, self.pool) if found.known}
        able = [fact for fact in self.pool if fact.target_new is not None]
        self.editable = [fact for fact in able if fact.id in known]
        self.facts = spread(self.editable, self.known, share=0.8)
        self.unknown = spread([fact for fact in able if fact.id not in known], self.never, share=0.8)
        self.text: str | None = None  # the shipped English

    def readouts(self) -> list[Any]:
        """Fewer wordings than on `world`, and no control task of the probes, for a text costs seventy times as much."""
        lenses = [LogitLens(paraphrases=1), TrainedLens(paraphrases=1, progress=show), Heads()]
        return [*lenses, *wordings(None, 1, 2), *judges(self.pool, control=False)]


def wordings(text: str | None, seen: int, skip: int) -> list[Any]:
    """The prompt and the first paraphrases, which an editor may be given; and as many of those after `skip`, with one prefix."""
    shared: dict[str, Any] = {"text": text, "seed": SEED, "paraphrases": seen}
    return [Wordings(prefixes=0, **shared), Wordings(prefixes=1, skip=skip, name="unseen wording", **shared)]


def judges(pool: Sequence[Fact], *, control: bool = True) -> list[Any]:
    """Readouts that no editor optimises; of probes, the control task too where wanted."""
    wanted: list[tuple[str, str, dict[str, Any]]] = [
        ("probes", "Probes", {"pool": tuple(pool), "few": "leave"}),
        ("probes", "Probes", {"pool": tuple(pool), "few": "leave", "shuffled": True}),
        ("attacks", "Attacks", {"pool": tuple(pool)}),
        ("sampling", "Sampling", {"draws": False}),
        ("relearning", "Relearning", {}),
    ]
    return [
        getattr(import_module(f"palimpsest.erase.residue.{module}"), name)(**given)
        for module, name, given in wanted
        if control or "shuffled" not in given
    ]


class Experiment:
    """The jobs of one model."""

    def __init__(self, name: str, *, trial: bool = False) -> None:
        self.model = pal.load(name)
        self.data: World | SmolLM2 = World() if name == "world" else SmolLM2(self.model)
        self.facts = self.data.facts[:6] if trial else self.data.facts
        self.unknown = self.data.unknown[:6] if trial else self.data.unknown
        self.results = TRIAL if trial else RESULTS
        self.kept = (TRIAL if trial else RAW) / "kept" / f"{name}-unedited.npz"

    def unedited(self) -> Residue:
        """What is read of the model itself: once, and kept with the results."""
        found = self._again() if self.kept.is_file() else self._first()
        if not self._path("none").is_file():
            self._store("none", found, counterfact_scores(self.model, list(found.facts)), 0.0, {})
        return found

    def _first(self) -> Residue:
        """Read, and kept in a file."""
        found = self._read(None, None, None)
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        columns = json.dumps([[c.readout, c.path, c.layer, c.head] for c in found.columns])
        scratch = self.kept.with_name(f"partial-{self.kept.name}")
        np.savez_compressed(scratch, columns=np.array(columns), before=found.before, **found.standing)
        scratch.rename(self.kept)
        return found

    def _again(self) -> Residue:
        """The unedited reading from its file, for the pairs it was made of."""
        asked = pairs_of(self.facts, self.unknown, self.data.pool, controls=self.data.controls, seed=SEED)  # as before
        with np.load(self.kept, allow_pickle=False) as file:
            columns = tuple(Column(*place) for place in json.loads(str(file["columns"])))
            standing = {name: file[name] for name in file.files if name not in ("columns", "before")}
            same = {
                "model": self.data.name,
                "method": "none",
                "edits": "none",
                "unknown_edited": False,
                "readouts": list(dict.fromkeys(column.readout for column in columns)),
                "gate": "all",
                "not_known": 0,
                "seed": SEED,
            }
            return Residue(asked.pairs, columns, file["before"], file["before"], standing, asked.left_out, {}, same)

    def run(self, method: str, size: int) -> None:
        """One job."""
        if self._path(f"{method}-{size}").is_file():
            return
        before, began = self.unedited(), time.monotonic()
        settings = {"method": "overwrite", **chosen(self.data.name)} if method == CHOSEN else dict(METHODS[method])
        prepared = editor(
            self.model, settings.pop("method"), resume=self.kept.with_name(f"{self.data.name}-values"), **settings
        )
        edits, unknown = self._edits(prepared, self.facts, size), self._edits(prepared, self.unknown, size)
        written = time.monotonic() - began
        print(f"  {len(self.facts) + len(self.unknown)} facts written in {written:.0f} s", flush=True)
        found = self._read(edits, unknown, before)
        scores = []
        for i, fact in enumerate(self.facts):
            with edits[i].applied(self.model):
                scores += counterfact_scores(self.model, [fact])
        self._store(f"{method}-{size}", found, scores, written, dict(prepared.card))

    def again(self) -> None:
        """Statistics of every job whose raw scores are there, made anew."""
        unedited = self._again()
        for path in sorted(RAW.glob(f"{self.data.name}-*.npz")):
            kept = self.results / f"{path.stem}.json"
            if kept.is_file():
                with np.load(path, allow_pickle=False) as file:
                    found = replace(unedited, before=file["before"], after=file["after"], standing={})
                told = found.to_json()
                record = json.loads(kept.read_text())
                if path.stem.endswith("-none"):
                    record["settings"] = told["settings"]
                record |= {name: told[name] for name in ("auc", "column_auc", "certificates", "shares")}
                atomic_write(kept, json.dumps(_rounded(record | {"statistics": STATISTICS}), ensure_ascii=False) + "\n")
                print(f"{path.stem}: residue AUC {found.auc()}", flush=True)

    def _edits(self, prepared: Any, facts: Sequence[Fact], size: int) -> list[Edit]:
        """The edit each fact is written by, `size` facts together."""
        if size == 1 and hasattr(prepared, "edit_each"):
            return prepared.edit_each(facts)
        edits: list[Edit] = []
        for begin in range(0, len(facts), size):
            chunk = list(facts[begin : begin + size])
            edits += [prepared.edit(chunk)] * len(chunk)
        return edits

    def _read(self, edits: Any, unknown: Any, before: Residue | None) -> Residue:
        return residue(
            self.model,
            self.facts,
            edits,
            unknown=self.unknown,
            unknown_edits=unknown,
            pool=self.data.pool,
            readouts=self.data.readouts(),
            gate="all",  # gated when they were chosen
            controls=self.data.controls,
            seed=SEED,
            unedited=before,
            progress=show,
        )

    def _store(
        self, job: str, found: Residue, scores: Sequence[dict[str, Any]], written: float, card: dict[str, Any]
    ) -> None:
        clusters = [(fact.relation, fact.subject) for fact in self.facts]
        values = {name: np.array([row[name] for row in scores], dtype=float) for name in METRICS}
        record = found.to_json() | {
            "job": job,
            "scores": {
                name: cluster_bootstrap(own, clusters) for name, own in values.items() if not np.isnan(own).any()
            },
            "by_fact": {name: own.tolist() for name, own in values.items()},
            "clusters": clusters,
            "statistics": STATISTICS,
            "seconds_writing": round(written, 1),
            "card": {
                name: value for name, value in card.items() if isinstance(value, str | int | float | list | tuple)
            },
        }
        path = self._path(job)
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(_rounded(plain(record)), ensure_ascii=False) + "\n")
        RAW.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(RAW / f"{path.stem}.npz", before=found.before, after=found.after)
        print(f"{self.data.name} {job}: residue AUC {found.auc()}", flush=True)

    def _path(self, job: str) -> Path:
        return self.results / f"{self.data.name}-{job}.json"


def _rounded(value: Any) -> Any:
    """Numbers to five digits after the point: the files are kept."""
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return {name: _rounded(part) for name, part in value.items()} if isinstance(value, dict) else value


def run(name: str, jobs: Sequence[str], *, trial: bool = False) -> None:
    """All jobs, or those named; a method that is not there is passed over, and one that fails stops no other."""
    experiment = Experiment(name, trial=trial)
    experiment.unedited()
    wanted = [(method, size) for size in SIZES for method in METHODS if METHODS[method]["method"] in method_names()]
    wanted += [(CHOSEN, SIZES[-1])] if chosen(name) else []
    if trial:
        wanted = [("rome", 1), ("memit", 10), ("ft-l", 10)]
    for i, (method, size) in enumerate(wanted):
        if jobs and f"{method}-{size}" not in jobs:
            continue
        print(f"[{i + 1}/{len(wanted)}] {name} {method}-{size}", flush=True)
        try:
            experiment.run(method, size)
        except (PalimpsestError, ModuleNotFoundError) as error:
            print(f"  failed: {error}", flush=True)


def main() -> None:
    """`run [MODEL] [JOB ...]`, `again MODEL ...`, `trial [MODEL]` or `page`."""
    verb, rest = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if verb == "page":
        from residue_page import write  # beside this file

        return write()
    if verb == "again":
        for name in rest:
            Experiment(name).again()
        return None
    if verb not in ("run", "trial"):
        return print(__doc__)
    models = [name for name in rest if name in ("world", "smollm2")] or ["world"]
    for name in models:
        run(name, [job for job in rest if job not in models], trial=verb == "trial")
    return None


if __name__ == "__main__":
    main()
