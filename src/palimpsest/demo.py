"""The demo: one complete path through the house, on a real model and three real facts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from palimpsest.evaluate import Scores, evaluate
from palimpsest.facts import Fact, read_facts
from palimpsest.locate import Knowledge, Trace, knowledge, trace
from palimpsest.model import examine, load
from palimpsest.report import Report
from palimpsest.runs import Progress, check_writable

N_FACTS, SAMPLES = 3, 10


@dataclass(frozen=True)
class DemoResult:
    """What the demo found and where its page is."""

    verdict: str
    facts: tuple[Fact, ...]
    known: tuple[Knowledge, ...]
    traces: tuple[Trace, ...]
    scores: Scores
    undone: bool
    page: Path


def run_demo(
    out: str | PathLike[str],
    *,
    model_name: str = "smollm2",
    facts: Sequence[str] = ("landmark_city/eiffel-tower", "capital/japan", "author/pride-and-prejudice"),
    say: Callable[[str], None] = lambda _: None,
    progress: Progress | None = None,
) -> DemoResult:
    """Check the model, trace three facts, edit them, measure, undo, prove the undo, and write `report.html` to `out`.

    Args:
        out: a folder, made if need be.
        model_name: what `load` takes.
        facts: ids of shipped facts.
        say: told what happens next.
        progress: called with (done, total, label) on long work.

    Raises:
        OutputError: `out` cannot be written (found before any work).
        ModelError: the model cannot be had or fails its check.
    """
    folder = check_writable(Path(out))
    say(f"loading {model_name}; its first time takes half a minute")
    model = load(model_name, check=False)
    say("checking that every site of the model means what its name says")
    diagnosis = examine(model)
    diagnosis.raise_on_failure()
    shipped = read_facts("shipped")
    chosen = [fact for name in facts for fact in shipped if fact.id == name]
    known = knowledge(model, chosen)
    before = model.fingerprint()
    traces = []
    for fact in chosen:
        say(f"tracing: {fact.text}")
        traces.append(trace(model, fact, samples=SAMPLES, progress=progress))
    say("editing each fact with ROME, measuring, undoing")
    scores = evaluate(model, chosen, method="rome", progress=progress)
    undo = {"before": before, "after": model.fingerprint()}
    settings = {
        **scores.settings,
        "facts": [fact.id for fact in chosen],
        "known": {k.fact: k.known for k in known},
        "trace": [t.settings for t in traces],
        "edits": [record.get("edit") for record in scores.records],
    }
    page = folder / "report.html"
    Report(diagnosis, traces, scores, undo, settings).to_html(page)
    return DemoResult(
        diagnosis.verdict, tuple(chosen), tuple(known), tuple(traces), scores, undo["before"] == undo["after"], page
    )
