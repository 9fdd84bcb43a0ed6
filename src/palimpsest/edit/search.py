"""Value search: the delta that makes the model say the new answer when the last token of the subject carries it.

v* = v + delta, and delta minimises (Meng et al. 2022, equation 4, in the form of the published code)

    L(delta) = mean over contexts of  -(1/T) sum_t log p(o*_t | context, prompt, o*_<t; v + delta)       say o*
             + kl_factor * KL(p_delta || p)      after the prompt "{subject} is a"                          keep what s is
             + decay * |delta| / |v|^2                                                                      stay near

where p_delta is the model with delta added at the last subject token, to the output of the down-projection of one layer
(ROME) or to the output of the layer (MEMIT). Adam, with |delta| held within clamp * |v| after every step.

Only what delta can change is computed in a step: the rows stand with their edited tokens in one column, columns before it
and layers below the edit were run once, and logits are taken where the loss reads them, in one call of the head. Facts
are independent rows of one optimisation, each with its own Adam state, norm bound and stop; a finished fact leaves the batch.
Facts of one group share a delta (their loss is the mean of theirs), as facts with one and the same key must.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from palimpsest.edit.contexts import BARE, in_context
from palimpsest.edit.keys import edited_token
from palimpsest.edit.settings import at_least, one_of, whole
from palimpsest.errors import EditError, FactError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.precision import at_least_float32
from palimpsest.model import Batch, Model, Prefix, Site, Tap, align


@dataclass(frozen=True)
class ValueSettings:
    """Settings of the search; the defaults are those of the published code of ROME.

    Attributes:
        steps: forward passes; there is one update fewer.
        learning_rate: of Adam.
        kl_factor: weight of the KL term (the paper says 100, the code 0.0625).
        decay: weight of |delta| / |v|^2 (in the code; the paper writes 0.0015).
        clamp: bound on |delta| / |v|.
        stop_below: a fact is finished once its loss is below this.
        kl_at: where the KL term reads the model after "{subject} is a": "last" token, or "subject" end as published.
        skip_known: write nothing for a fact whose new answer is the model's first choice at every token already.
    """

    steps: int = 20
    learning_rate: float = 0.5
    kl_factor: float = 0.0625
    decay: float = 0.5
    clamp: float = 4.0
    stop_below: float = 0.05
    kl_at: str = "last"
    skip_known: bool = True

    def __post_init__(self) -> None:
        whole("The value search", "steps", self.steps, 1)
        for name in ("learning_rate", "kl_factor", "decay", "clamp", "stop_below"):
            at_least("The value search", name, getattr(self, name), 0)
        one_of("The value search", "kl_at", self.kl_at, ("last", "subject"))


@dataclass(frozen=True)
class Found:
    """The result for one fact: delta, the forward passes used and the last loss with its likelihood part.

    `known` says that the new answer was the model's first choice before, in which case delta may be 0 (`skip_known`).
    """

    delta: Float[Tensor, "d"]
    steps: int
    loss: float
    nll: float
    known: bool = False


@dataclass
class Rows:
    """Every row of the facts still searched for, and what is fixed about it. A row a fact and context, then the KL row.

    Attributes:
        batch, prefix, resid: the texts, what was run of them, and the stream that enters the layers that are run again.
        group: whose delta a row carries.
        fact: which fact it asks, counted over all groups in order; -1 in the KL row.
        is_kl: whether it is the KL row.
        at, answer, weight: columns whose logits are read, the tokens wanted there and their shares in the loss. The first is
            the last token of the prompt.
        before: log-probabilities at the first of them without delta.
        known: by group, whether the new answer was the first choice.
    """

    batch: Batch
    prefix: Prefix
    resid: Float[Tensor, "rows columns width"]
    group: Int[Tensor, "rows"]
    fact: Int[Tensor, "rows"]
    is_kl: Tensor
    at: Int[Tensor, "rows positions"]
    answer: Int[Tensor, "rows positions"]
    weight: Float[Tensor, "rows positions"]
    before: Float[Tensor, "rows vocabulary"]
    known: list[bool]

    def keep(self, groups: Sequence[int]) -> "Rows":
        """The rows of `groups` only."""
        rows = torch.isin(self.group, torch.tensor(groups, device=self.group.device)).nonzero()[:, 0]
        return Rows(
            self.batch.take(rows),
            self.prefix.take(rows),
            self.resid[rows],
            self.group[rows],
            self.fact[rows],
            self.is_kl[rows],
            self.at[rows],
            self.answer[rows],
            self.weight[rows],
            self.before[rows],
            self.known,
        )


@runtime_checkable
class Watch(Protocol):
    """One forward pass of a further term: taps that read, and then the term of each row from what they read."""

    @property
    def taps(self) -> Sequence[Tap]:
        """Reads above delta; none that replaces."""
        ...

    def loss(self, rows: Rows, log_p: Float[Tensor, "rows positions vocabulary"]) -> Float[Tensor, "rows"]:
        """The term of each row, from what was read and from the output at `rows.at`; 0 in the KL row."""
        ...


@runtime_checkable
class Running(Protocol):
    """A further term on the rows of one search."""

    def watch(self, rows: Rows) -> Watch:
        """For the next forward pass."""
        ...


@runtime_checkable
class Term(Protocol):
    """A further term of the loss, averaged over the rows of a group. `card` is plain data: all that the term depends on."""

    @property
    def card(self) -> dict[str, Any]:
        """Every setting."""
        ...

    def begin(self, model: Model, site: Site, facts: Sequence[Fact], rows: Rows) -> Running:
        """The term for these facts (in the order of `rows.fact`), read on the unedited model where it needs reading."""
        ...


@torch.enable_grad()
def search(
    model: Model,
    site: Site,
    groups: Sequence[Sequence[Fact]],
    contexts: Sequence[str],
    norms: Sequence[float],
    settings: ValueSettings,
    token: str,
    term: Term | None = None,
) -> list[Found]:
    """delta of every group, in one optimisation. Arguments as for `values.find_values`.

    Raises:
        EditError: a loss is not finite.
        SettingError: the bare context is missing.
    """
    if BARE not in contexts:
        raise SettingError(f"The contexts must hold the bare prompt (''), got {list(contexts)}.")
    with model.evaluating():
        rows = _rows(model, site, groups, contexts, settings, token)
        asked = [fact for group in groups for fact in group]
        running = None if term is None else term.begin(model, site, asked, rows)
        n, exact, device = len(groups), rows.before.dtype, model.device
        delta = torch.zeros(n, model.anatomy.width, dtype=exact, device=device, requires_grad=True)
        optimiser = torch.optim.Adam([delta], lr=settings.learning_rate)
        v_norms = torch.tensor(norms, dtype=exact, device=device)
        active, found = list(range(n)), dict[int, Found]()
        for step in range(settings.steps):
            loss, nll = _losses(model, site, rows, delta, v_norms, settings, running)
            losses, nlls = loss.detach().tolist(), nll.detach().tolist()  # the one wait for the device in a step
            if bad := [g for g in active if not abs(losses[g]) < float("inf")]:
                raise EditError(
                    f"The value search of {groups[bad[0]][0].text!r} diverged; lower the learning rate or use float32."
                )
            last = step == settings.steps - 1
            done = [
                g for g in active if last or losses[g] < settings.stop_below or (settings.skip_known and rows.known[g])
            ]
            for g in done:
                found[g] = Found(delta[g].detach().clone(), step + 1, losses[g], nlls[g], rows.known[g])
            active = [g for g in active if g not in done]
            if not active:
                break
            (delta.grad,) = torch.autograd.grad(loss[active].sum(), [delta])
            optimiser.step()
            with torch.no_grad():  # finished rows move on unread
                delta.mul_((settings.clamp * v_norms / delta.norm(dim=1).clamp(min=1e-30)).clamp(max=1.0)[:, None])
            if done:
                rows = rows.keep(active)
    return [found[g] for g in range(n)]


def _losses(
    model: Model,
    site: Site,
    rows: Rows,
    delta: Tensor,
    v_norms: Tensor,
    settings: ValueSettings,
    running: Running | None,
) -> tuple[Float[Tensor, "groups"], Float[Tensor, "groups"]]:
    """(loss, likelihood part) of each group; groups without rows get only the decay."""

    def add(tensor: Tensor) -> Tensor:
        first, rest = tensor[:, :1], tensor[:, 1:]
        return torch.cat([first + delta[rows.group].to(tensor.dtype)[:, None], rest], dim=1)

    if site.kind == "resid_out":
        start, resid, taps = site.layer + 1, add(rows.resid), []
    else:
        start, resid, taps = site.layer, rows.resid, [Tap(site, add)]
    watch = running and running.watch(rows)
    taps += watch.taps if watch else []
    logits = model.run(rows.batch, start=start, resid=resid, prefix=rows.prefix, at=rows.at, taps=taps)
    log_p = at_least_float32(logits).log_softmax(-1)
    told = -(log_p.gather(2, rows.answer[:, :, None])[:, :, 0] * rows.weight.to(log_p.dtype)).sum(1)
    # KL(now || before), the order of arguments of the published code
    now, before = log_p[rows.is_kl, 0], rows.before[rows.is_kl]
    kl = (now.exp() * (now - before)).sum(-1)
    nothing = torch.zeros(len(delta), dtype=delta.dtype, device=delta.device)
    nll = nothing.index_add(0, rows.group, told)
    kept = nothing.index_add(0, rows.group[rows.is_kl], kl)
    size = delta.norm(dim=1) if settings.decay else nothing
    loss = nll + settings.kl_factor * kept + settings.decay * size / v_norms**2
    if watch:
        further = watch.loss(rows, log_p).to(loss.dtype)
        count = nothing.index_add(0, rows.group, (~rows.is_kl).to(loss.dtype))
        loss = loss + nothing.index_add(0, rows.group, further) / count.clamp(min=1)
    return loss, nll


def _rows(
    model: Model,
    site: Site,
    groups: Sequence[Sequence[Fact]],
    contexts: Sequence[str],
    settings: ValueSettings,
    token: str,
) -> Rows:
    ids: list[tuple[int, ...]] = []
    pivots: list[int] = []
    reads: list[list[tuple[int, int, float]]] = []  # (position whose logits are read, token wanted there, weight)
    owner: list[int] = []
    asks: list[int] = []
    kl_rows: list[int] = []
    bare_rows: list[list[int]] = [[] for _ in groups]
    facts = 0
    for g, group in enumerate(groups):
        for fact in group:
            for context in contexts:
                if context == BARE:
                    bare_rows[g].append(len(ids))
                _, pivot = edited_token(model, context, fact, token)
                whole, begin = model.encode_answer(in_context(context, fact.text), str(fact.target_new))
                if begin <= pivot:
                    raise FactError(f"The subject of {fact.text!r} ends after its prompt does; check the prompt.")
                ids.append(whole[:-1])
                pivots.append(pivot)
                weight = 1 / ((len(whole) - begin) * len(contexts) * len(group))
                reads.append([(at - 1, whole[at], weight) for at in range(begin, len(whole))])
                owner.append(g)
                asks.append(facts)
            facts += 1
        kl_ids, kl_pivot = edited_token(model, BARE, Fact(subject=group[0].subject, prompt="{} is a"), token)
        kl_rows.append(len(ids))
        ids.append(kl_ids)
        pivots.append(kl_pivot)
        reads.append([(len(kl_ids) - 1 if settings.kl_at == "last" else kl_pivot, 0, 0.0)])
        owner.append(g)
        asks.append(-1)
    batch = align(ids, pivots).to(model.device)
    most = max(len(read) for read in reads)
    at, answer = torch.zeros(len(ids), most, dtype=torch.long), torch.zeros(len(ids), most, dtype=torch.long)
    weights = torch.zeros(len(ids), most, dtype=torch.float64)
    for row, read in enumerate(reads):
        shift = batch.column - pivots[row]
        for j in range(most):
            position, wanted, weight = read[j] if j < len(read) else (read[0][0], 0, 0.0)
            at[row, j], answer[row, j], weights[row, j] = position + shift, wanted, weight
    is_kl = torch.zeros(len(ids), dtype=torch.bool)
    is_kl[kl_rows] = True
    device = model.device
    at, answer, weights, is_kl = at.to(device), answer.to(device), weights.to(device), is_kl.to(device)
    with torch.no_grad():
        (prefix,) = model.run_prefixes(batch, [batch.column])
        entering = site if site.kind == "resid_out" else Site("resid_in", site.layer)
        start = site.layer + 1 if site.kind == "resid_out" else site.layer
        resid = model.record(batch, [entering], prefix=prefix)[entering]
        logits = at_least_float32(model.run(batch, start=start, resid=resid, prefix=prefix, at=at))
        right = (logits.argmax(-1) == answer) | (weights == 0)
        known = [bool(right[rows].all()) for rows in bare_rows]
        before = logits[:, 0].log_softmax(-1)
    group_of, fact_of = torch.tensor(owner, device=device), torch.tensor(asks, device=device)
    return Rows(batch, prefix, resid, group_of, fact_of, is_kl, at, answer, weights, before, known)
