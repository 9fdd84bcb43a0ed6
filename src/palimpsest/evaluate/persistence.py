"""Does an edit last? Ordinary fine-tuning of the edited model on plain text, and how much of the edit is left.

    found = persistence(model, edit, facts, steps=(10, 100, 300))
    found.table()

A copy of the edited network is trained on text that has nothing to do with the edit, by AdamW on the causal loss

    L = -(1/T) sum_t log p(x_t | x_<t)        over blocks of `tokens` tokens, a batch of them a step,

and measured with a suite after so many steps. Metrics drift under fine-tuning also where nothing was edited. The control is
therefore the unedited network, trained with the same learning rate on the same batches in the same order:

    change(n)  =  edited(n) - edited(0)                              what was lost or gained since the edit
    beyond(n)  =  (edited(n) - edited(0)) - (control(n) - control(0))    what of that is not fine-tuning's own drift

both paired by case. Numbers that compare with the unedited model (locality) compare with the one before any training.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from math import isfinite
from os import PathLike
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from palimpsest.edit import Edit
from palimpsest.errors import InputError, PalimpsestError, SettingError
from palimpsest.evaluate.answering import answer
from palimpsest.evaluate.asks import Ask
from palimpsest.evaluate.fitting import require_fitting
from palimpsest.evaluate.scores import Record, Scores
from palimpsest.evaluate.suite import Answers, Suite, suite_of
from palimpsest.facts import Fact, shipped_text
from palimpsest.facts.case import Case, cases_of
from palimpsest.model import Model, load
from palimpsest.runs import Progress, atomic_write
from palimpsest.runs.json_text import to_document
from palimpsest.statistics import Estimate, paired_difference

ARMS = ("edited", "control")


@dataclass(frozen=True)
class Retraining:
    """How the copies are trained.

    Attributes:
        learning_rate, weight_decay: of AdamW, whose other settings are torch's own.
        batch: blocks of text in a step.
        tokens: of one block.
        seed: of the order of the blocks, and of dropout where the network has any.
    """

    learning_rate: float = 1e-5
    weight_decay: float = 0.01
    batch: int = 4
    tokens: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < float("inf"):
            raise SettingError(f"The learning rate must be a number above 0, got {self.learning_rate}; 1e-5 is usual.")
        if self.weight_decay < 0:
            raise SettingError(f"The weight decay must be 0 or more, got {self.weight_decay}; 0.01 is usual.")
        if self.batch < 1 or self.tokens < 2:
            raise SettingError(
                f"A step needs a block or more of two tokens or more, got batch={self.batch} and tokens={self.tokens}."
            )


@dataclass(frozen=True, eq=False)
class Persistence:
    """What is left of an edit after fine-tuning.

    Attributes:
        scores: ("edited" or "control", steps) -> scores, whose "pre" is the unedited, untrained model.
        steps: at which was measured, 0 first.
        losses: of each training step, by arm.
        settings: model, method, suite and training.
    """

    scores: Mapping[tuple[str, int], Scores]
    steps: tuple[int, ...]
    losses: Mapping[str, tuple[float, ...]]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def estimate(self, metric: str, steps: int, arm: str = "edited") -> Estimate | None:
        """One metric after so many steps."""
        return self._at(arm, steps).estimate(metric)

    def change(self, metric: str, steps: int) -> Estimate | None:
        """edited(steps) - edited(0), paired by case; None for a harmonic mean or where no case has the metric."""
        return self._difference(metric, [("edited", steps, 1), ("edited", 0, -1)])

    def beyond(self, metric: str, steps: int) -> Estimate | None:
        """`change` less the same change of the control, paired by case."""
        parts = [("edited", steps, 1), ("edited", 0, -1), ("control", steps, -1), ("control", 0, 1)]
        return self._difference(metric, parts)

    def table(self) -> list[dict[str, str]]:
        """Rows for people: a metric at a number of steps, edited and control, what changed, and what beyond the control."""
        rows = []
        for metric in self._at("edited", 0).metrics:
            for steps in self.steps:
                told = [self.estimate(metric, steps), self.estimate(metric, steps, "control")]
                told += [self.change(metric, steps), self.beyond(metric, steps)] if steps else [None, None]
                if told[0] is not None:
                    names = ("edited", "control", "change", "beyond the control")
                    cells = ("" if cell is None else str(cell).split(" (")[0] for cell in told)
                    rows.append({"metric": metric, "steps": str(steps)} | dict(zip(names, cells, strict=True)))
        return rows

    def to_json(self) -> Record:
        """Settings, every estimate, and the losses."""
        first = self._at("edited", 0)
        return {
            "settings": dict(self.settings),
            "n": len(first.measured),
            "failed": {record["id"]: record["error"] for record in first.failed},
            "metrics": {name: asdict(metric) for name, metric in first.metrics.items()},
            "steps": [
                {"steps": steps}
                | {arm: {m: self.estimate(m, steps, arm) for m in first.metrics} for arm in ARMS}
                | {"change": {m: self.change(m, steps) for m in first.metrics}}
                | {"beyond": {m: self.beyond(m, steps) for m in first.metrics}}
                for steps in self.steps
            ],
            "losses": {arm: list(losses) for arm, losses in self.losses.items()},
        }

    def save(self, path: str | PathLike[str]) -> None:
        """Write `to_json` to a file, whole or not at all; raises `OutputError` when the place cannot be written."""
        atomic_write(Path(path), to_document(self.to_json(), "the persistence"))

    def _at(self, arm: str, steps: int) -> Scores:
        if (arm, steps) not in self.scores:
            raise SettingError(
                f"Nothing was measured of {arm!r} after {steps} steps, only of {ARMS} after {self.steps}."
            )
        return self.scores[arm, steps]

    def _difference(self, metric: str, parts: Sequence[tuple[str, int, int]]) -> Estimate | None:
        """A signed sum of one metric at several moments, over the cases that have it at all of them."""
        records = [({r["id"]: r for r in self._at(arm, steps).measured}, sign) for arm, steps, sign in parts]
        ids = [i for i in records[0][0] if all(i in own and _value(own[i], metric) is not None for own, _ in records)]
        if not ids or self._at("edited", 0).metrics[metric].harmonic_of:
            return None
        plus, minus = (
            [sum(_value(own[i], metric) or 0.0 for own, sign in records if sign == wanted) for i in ids]
            for wanted in (1, -1)
        )
        clusters = [(records[0][0][i]["relation"], records[0][0][i]["subject"]) for i in ids]
        return paired_difference(plus, minus, clusters)


def persistence(
    model: Model,
    edit: Edit,
    facts: Fact | Case | Sequence[Fact | Case],
    *,
    steps: Sequence[int] = (10, 100, 300),
    suite: str | Suite | Iterable[str | Suite] = "counterfact",
    text: str | None = None,
    training: Retraining = Retraining(),
    dose: float = 1.0,
    progress: Progress | None = None,
) -> Persistence:
    """Fine-tune the edited model and the unedited one alike, and measure both on the way.

    Args:
        model: left as it was found; two copies are trained, one after the other, in float32 where it is in less.
        edit: of the facts.
        facts: what is measured, facts or cases.
        steps: after how many steps of training; 0 is always measured too.
        suite: as in `evaluate`.
        text: plain text to train on; the shipped English text when None.
        training: its settings.
        dose: of the edit.
        progress: called with (steps done, of all, arm).

    Raises:
        InputError: there are no facts, no case has what the suite asks, or the text is shorter than one batch.
        SettingError: steps are not whole numbers above 0.
        WeightError: the edit was made for other weights.
    """
    at = tuple(sorted(set(steps)))
    if not at or at[0] < 1:
        raise SettingError(f"Steps of fine-tuning are whole numbers above 0, got {tuple(steps)}; try (10, 100, 300).")
    cases = cases_of([facts] if isinstance(facts, Fact | Case) else list(facts))
    chosen = suite_of(suite)
    measure = _Measure(model, cases, chosen)
    blocks = _blocks(model, shipped_text() if text is None else text, training)
    settings = {
        "model": model.name,
        "method": edit.method,
        "suite": chosen.name,
        "dose": dose,
        "training": asdict(training),
        "text_tokens": blocks.numel(),
    }
    scores: dict[tuple[str, int], Scores] = {}
    losses: dict[str, tuple[float, ...]] = {}
    for number, arm in enumerate(ARMS):
        with edit.applied(model, dose) if arm == "edited" else nullcontext():
            copy = _copy(model)
        own: list[float] = []
        scores[arm, 0] = measure(copy, settings)
        with _training(copy, training) as step:
            for batch in _batches(blocks, training, at[-1]):
                own.append(step(batch))
                if len(own) in at:
                    scores[arm, len(own)] = measure(copy, settings)
                if progress is not None:
                    progress(number * at[-1] + len(own), len(ARMS) * at[-1], arm)
        losses[arm] = tuple(own)
    return Persistence(scores, (0, *at), losses, settings)


class _Measure:
    """The suite on any copy, beside the unedited model's own answers, which are asked once."""

    def __init__(self, model: Model, cases: Sequence[Case], suite: Suite) -> None:
        require_fitting(cases, suite)
        self.suite, self.cases = suite, cases
        self.asks: list[Ask] = []
        self.failed: dict[str, str] = {}
        for case in cases:
            try:
                self.asks += suite.asks(case)
            except PalimpsestError as error:
                self.failed[case.id] = str(error)
        self.before = answer(model, self.asks)

    def __call__(self, copy: Model, settings: Mapping[str, Any]) -> Scores:
        after = answer(copy, self.asks)
        return Scores(tuple(self._record(case, after) for case in self.cases), settings, self.suite.metrics)

    def _record(self, case: Case, after: Answers) -> Record:
        if case.id in self.failed:
            return {"id": case.id, "error": self.failed[case.id]}
        relation, subject = case.cluster
        try:
            pre, post = (self.suite.measure(case, self.before, answers) for answers in (self.before, after))
        except PalimpsestError as error:
            return {"id": case.id, "error": str(error)}
        kept = {name: value for name, value in pre.items() if name not in self._compares}
        return {"id": case.id, "relation": relation, "subject": subject, "pre": kept, "post": post}

    @property
    def _compares(self) -> set[str]:
        return {name for name, metric in self.suite.metrics.items() if metric.needs_before}


def _copy(model: Model) -> Model:
    """The network as its weights are now, as a model of its own, in float32 or better."""
    net = deepcopy(model.net)
    if torch.finfo(net.dtype).bits < 32:
        net = net.float()  # steps of 1e-5 are lost in half precision
    return load(net, tokenizer=model.tokenizer, check=False)


@contextmanager
def _training(model: Model, training: Retraining) -> Iterator[Any]:
    """A function that takes one step on a batch and gives its loss before the step; the caller's random state stays."""
    parameters = list(model.net.parameters())
    devices = [model.device] if model.device.type == "cuda" else []
    optimiser = torch.optim.AdamW(parameters, lr=training.learning_rate, weight_decay=training.weight_decay)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(training.seed)

        def step(ids: Int[Tensor, "rows tokens"]) -> float:
            model.net.train()
            model.net.requires_grad_(True)
            with torch.enable_grad():
                logits = model.net(input_ids=ids.to(model.device), use_cache=False).logits
                loss = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten().to(logits.device))
                loss.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            model.net.eval()
            model.net.requires_grad_(False)
            return float(loss.detach())

        yield step


def _blocks(model: Model, text: str, training: Retraining) -> Int[Tensor, "blocks tokens"]:
    """The text as blocks of as many tokens each; what is left at its end is not used."""
    ids = model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    count = len(ids) // training.tokens
    if count < training.batch:
        raise InputError(
            f"The text has {len(ids)} tokens, fewer than one batch of {training.batch} blocks of {training.tokens}; "
            f"give a longer one."
        )
    return torch.tensor(ids[: count * training.tokens]).view(count, training.tokens)


def _batches(blocks: Tensor, training: Retraining, steps: int) -> Iterator[Int[Tensor, "rows tokens"]]:
    """So many batches, the blocks in an order drawn anew for each pass through the text."""
    draw = Random(training.seed)
    order: list[int] = []
    for _ in range(steps):
        if len(order) < training.batch:
            order = draw.sample(range(len(blocks)), len(blocks))
        yield blocks[order[: training.batch]]
        order = order[training.batch :]


def _value(record: Mapping[str, Any], metric: str) -> float | None:
    found = record["post"].get(metric)
    return None if found is None or not isfinite(found) else float(found)
