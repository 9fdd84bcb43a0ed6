"""Value search: the v* that makes the model say the new answer when the last token of the subject carries it.

v* = v + delta, and delta minimises (Meng et al. 2022, equation 4, in the form of the published code)

    L(delta) = mean over contexts of  -(1/T) sum_t log p(o*_t | context, prompt, o*_<t; v + delta)       say o*
             + kl_factor * KL(p_delta || p)      after the prompt "{subject} is a"                          keep what s is
             + decay * |delta| / |v|^2                                                                      stay near

where p_delta is the model with delta added to the output of the down-projection of one layer at the last subject token.
Adam, with |delta| held within clamp * |v| after every step.

Only what delta can change is computed in a step: the rows stand with their last subject tokens in one column, columns
before it and layers below the edit were run once, and logits are taken where the loss reads them. Facts are independent
rows of one optimisation, each with its own Adam state, norm bound and stop; a finished fact leaves the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.edit.contexts import BARE, in_context
from palimpsest.edit.keys import subject_end
from palimpsest.errors import EditError, FactError
from palimpsest.facts import Fact
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Batch, Model, Prefix, Site, Tap, align


@dataclass(frozen=True)
class ValueSettings:
    """Settings of the search; the defaults are those of the published code.

    Attributes:
        steps: forward passes; there is one update fewer.
        learning_rate: of Adam.
        kl_factor: weight of the KL term (the paper says 100, the code 0.0625).
        decay: weight of |delta| / |v|^2 (in the code; the paper writes 0.0015).
        clamp: bound on |delta| / |v|.
        stop_below: a fact is finished once its loss is below this.
        kl_at: where the KL term reads the model after "{subject} is a": "last" token, or "subject" end as published.
    """

    steps: int = 20
    learning_rate: float = 0.5
    kl_factor: float = 0.0625
    decay: float = 0.5
    clamp: float = 4.0
    stop_below: float = 0.05
    kl_at: str = "last"


@dataclass(frozen=True)
class Found:
    """The result for one fact: delta, the forward passes used and the last loss with its likelihood part."""

    delta: Float[Tensor, "d"]
    steps: int
    loss: float
    nll: float


@dataclass
class _Rows:
    """Every row of the facts still searched for, and what is fixed about it. One row a context, then the KL row."""

    batch: Batch
    prefix: Prefix
    resid: Float[Tensor, "rows columns width"]
    fact: Int[Tensor, "rows"]
    is_kl: Tensor
    at: Int[Tensor, "rows positions"]
    answer: Int[Tensor, "rows positions"]
    weight: Float[Tensor, "rows positions"]
    before: Float[Tensor, "rows vocabulary"]

    def keep(self, facts: Sequence[int]) -> "_Rows":
        """The rows of `facts` only."""
        rows = torch.isin(self.fact, torch.tensor(facts, device=self.fact.device)).nonzero()[:, 0]
        return _Rows(
            self.batch.take(rows),
            self.prefix.take(rows),
            self.resid[rows],
            self.fact[rows],
            self.is_kl[rows],
            self.at[rows],
            self.answer[rows],
            self.weight[rows],
            self.before[rows],
        )


def find_values(
    model: Model,
    layer: int,
    facts: Sequence[Fact],
    contexts: Sequence[str],
    norms: Sequence[float],
    settings: ValueSettings = ValueSettings(),
) -> list[Found]:
    """delta of every fact, together; the same as one fact at a time.

    Args:
        model: read, never changed.
        layer: whose down-projection carries delta.
        facts: each with a `target_new`.
        contexts: texts before the prompt, the bare one ("") among them.
        norms: |v| of each fact, the scale of the decay and of the clamp.
        settings: of the search.

    Raises:
        FactError: a fact has no `target_new`.
        EditError: a loss is not finite.
    """
    for fact in facts:
        if fact.target_new is None:
            raise FactError(f"The fact {fact.id} ({fact.text!r}) has no target_new; an edit needs the answer to write.")
    rows = _rows(model, layer, facts, contexts, settings)
    exact, device = rows.before.dtype, model.device
    deltas = [torch.zeros(model.anatomy.width, dtype=exact, device=device, requires_grad=True) for _ in facts]
    optimiser = torch.optim.Adam(deltas, lr=settings.learning_rate)
    v_norms = torch.tensor(norms, dtype=exact, device=device)
    active, found = list(range(len(facts))), dict[int, Found]()
    for step in range(settings.steps):
        loss, nll = _losses(model, layer, rows, torch.stack(deltas), v_norms, settings)
        if not bool(torch.isfinite(loss[active]).all()):
            bad = next(i for i in active if not torch.isfinite(loss[i]))
            raise EditError(
                f"The value search of {facts[bad].text!r} diverged; lower the learning rate or use float32."
            )
        last = step == settings.steps - 1
        done = [i for i in active if last or float(loss[i].detach()) < settings.stop_below]
        for i in done:
            found[i] = Found(deltas[i].detach().clone(), step + 1, float(loss[i].detach()), float(nll[i].detach()))
        remaining = [i for i in active if i not in done]
        if not remaining:
            break
        gradients = torch.autograd.grad(loss[remaining].sum(), [deltas[i] for i in remaining])
        optimiser.zero_grad(set_to_none=True)  # Adam passes over a delta without a gradient
        for i, gradient in zip(remaining, gradients, strict=True):
            deltas[i].grad = gradient
        optimiser.step()
        with torch.no_grad():
            for i in remaining:
                bound = settings.clamp * v_norms[i]
                if deltas[i].norm() > bound:
                    deltas[i].mul_(bound / deltas[i].norm())
        if len(remaining) < len(active):
            rows, active = rows.keep(remaining), remaining
    return [found[i] for i in range(len(facts))]


def _losses(
    model: Model, layer: int, rows: _Rows, deltas: Tensor, v_norms: Tensor, settings: ValueSettings
) -> tuple[Float[Tensor, "facts"], Float[Tensor, "facts"]]:
    """(loss, likelihood part) of each fact; facts without rows get only the decay."""

    def add(value: Tensor) -> Tensor:
        first, rest = value[:, :1], value[:, 1:]
        return torch.cat([first + deltas[rows.fact].to(value.dtype)[:, None], rest], dim=1)

    logits = model.run(
        rows.batch, start=layer, resid=rows.resid, prefix=rows.prefix, at=rows.at, taps=[Tap(Site("value", layer), add)]
    )
    log_p = at_least_float32(logits).log_softmax(-1)
    told = -(log_p.gather(2, rows.answer[:, :, None])[:, :, 0] * rows.weight.to(log_p.dtype)).sum(1)
    # KL(now || before), the order of arguments of the published code
    kl = (log_p[:, 0].exp() * (log_p[:, 0] - rows.before)).sum(-1)
    n = len(deltas)
    nothing = torch.zeros(n, dtype=deltas.dtype, device=deltas.device)
    nll = nothing.index_add(0, rows.fact, told)
    kept = nothing.index_add(0, rows.fact, torch.where(rows.is_kl, kl, 0.0))
    size = deltas.norm(dim=1) if settings.decay else nothing
    return nll + settings.kl_factor * kept + settings.decay * size / v_norms**2, nll


def _rows(model: Model, layer: int, facts: Sequence[Fact], contexts: Sequence[str], settings: ValueSettings) -> _Rows:
    ids: list[tuple[int, ...]] = []
    pivots: list[int] = []
    reads: list[list[tuple[int, int, float]]] = []  # (position whose logits are read, token wanted there, weight)
    owner: list[int] = []
    for i, fact in enumerate(facts):
        for context in contexts:
            _, pivot = subject_end(model, context, fact)
            whole, begin = model.encode_answer(in_context(context, fact.text), str(fact.target_new))
            if begin <= pivot:
                raise FactError(f"The subject of {fact.text!r} ends after its prompt does; check the prompt.")
            ids.append(whole[:-1])
            pivots.append(pivot)
            answer = len(whole) - begin
            weight = 1 / (answer * len(contexts))
            reads.append([(at - 1, whole[at], weight) for at in range(begin, len(whole))])
            owner.append(i)
        kl_fact = Fact(subject=fact.subject, prompt="{} is a")
        kl_ids, kl_pivot = subject_end(model, BARE, kl_fact)
        ids.append(kl_ids)
        pivots.append(kl_pivot)
        reads.append([(len(kl_ids) - 1 if settings.kl_at == "last" else kl_pivot, 0, 0.0)])
        owner.append(i)
    batch = align(ids, pivots).to(model.device)
    most = max(len(read) for read in reads)
    at, answer_ids = torch.zeros(len(ids), most, dtype=torch.long), torch.zeros(len(ids), most, dtype=torch.long)
    weights = torch.zeros(len(ids), most, dtype=torch.float64)
    for row, read in enumerate(reads):
        shift = batch.column - pivots[row]
        for j in range(most):
            position, token, weight = read[j] if j < len(read) else (read[0][0], 0, 0.0)
            at[row, j], answer_ids[row, j], weights[row, j] = position + shift, token, weight
    fact_of = torch.tensor(owner)
    is_kl = torch.zeros(len(ids), dtype=torch.bool)
    is_kl[len(contexts) :: len(contexts) + 1] = True
    device = model.device
    with torch.no_grad():
        (prefix,) = model.run_prefixes(batch, [batch.column])
        site = Site("resid_in", layer)
        resid = model.record(batch, [site], prefix=prefix)[site]
        before = torch.zeros(len(ids), 1, device=device)
        rows = _Rows(
            batch,
            prefix,
            resid,
            fact_of.to(device),
            is_kl.to(device),
            at.to(device),
            answer_ids.to(device),
            weights.to(device),
            before,
        )
        logits = model.run(batch, start=layer, resid=resid, prefix=prefix, at=rows.at[:, :1])
        rows.before = at_least_float32(logits[:, 0]).log_softmax(-1)
    return rows
