"""Training some weights of a model on its new answers: what fine-tuning, the attention edit and the joint edit share.

For facts i with new answers o*, and D the change of the trained weights W (Zhu et al. 2020; Meng et al. 2022, appendix E.1),

    min over D   mean over facts of  -(1/T) sum_t log p(o*_t | prompt, o*_<t; W + D)
    with         |D_ab| <= epsilon for every entry of a bounded weight, by clamping after every step

by Adam on float32 copies of the weights (float64 where the model is), whatever the model is stored in. A batch whose loss is
below `stop_below` takes no step; training stops after a pass whose mean loss is below it.

The published code reads every token of the answer from the one distribution after the prompt (`target="last_prompt"`):

                 -(1/T) sum_t log p(o*_t | prompt; W + D)

which asks for "Xi'an" by making " X", "i", "'" and "an" likely all at once, in the place of the first. The best distribution gives
each of T different tokens 1/T, so the loss of such an answer stays above log T. For an answer of one token the two are the same.

Only what the trained weights can change is computed: layers below the lowest of them run once, logits are taken where the
answers are read, and no other weight gets a gradient. Memories, which change nothing before the last token of a prompt, run the
tokens before it once too (`onward`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.edit.payload import refuse_quantised
from palimpsest.edit.settings import at_least, one_of
from palimpsest.errors import EditError, FactError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Batch, Model, Prefix, Site, Tap, align
from palimpsest.runs import Progress


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the optimisation; the numbers are those of the published code.

    Attributes:
        steps: passes over the facts.
        learning_rate: of Adam.
        weight_decay: of Adam, as torch has it: added to the gradient, toward zero and not toward the old weight.
        stop_below: loss (nats a token) under which a batch takes no step and training stops; 0 never.
        batch: facts in one step.
        target: "answer", every token after the ones before it, or "last_prompt", all from the prompt's last token as published.
        shuffle: draw the order of the batches anew for each pass.
        seed: of those orders.
    """

    steps: int = 25
    learning_rate: float = 5e-4
    weight_decay: float = 0.0
    stop_below: float = 1e-2
    batch: int = 64
    target: str = "answer"
    shuffle: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        at_least("Training", "steps", self.steps, 1)
        at_least("Training", "weight_decay", self.weight_decay, 0)
        at_least("Training", "stop_below", self.stop_below, 0)
        at_least("Training", "batch", self.batch, 1)
        if not 0 < self.learning_rate < float("inf"):
            raise SettingError(f"Training's learning_rate must be a number above 0, got {self.learning_rate}.")
        one_of("Training", "target", self.target, ("answer", "last_prompt"))


def check_bound(title: str, name: str, bound: float | None) -> None:
    """Raise `SettingError` unless `bound` is None or a number above 0."""
    if bound is not None and not 0 < bound < float("inf"):
        raise SettingError(f"{title}'s {name} must be a number above 0, or None for no bound, got {bound}.")


@dataclass(frozen=True, eq=False)
class Trained:
    """What training found.

    Attributes:
        deltas: D of each weight, in its own layout, in float32 or better.
        losses: mean loss of each pass, read before the steps of each batch.
        nll: per fact, the loss (nats a token) with the whole D.
    """

    deltas: dict[str, Float[Tensor, "..."]]
    losses: list[float]
    nll: list[float]


@dataclass(frozen=True)
class AnswerRows:
    """Some facts as rows, with the residual stream that enters the lowest trained layer.

    Attributes:
        batch: prompts and answers.
        prefix: the columns before the last token of the prompts, which were run once; None where all columns are run.
        resid: the stream, in the columns that are run.
        at: columns of the batch where an answer is read. The first is the last token of the prompt.
        answer: the tokens wanted there.
        weight: their shares in the loss of the row; 0 where a shorter answer has none.
    """

    batch: Batch
    prefix: Prefix | None
    resid: Float[Tensor, "rows columns width"]
    at: Int[Tensor, "rows positions"]
    answer: Int[Tensor, "rows positions"]
    weight: Float[Tensor, "rows positions"]

    @property
    def at_run(self) -> Int[Tensor, "rows positions"]:
        """`at`, counted in the columns that are run."""
        return self.at - (self.prefix.length if self.prefix else 0)


@torch.enable_grad()
def train(
    model: Model,
    facts: Sequence[Fact],
    bounds: Mapping[str, float | None],
    start: int,
    settings: TrainingSettings = TrainingSettings(),
    progress: Progress | None = None,
) -> Trained:
    """Train the weights at the paths in `bounds` to say the new answers; the model is left as it was.

    Args:
        model: its own weights are never written to: others stand in their places while it runs.
        facts: each with a `target_new`.
        bounds: path of each trained weight, and epsilon (None for no bound).
        start: the lowest layer that holds one of them.
        settings: of the optimisation.
        progress: called with (passes done, passes, label).

    Raises:
        EditError: a weight is quantised, or the loss or a gradient is not finite.
        FactError: a prompt has no token before its answer.
    """
    for path in bounds:
        refuse_quantised(model, path)
    origin = {path: at_least_float32(model.parameter(path)).detach().clone() for path in bounds}
    weights = {path: weight.clone().requires_grad_() for path, weight in origin.items()}
    adam = torch.optim.Adam(weights.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    losses: list[float] = []
    with model.evaluating(), without_gradients(model):
        batches = [
            answer_rows(model, facts[begin : begin + settings.batch], start, settings.target)
            for begin in range(0, len(facts), settings.batch)
        ]
        order, draw = list(batches), Random(settings.seed)
        for done in range(settings.steps):
            if settings.shuffle:
                draw.shuffle(order)
            total = 0.0
            for rows in order:
                total += _step(model, rows, start, weights, adam, settings.stop_below) * len(rows.batch)
                _clamp(weights, origin, bounds)
            losses.append(total / len(facts))
            if progress:
                progress(done + 1, settings.steps, f"loss {losses[-1]:.3f}")
            if losses[-1] < settings.stop_below:
                break
        with torch.no_grad(), in_place_of(model, _cast(model, weights)):
            nll = [value for rows in batches for value in rows_nll(model, rows, start).tolist()]
    with torch.no_grad():
        deltas = {path: weights[path].detach() - origin[path] for path in weights}
        for path, bound in bounds.items():
            if bound is not None:
                deltas[path].clamp_(-bound, bound)  # W + D - W may miss the bound by a rounding
    return Trained(deltas, losses, nll)


def _step(
    model: Model, rows: AnswerRows, start: int, weights: dict[str, Tensor], adam: torch.optim.Adam, stop_below: float
) -> float:
    """One step on one batch, unless its loss is low enough already; returns the loss before it."""
    with in_place_of(model, _cast(model, weights)):
        loss = rows_nll(model, rows, start).mean()
        value = float(loss.detach())
        if not value < float("inf"):
            raise EditError(f"Training diverged: the loss is {value}; lower the learning rate or use float32.")
        if value < stop_below:
            return value
        gradients = torch.autograd.grad(loss, list(weights.values()))
    if not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
        raise EditError("Training met a gradient that is not finite; lower the learning rate or use float32.")
    for weight, gradient in zip(weights.values(), gradients, strict=True):
        weight.grad = gradient
    adam.step()
    return value


def _clamp(weights: dict[str, Tensor], origin: dict[str, Tensor], bounds: Mapping[str, float | None]) -> None:
    with torch.no_grad():
        for path, bound in bounds.items():
            if bound is not None:
                weights[path].clamp_(origin[path] - bound, origin[path] + bound)


def rows_nll(model: Model, rows: AnswerRows, start: int, taps: Sequence[Tap] = ()) -> Float[Tensor, "rows"]:
    """Loss of each row's answer (nats a token), with `taps` in force; gradients flow."""
    logits = model.run(rows.batch, start=start, resid=rows.resid, prefix=rows.prefix, at=rows.at, taps=taps)
    log_p = at_least_float32(logits).log_softmax(-1)
    return -(log_p.gather(2, rows.answer[:, :, None])[:, :, 0] * rows.weight.to(log_p.dtype)).sum(1)


def answer_rows(
    model: Model, facts: Sequence[Fact], start: int, target: str = "answer", *, onward: bool = False
) -> AnswerRows:
    """Prompts and new answers of `facts` as rows; raises `FactError` when either has no token.

    With `onward` the rows stand with the last tokens of their prompts in one column and the columns before it are run here, once:
    exact as long as nothing that comes to be trained changes them.
    """
    ids: list[tuple[int, ...]] = []
    reads: list[list[tuple[int, int]]] = []  # (position whose logits are read, token wanted there)
    for fact in facts:
        whole, begin = model.encode_answer(fact.text, str(fact.target_new))
        if not 0 < begin < len(whole):
            raise FactError(
                f"Prompt and answer of {fact.text!r} and {fact.target_new!r} must have a token each; change them."
            )
        if target == "last_prompt":
            ids.append(whole[:begin])
            reads.append([(begin - 1, token) for token in whole[begin:]])
        else:
            ids.append(whole[:-1])
            reads.append([(at - 1, whole[at]) for at in range(begin, len(whole))])
    pivots = [read[0][0] if onward else 0 for read in reads]
    batch, site = align(ids, pivots).to(model.device), Site("resid_in", start)
    most = max(len(read) for read in reads)
    at, answer = torch.zeros(len(ids), most, dtype=torch.long), torch.zeros(len(ids), most, dtype=torch.long)
    weight = torch.zeros(len(ids), most, dtype=torch.float64)
    for row, read in enumerate(reads):
        at[row], shift = read[0][0], batch.column - pivots[row]
        at[row, : len(read)], answer[row, : len(read)] = torch.tensor(read).T
        at[row] += shift
        weight[row, : len(read)] = 1 / len(read)
    prefix = next(model.run_prefixes(batch, [batch.column])) if onward else None
    resid = model.record(batch, [site], prefix=prefix)[site]
    return AnswerRows(batch, prefix, resid, *(tensor.to(model.device) for tensor in (at, answer, weight)))


def _cast(model: Model, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The copies in the model's own type, as gradients flow back through it."""
    return {path: weight.to(model.parameter(path).dtype) for path, weight in weights.items()}


@contextmanager
def in_place_of(model: Model, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Other tensors in the places of some weights inside the block, through which gradients flow; then the old objects again."""
    saved: list[tuple[dict[str, object], str, object]] = []
    try:
        for path, tensor in weights.items():
            owner, name = path.rsplit(".", 1)
            places: dict[str, object] = model.net.get_submodule(owner)._parameters
            saved.append((places, name, places[name]))
            places[name] = tensor  # a plain tensor: a Parameter would be a leaf, cut off from the copy it was cast from
        yield
    finally:
        for places, name, weight in saved:
            places[name] = weight


@contextmanager
def without_gradients(model: Model) -> Iterator[None]:
    """No weight of the model asks for a gradient inside the block, so that nothing is kept for one."""
    asking = [weight for weight in model.net.parameters() if weight.requires_grad]
    try:
        for weight in asking:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in asking:
            weight.requires_grad_(True)
