"""Remove associations: teach the model its own distribution without the completion, and stop at the base rate.

    edit = remove(model, shipped_associations())
    with edit.applied(model): ...

For association (x, y) with base rate b, the mean probability of y's first token after prompts about something else, let p0 be what
the unedited model says after x, and q the same with the mass of y cut to b and the rest scaled up to a whole. The change D of some
down-projections then minimises

    mean over x of  KL(q || p_D(. | x)) + max(0, log p_D(y | x) - log b)     +  w * mean over ordinary text of  KL(p0 || p_D)

by Adam, over every prompt bare and after a few short contexts, until the second term is zero everywhere: no completion is then
likelier after its own prompt than after others. Nothing is put in the completion's place but what the model itself would say
otherwise, and ordinary text holds the rest still. What is still above b after the last step is told in `notes`, not passed over.

Only the prompts themselves are used. Whether the association went with them is for `elicit` to find out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.edit import Dense, Edit
from palimpsest.edit.contexts import in_context
from palimpsest.edit.defaults import default_layers
from palimpsest.edit.payload import refuse_quantised
from palimpsest.edit.training import in_place_of
from palimpsest.erase.unwanted.associations import Association, shipped_controls
from palimpsest.erase.unwanted.elicit import base_rates
from palimpsest.errors import EditError, InputError, SettingError
from palimpsest.facts import shipped_text
from palimpsest.locate.answers import first_token
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Batch, Model, Site, pad
from palimpsest.runs import Progress

CONTEXTS = ("", "Then she said: ", "On the next page it says: ")
KEPT_TEXTS, KEPT_TOKENS, KEPT_READ = (
    10,
    24,
    8,
)  # passages of ordinary text, their length, and at how many tokens each is held


@dataclass(frozen=True, eq=False)
class _Rows:
    """Texts, the residual stream that enters the lowest changed layer, where they are read, and what they shall say there."""

    batch: Batch
    resid: Float[Tensor, "rows columns width"]
    at: Int[Tensor, "rows positions"]
    target: Float[Tensor, "rows positions vocabulary"]


def remove(
    model: Model,
    associations: Sequence[Association],
    *,
    layers: Sequence[int] | None = None,
    controls: Sequence[str] | None = None,
    contexts: Sequence[str] = CONTEXTS,
    text: str | None = None,
    steps: int = 100,
    learning_rate: float = 5e-4,
    keep_weight: float = 1.0,
    progress: Progress | None = None,
) -> Edit:
    """An edit after which no completion is likelier after its prompt than after prompts about something else, or the nearest to it.

    Args:
        model: read, never changed.
        associations: at least one.
        layers: whose down-projections change; those of MEMIT in this model when None.
        controls: prompts about something else, for the base rate; those that ship when None.
        contexts: put before every prompt, the bare one ("") among them.
        text: ordinary text that is held still, blank lines between documents; what ships when None.
        steps: at most.
        learning_rate: of Adam.
        keep_weight: w.
        progress: called with (steps done, steps, label).

    Raises:
        InputError: there is no association, control or text.
        SettingError: no layer, step or positive learning rate.
        EditError: a weight is quantised, or the loss is not finite.
    """
    controls = shipped_controls()[0] if controls is None else tuple(controls)
    if not associations or not controls:
        raise InputError("Removing needs at least one association, and one control prompt for the base rate.")
    if steps < 1 or not 0 < learning_rate < float("inf") or keep_weight < 0 or "" not in contexts:
        raise SettingError(
            f"Removing needs a step, a learning rate above 0, a weight of 0 or more and the bare context '', got {steps}, "
            f"{learning_rate}, {keep_weight} and {list(contexts)}."
        )
    chosen = tuple(sorted(set(default_layers(model, "memit") if layers is None else layers)))
    if not chosen:
        raise SettingError("Removing needs at least one layer; leave layers out for the default ones.")
    paths = [f"{model.anatomy.down(layer).path}.weight" for layer in chosen]
    for path in paths:
        refuse_quantised(model, path)
    base = base_rates(model, associations, controls)
    with model.evaluating():
        removed = _removal(model, associations, base, contexts, chosen[0])
        kept = _kept(model, shipped_text() if text is None else text, chosen[0])
        deltas, done = _train(model, paths, chosen[0], removed, kept, steps, learning_rate, keep_weight, progress)
        with torch.no_grad(), in_place_of(model, _whole(model, deltas)):
            after = removed.of(_log_p(model, removed.rows, chosen[0])).exp()
    bare = [i * len(contexts) + list(contexts).index("") for i in range(len(associations))]
    notes = [
        {
            "association": one.id,
            "completion": one.completion,
            "base": rate,
            "before": float(removed.before[row]),
            "after": float(after[row]),
            "reached": bool(after[row] <= rate),
        }
        for one, rate, row in zip(associations, base, bare, strict=True)
    ]
    settings = {
        "layers": list(chosen),
        "controls": list(controls),
        "contexts": list(contexts),
        "steps": steps,
        "learning_rate": learning_rate,
        "keep_weight": keep_weight,
    }
    payloads = tuple(Dense(path, delta) for path, delta in deltas.items())
    return Edit.made_for(model, "unwanted", payloads, settings=settings, notes={"associations": notes, "steps": done})


@dataclass(frozen=True, eq=False)
class _Removal:
    """The rows of all prompts in all contexts; the token that must go, its probability before, and log b, for each."""

    rows: _Rows
    tokens: Int[Tensor, "rows"]
    before: Float[Tensor, "rows"]
    limits: Float[Tensor, "rows"]

    def above(self, log_p: Float[Tensor, "rows positions vocabulary"]) -> Float[Tensor, "rows"]:
        """max(0, log p(y) - log b)."""
        return (self.of(log_p) - self.limits).clamp(min=0)

    def of(self, log_p: Float[Tensor, "rows positions vocabulary"]) -> Float[Tensor, "rows"]:
        """log p(y)."""
        return log_p[:, 0].gather(1, self.tokens[:, None])[:, 0]


@torch.no_grad()
def _removal(
    model: Model, associations: Sequence[Association], base: Sequence[float], contexts: Sequence[str], start: int
) -> _Removal:
    """Every prompt in every context."""
    texts = [
        (one, in_context(context, one.prompt), rate)
        for one, rate in zip(associations, base, strict=True)
        for context in contexts
    ]
    batch = pad([model.encode(text).ids for _, text, _ in texts]).to(model.device)
    tokens = torch.tensor([first_token(model, text, one.completion) for one, text, _ in texts], device=model.device)
    rates = torch.tensor([rate for _, _, rate in texts], device=model.device)
    rows = _rows(model, batch, batch.last[:, None], start)
    p = rows.target
    before = p[:, 0].gather(1, tokens[:, None])[:, 0].clone()
    cut = torch.minimum(before, rates)
    others = ((1 - cut) / (1 - before).clamp(min=1e-6))[:, None]
    q = p[:, 0] * others
    q.scatter_(1, tokens[:, None], cut[:, None])
    return _Removal(_Rows(rows.batch, rows.resid, rows.at, q[:, None]), tokens, before, rates.log())


def _kept(model: Model, text: str, start: int) -> _Rows:
    """The first tokens of some documents of ordinary text, each read at its last ones."""
    documents = [part for part in text.split("\n\n") if part.strip()]
    if not documents:
        raise InputError("The text that is to be held still is blank; give some plain text.")
    rows = [
        model.tokenizer(part).input_ids[:KEPT_TOKENS] for part in documents[:: max(1, len(documents) // KEPT_TEXTS)]
    ]
    rows = [row for row in rows if len(row) > 1][:KEPT_TEXTS]
    batch = pad(rows).to(model.device)
    at = (batch.last[:, None] - torch.arange(KEPT_READ, device=model.device)).clamp(min=0)
    return _rows(model, batch, at, start)


@torch.no_grad()
def _rows(model: Model, batch: Batch, at: Int[Tensor, "rows positions"], start: int) -> _Rows:
    site = Site("resid_in", start)
    resid = model.record(batch, [site])[site]
    p = at_least_float32(model.run(batch, start=start, resid=resid, at=at)).softmax(-1)
    return _Rows(batch, resid, at, p)


@torch.enable_grad()
def _train(
    model: Model,
    paths: Sequence[str],
    start: int,
    removed: _Removal,
    kept: _Rows,
    steps: int,
    learning_rate: float,
    keep_weight: float,
    progress: Progress | None,
) -> tuple[dict[str, Tensor], int]:
    """D of each weight, and after how many steps every completion was at its base rate."""
    deltas = {path: torch.zeros_like(at_least_float32(model.parameter(path)), requires_grad=True) for path in paths}
    adam = torch.optim.Adam(deltas.values(), lr=learning_rate)
    done = 0
    for done in range(steps + 1):
        with in_place_of(model, _whole(model, deltas)):
            log_p = _log_p(model, removed.rows, start)
            above = removed.above(log_p)
            if done == steps or not bool(above.detach().any()):
                break
            loss = _divergence(removed.rows.target, log_p).mean() + above.mean()
            loss = loss + keep_weight * _divergence(kept.target, _log_p(model, kept, start)).mean()
            if not bool(torch.isfinite(loss.detach())):
                raise EditError(
                    f"Removing diverged: the loss is {float(loss.detach())}; lower the learning rate or use float32."
                )
            gradients = torch.autograd.grad(loss, list(deltas.values()))
        for delta, gradient in zip(deltas.values(), gradients, strict=True):
            delta.grad = gradient
        adam.step()
        if progress:
            progress(done + 1, steps, f"{int((above > 0).sum())} prompts above")
    return {path: delta.detach() for path, delta in deltas.items()}, done


def _whole(model: Model, deltas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """W + D in the model's own type."""
    return {
        path: (at_least_float32(model.parameter(path)).detach() + delta).to(model.parameter(path).dtype)
        for path, delta in deltas.items()
    }


def _log_p(model: Model, rows: _Rows, start: int) -> Float[Tensor, "rows positions vocabulary"]:
    return at_least_float32(model.run(rows.batch, start=start, resid=rows.resid, at=rows.at)).log_softmax(-1)


def _divergence(
    target: Float[Tensor, "rows positions vocabulary"], log_p: Float[Tensor, "rows positions vocabulary"]
) -> Float[Tensor, "rows positions"]:
    """KL(target || p), in nats."""
    return (target * (target.clamp(min=1e-30).log() - log_p)).sum(-1)
