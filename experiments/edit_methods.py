"""Every editing method on smollm2 with CounterFact records: 1, 10, 100 and 1,000 facts, and sequences.

    PALIMPSEST_RECORDS=... python experiments/edit_methods.py tune            # MEMIT: layers, learning rate, lambda, on records 3000-3099
    PALIMPSEST_RECORDS=... python experiments/edit_methods.py values [i/n]    # values of 1,000 records from 4000 on
    PALIMPSEST_RECORDS=... python experiments/edit_methods.py run [part ...]  # resumable; results/edit-methods/
    python experiments/edit_methods.py page                                  # docs/edit-methods-on-smollm2.md

Records are taken in the order of counterfact_flat.json, all of them: nothing is filtered by what the model knows. Settings are
chosen on records that are not reported on.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from palimpsest.edit import Edit, editor
from palimpsest.edit.artefact import versions
from palimpsest.edit.requests import same_keys
from palimpsest.edit.sequence import EditSequence
from palimpsest.edit.values import Kept
from palimpsest.edit.walk import Walk
from palimpsest.errors import EditError
from palimpsest.evaluate import Scores, counterfact_scores
from palimpsest.facts import Fact, read_facts
from palimpsest.model import Model, load, pad
from palimpsest.runs import atomic_write

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "edit-methods"
WORK = ROOT / "run" / "edit-methods"
TUNE, REPORT, MOST = 3000, 4000, 1000
CONTEXTS = ((10, 2),)
TUNED_ON = 100
SEARCHES: dict[str, dict[str, Any]] = {
    "layer 7": {"layers": (3, 4, 5, 6, 7)},
    "layer 9": {"layers": (5, 6, 7, 8, 9)},
    "layer 9, learning rate 1": {"layers": (5, 6, 7, 8, 9), "learning_rate": 1.0, "clamp": 1.0},
}
CHOSEN: dict[str, Any] = {"contexts": CONTEXTS, **SEARCHES["layer 9, learning rate 1"]}  # the best S of the tuning
WEIGHT = 2500.0  # and lambda
COLLAPSED = 2.0  # nats a token of held-out text above the unedited model: a sequence is stopped there
LAMBDAS = (100.0, 500.0, 2500.0, 15_000.0)


def records(first: int, count: int) -> list[Fact]:
    """Records of counterfact_flat.json in file order; of those that ask one prompt for different answers, the first."""
    path = Path(os.environ["PALIMPSEST_RECORDS"]) / "counterfact" / "counterfact_flat.json"
    by_text: dict[str, Fact] = {}
    for fact in read_facts(path).facts[first:]:
        by_text.setdefault(fact.text, fact)
    return list(by_text.values())[:count]


@cache
def held_out_text() -> str:
    """Plain text on which the edited model's likelihood is read: not what the moments are measured on."""
    path = Path(os.environ["PALIMPSEST_RECORDS"]) / "text" / "wikitext-2.valid.raw.txt"
    return path.read_text("utf-8").replace(" \n \n", "\n\n")


@torch.no_grad()
def text_nll(model: Model, tokens: int = 2000) -> float:
    """Mean nll of a token of held-out text, in nats: what an edit does to everything else."""
    ids = model.tokenizer(held_out_text()[: 8 * tokens]).input_ids[:tokens]
    total = 0.0
    for at in range(0, len(ids), 250):
        piece = torch.tensor(ids[at : at + 250])
        log_p = model.run(pad([piece.tolist()])).float().log_softmax(-1)[0, :-1]
        total -= float(log_p.gather(1, piece[1:, None]).sum())
    return total / (len(ids) - len(ids) / 250)


def store(name: str, summary: dict[str, Any]) -> None:
    """One result file."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(summary, indent=1) + "\n")


def done(name: str) -> bool:
    """Whether that result is there."""
    return (RESULTS / f"{name}.json").is_file()


def scored(facts: Sequence[Fact], pre: list[dict[str, Any]], post: list[dict[str, Any]]) -> dict[str, Any]:
    """Estimates with intervals, before and after."""
    lines = [
        {
            "id": fact.id,
            "relation": fact.relation,
            "subject": fact.subject,
            "eligible": before["nll_true"] < before["nll_new"],
            "pre": before,
            "post": after,
        }
        for fact, before, after in zip(facts, pre, post, strict=True)
    ]
    summary = Scores(tuple(lines), {}).summary()
    summary.pop("settings")
    return summary


def unedited(model: Model, name: str, facts: Sequence[Fact]) -> list[dict[str, Any]]:
    """Metrics of the unedited model on `facts`, measured once."""
    path = WORK / "unedited" / f"{name}.json"
    if path.is_file():
        return json.loads(path.read_text())
    found = counterfact_scores(model, facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(found))
    return found


def measured(model: Model, facts: Sequence[Fact], pre: list[dict[str, Any]], edit: Edit) -> dict[str, Any]:
    """The suite and the held-out text with `edit` applied."""
    with edit.applied(model):
        post, nll = counterfact_scores(model, facts), text_nll(model)
    return {**scored(facts, pre, post), "text_nll": nll, "edit_norm": edit.norm}


def tune() -> None:
    """MEMIT at n = 100 on the tuning records: three searches, four lambdas each."""
    model, facts = load("smollm2"), records(TUNE, TUNED_ON)
    pre = unedited(model, "tune", facts)
    for label, search in SEARCHES.items():
        for moment_weight in LAMBDAS:
            name = f"tune/{label.replace(' ', '-').replace(',', '')}-lambda-{moment_weight:g}"
            if done(name):
                continue
            made = editor(
                model, "memit", contexts=CONTEXTS, moment_weight=moment_weight, resume=WORK / "values", **search
            )
            start = time.perf_counter()
            edit = made.edit(facts)
            seconds = time.perf_counter() - start
            result = measured(model, facts, pre, edit)
            store(
                name,
                {
                    "search": label,
                    "lambda": moment_weight,
                    "seconds": seconds,
                    "settings": dict(edit.settings),
                    **result,
                },
            )
            says = {k: round(result["post"][k]["value"], 3) for k in ("es", "ps", "ns", "s")}
            print(name, says, round(result["text_nll"], 3), round(seconds, 1), flush=True)


def values(share: str = "1/1") -> None:
    """Values of all 1,000 report facts on the unedited model, once for MEMIT, EMMET, AlphaEdit and the random edit."""
    first, parts = (int(part) for part in share.split("/"))
    model, facts = load("smollm2"), records(REPORT, MOST)
    made = editor(model, "memit", resume=WORK / "values", **CHOSEN)
    groups = same_keys(model, facts)
    for at in range(64 * (first - 1), len(groups), 64 * parts):
        start = time.perf_counter()
        some = groups[at : at + 64]
        members = [fact for group in some for fact in (facts[i] for i in group)]
        count, within = 0, []
        for group in some:
            within.append(list(range(count, count + len(group))))
            count += len(group)
        walk = Walk(model, [facts[group[0]] for group in some], made.contexts)
        made._find(members, within, made._states(walk, len(some)), Kept(WORK / "values", model.fingerprint()))
        seconds = time.perf_counter() - start
        atomic_write(WORK / "values" / f"seconds-{at}.json", json.dumps({"facts": count, "seconds": seconds}))
        print(at, count, round(seconds / count, 2), flush=True)


METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "rome": ("rome", {"contexts": CONTEXTS}),
    "rome, C = I": ("rome", {"preset": "identity", "contexts": CONTEXTS}),
    "c-rome": ("rome", {"preset": "c-rome", "contexts": CONTEXTS}),
    "memit": ("memit", {**CHOSEN, "moment_weight": WEIGHT}),
    "memit, spread of PMET": ("memit", {**CHOSEN, "moment_weight": WEIGHT, "spread": "root"}),
    "emmet": ("emmet", {**CHOSEN, "layers": (9,)}),
    "emmet, softened": ("emmet", {**CHOSEN, "layers": (9,), "moment_weight": WEIGHT, "softness": 0.1}),
    "alphaedit": ("alphaedit", CHOSEN),
    "ft": ("ft", {}),
    "ft-l": ("ft", {"preset": "ft-l"}),
    "attention": ("attention", {}),
    "joint": ("joint", {}),
    "neurons": ("neurons", {}),
    "random": ("random", {"like": "memit", **CHOSEN, "moment_weight": WEIGHT}),
}
CLOSED = ("rome", "memit", "emmet", "alphaedit", "random")
ALONE, FEW, MANY = 10, 10, 100
SEQUENCES: dict[str, tuple[str, int, int, dict[str, Any]]] = {  # method, facts a step, facts in all, settings
    "rome-2022": ("rome", 1, 1000, {"preset": "rome-2022", "contexts": CONTEXTS, "memory": False}),
    "rome, C = I": ("rome", 1, 100, {"preset": "identity", "contexts": CONTEXTS, "memory": False}),
    "c-rome": ("rome", 1, 100, {"preset": "c-rome", "contexts": CONTEXTS, "memory": False}),
    "rome": ("rome", 1, 1000, {"contexts": CONTEXTS, "memory": False}),
    "memit": ("memit", 20, 200, {**CHOSEN, "moment_weight": WEIGHT, "memory": False}),
    "memit with a memory": ("memit", 20, 1000, {**CHOSEN, "moment_weight": WEIGHT, "memory": True}),
    "alphaedit": ("alphaedit", 20, 1000, CHOSEN),
}
READ_AT = (1, 10, 20, 40, 60, 80, 100, 140, 200, 300, 400, 500, 600, 800, 1000)
READ = 100  # facts a reading is made on: of more facts so far, this many at even distances
FRONTIER: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"memit, layers {layers[0]}-{layers[-1]}, lambda {weight:g}": (
            "memit",
            {**CHOSEN, "layers": layers, "moment_weight": weight},
        )
        for layers, weights in (
            ((5, 6, 7, 8, 9), (100.0, 500.0, 2500.0, 10_000.0, 40_000.0)),
            ((1, 2, 3, 4, 5, 6, 7, 8, 9), (10_000.0,)),
        )
        for weight in weights
    },
    **{
        f"emmet, softness {s:g}": ("emmet", {**CHOSEN, "layers": (9,), "moment_weight": 10_000.0, "softness": s})
        for s in (0.0, 1.0)
    },
    **{f"alphaedit, energy {e:g}": ("alphaedit", {**CHOSEN, "energy": e}) for e in (0.02,)},
}


def prepared(model: Model, method: str, settings: dict[str, Any]) -> Any:
    """The editor, with the values kept where it takes them."""
    return editor(model, method, **settings, **({"resume": WORK / "values"} if method in CLOSED else {}))


def peak() -> float:
    """Highest memory of this process so far, in GB: each part runs in a process of its own."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def attempt(made: Any, fact: Fact) -> Edit | None:
    """The edit of one fact, or None where the method finds nothing to write (no knowledge neuron)."""
    try:
        return made.edit([fact])
    except EditError as error:
        print(error, flush=True)
        return None


def alone(name: str) -> None:
    """n = 1: each of the first facts by itself."""
    model, facts = load("smollm2"), records(REPORT, ALONE)
    pre, (method, settings) = unedited(model, "alone", facts), METHODS[name]
    made = prepared(model, method, settings)
    start = time.perf_counter()
    edits = made.edit_each(facts) if hasattr(made, "edit_each") else [attempt(made, fact) for fact in facts]
    seconds, memory, post, norms = (time.perf_counter() - start) / len(facts), peak(), [], []
    for fact, edit in zip(facts, edits, strict=True):
        with edit.applied(model) if edit else nullcontext():  # what cannot be written counts as it is
            post += counterfact_scores(model, [fact])
        norms.append(edit.norm if edit else 0.0)
    finish(
        f"n1/{name}",
        made,
        {
            **scored(facts, pre, post),
            "seconds_per_fact": seconds,
            "peak_gb": memory,
            "edit_norm": sum(norms) / len(norms),
        },
    )


def batch(n: int, read_on: str, name: str) -> None:
    """n facts in one batch (methods that write one fact at a time are in `sequence`); of 1,000, every fourth is measured."""
    model, facts = load("smollm2"), records(REPORT, n)
    some = facts[::4] if n == MOST else facts
    pre, (method, settings) = unedited(model, read_on, some), FRONTIER.get(name) or METHODS[name]
    made = prepared(model, method, settings)
    start = time.perf_counter()
    edit = made.edit(facts)
    seconds, memory = (time.perf_counter() - start) / n, peak()
    finish(f"n{n}/{name}", made, {**measured(model, some, pre, edit), "seconds_per_fact": seconds, "peak_gb": memory})


def sequence(name: str) -> None:
    """Facts one after the other (or some at a time); up to `READ` of the facts so far are measured on the model of that moment."""
    method, step, longest, settings = SEQUENCES[name]
    model, facts = load("smollm2"), records(REPORT, longest)
    pre = unedited(model, {MANY: "many", MOST: "all"}.get(longest, f"first-{longest}"), facts)
    kept = WORK / "sequences" / name
    plain, curve, seconds, timed, n = text_nll(model), [], 0.0, 0, 0
    line = EditSequence(model, method, **settings, resume=kept)
    while n < longest:
        start, before = time.perf_counter(), len(list(kept.glob("*")))
        line.extend(facts[n : n + step])
        if len(list(kept.glob("*"))) > before:  # else its values were found by an earlier run of this part
            seconds, timed = seconds + time.perf_counter() - start, timed + step
        n += step
        if n in READ_AT:
            assert line.edit is not None
            some = range(n) if n <= READ else [round((i + 0.5) * n / READ - 0.5) for i in range(READ)]
            result = measured(model, [facts[i] for i in some], [pre[i] for i in some], line.edit)
            curve.append({**result, "n": n})  # of which at most `READ` were measured
            print(n, round(result["text_nll"], 3), end=" ")
            summary = {
                "curve": curve,
                "seconds_per_fact": seconds / max(1, timed),
                "peak_gb": peak(),
                "unedited_text_nll": plain,
            }
            finish(f"sequence/{name}", line.editor, summary)  # as far as it got, should it be stopped
            if result["text_nll"] > plain + COLLAPSED:
                break


def finish(name: str, made: Any, summary: dict[str, Any]) -> None:
    """Store one part, with the settings in force."""
    card = {k: v for k, v in dict(made.card).items() if k not in ("context_texts", "moments")}
    store(name, {"settings": json.loads(json.dumps(card, default=str)), "versions": versions(), **summary})
    post = summary.get("post") or summary["curve"][-1]["post"]
    says = {k: round(post[k]["value"], 3) for k in ("es", "ps", "ns", "s") if post.get(k)}
    print(
        name,
        says,
        summary.get("text_nll"),
        round(summary["seconds_per_fact"], 2),
        round(summary["peak_gb"], 2),
        flush=True,
    )


PARTS: dict[str, tuple[Any, list[str]]] = {
    "n1": (alone, list(METHODS)),
    "n10": (partial(batch, FEW, "alone"), list(METHODS)),
    "n100": (partial(batch, MANY, "many"), [name for name in METHODS if not name.startswith(("rome", "c-rome"))]),
    "sequence": (sequence, list(SEQUENCES)),
    "n1000": (
        partial(batch, MOST, "thousand"),
        [*FRONTIER, "random"],
    ),  # random: as large as MEMIT with the tuned lambda
}


def run(*wanted: str) -> None:
    """Every part that is missing, each in a process of its own."""
    for kind in wanted or PARTS:
        kind, _, only = kind.partition(":")
        for name in PARTS[kind][1]:
            if only in name and not done(f"{kind}/{name}"):
                subprocess.run([sys.executable, __file__, "part", kind, name], check=False)


def part(kind: str, name: str) -> None:
    """One part."""
    PARTS[kind][0](name)


def page() -> None:
    """docs/edit-methods-on-smollm2.md."""
    from edit_methods_page import write_page  # beside this file
    from edit_methods_text import TEXT

    timed = [json.loads(path.read_text()) for path in sorted((WORK / "values").glob("seconds-*.json"))]
    if timed:
        facts = sum(piece["facts"] for piece in timed)
        seconds = sum(piece["seconds"] for piece in timed) / facts
        atomic_write(
            RESULTS / "values.json", json.dumps({"facts": facts, "seconds_per_fact": round(seconds, 2)}) + "\n"
        )
    write_page(RESULTS, METHODS, TEXT)


if __name__ == "__main__":
    {"tune": tune, "values": values, "run": run, "part": part, "page": page}[sys.argv[1]](*sys.argv[2:])
