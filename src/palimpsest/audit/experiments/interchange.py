"""What a subject's relations lose when what a module wrote at its last token is exchanged, whole or in the readable part only.

    whole      v <- v_d                     v_d: the same output for another subject d of the relation, in the same prompt
    readable   v <- v + P (v_d - v)         P: projection on the span of d (logit_x - mean_x logit_x) / d v over answers x
    random     v <- v + R (v_d - v)         R: projection on a random space of the same dimension (null N3)

The span is what the rest of the model reads of v to tell the answers of *one* relation apart, to first order (the relation's
Jacobian). If the attribute is stored in v for that relation, exchanging the readable part changes its answer and spares the
subject's other relations; if v carries who the subject is, all of them change together or none does (validity tests T1, T2 and
T5 of storage against entity bottleneck).

    lost      log-odds of the answer, clean minus exchanged, mean over d
    moved     how far logit_o(d) - logit_o(s) went of the way to what it is for d itself
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.audit.bench import Bench
from palimpsest.audit.experiments.read_out import OUTPUTS, Question, question, through
from palimpsest.audit.setting import SUBJECT
from palimpsest.errors import InputError
from palimpsest.facts import Fact
from palimpsest.locate.precision import at_least_float32
from palimpsest.locate.tracing.corruption import seed_of
from palimpsest.model import Model, Site, Tap, pad

HOW = ("whole", "readable", "random")
POOL = 6  # answers beside the own one that span the readable part
DONORS = 4
RELATIONS = 4  # of the same subject beside the target
THIN = 1e-3  # singular values below this share of the largest are rounding

Table = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, eq=False)
class Span:
    """The readable part of a site by layer: orthonormal columns."""

    of: Mapping[Site, Float[Tensor, "width rank"]]

    @property
    def rank(self) -> int:
        """Dimension of the first layer's."""
        return int(next(iter(self.of.values())).shape[1])


def known_answers(facts: Sequence[Fact]) -> dict[str, dict[str, str]]:
    """Prompt with a hole -> subject -> answer: all that the facts and their probes tell."""
    table: dict[str, dict[str, str]] = {}
    for fact in facts:
        told: list[tuple[str, str | None, str | None]] = [(fact.text, fact.subject, fact.target_true)]
        told += [(probe.prompt, fact.subject, probe.answer) for probe in fact.same_subject]
        told += [(probe.prompt, probe.subject, probe.answer) for probe in fact.neighbours]
        for text, subject, answer in told:
            if subject and answer and text.count(subject) == 1:
                table.setdefault(text.replace(subject, "{}"), {}).setdefault(subject, answer)
    return table


def asked_of(fact: Fact, table: Table, most: int = RELATIONS) -> list[Fact]:
    """The subject's other relations, of which another subject's answer is told too, in a fixed order."""
    others = [
        Fact(fact.subject, prompt, answers[fact.subject], relation=prompt)
        for prompt, answers in sorted(table.items())
        if prompt != fact.prompt and fact.subject in answers and len({*answers.values()}) > 1
    ]
    return sorted(others, key=lambda one: _draw(f"{fact.id}\0{one.prompt}"))[:most]


def donors_of(fact: Fact, table: Table, most: int = DONORS) -> tuple[str, ...]:
    """Other subjects of the fact's prompt with another answer; first those of which most other relations are told."""
    answers = table.get(fact.prompt, {})
    own = {prompt for prompt, told in table.items() if fact.subject in told}
    fits = [subject for subject, answer in answers.items() if subject != fact.subject and answer != fact.target_true]
    shared = {subject: sum(subject in table[prompt] for prompt in own) for subject in fits}
    return tuple(sorted(fits, key=lambda subject: (-shared[subject], _draw(f"{fact.id}\0{subject}")))[:most])


def place_sites(bench: Bench) -> list[Site]:
    """The outputs of the place's modules."""
    place = bench.setting.place
    return [Site(OUTPUTS[place.module], layer) for layer in place.layers(bench.model.n_layers)]


def readable(model: Model, asked: Question, sites: Sequence[Site]) -> Span | None:
    """The span of what tells the answers apart; None where there is but one answer."""
    if len(asked.tokens) < 2:
        return None
    _, slopes = through(model, asked, sites)  # (answers, sites, width)
    spans: dict[Site, Tensor] = {}
    for i, site in enumerate(sites):
        centred = slopes[:, i] - slopes[:, i].mean(dim=0)
        _, size, directions = torch.linalg.svd(centred.double(), full_matrices=False)
        spans[site] = directions[size > THIN * size[0].clamp_min(1e-30)].T.to(slopes)
    return Span(spans)


def random_span(span: Span, fact: Fact, seed: int) -> Span:
    """A random one of the same dimensions."""
    draw = torch.Generator().manual_seed(seed_of(fact, seed))
    made = {
        site: torch.linalg.qr(torch.randn(basis.shape, generator=draw, dtype=torch.float64))[0].to(basis)
        for site, basis in span.of.items()
    }
    return Span(made)


def exchanged(
    model: Model,
    one: Fact,
    table: Table,
    donors: Sequence[str],
    sites: Sequence[Site],
    spans: Mapping[str, Span | None],
) -> dict[str, Any] | None:
    """One relation of the subject under every exchange; None where it cannot be asked of it and of a donor.

    Args:
        one: the question.
        table: gives the donors' own answers.
        donors: subjects whose outputs are put in.
        sites: where.
        spans: by name of the exchange; None for the whole.
    """
    own, rows = _alone(model, one), list[tuple[Fact, Question]]()
    for subject in donors:
        answer = table.get(one.prompt, {}).get(subject, one.target_true)
        found = _alone(model, Fact(subject, one.prompt, answer, relation=one.relation))
        if found is not None:
            rows.append((Fact(subject, one.prompt, answer), found))
    if own is None or not rows:
        return None
    token, (place, clean_values, clean) = next(iter(own.tokens.values())), _run(model, [own], sites)
    _, donor_values, of_donors = _run(model, [found for _, found in rows], sites)
    tells = [next(iter(found.tokens.values())) for _, found in rows]
    differ = [i for i, told in enumerate(tells) if told != token and rows[i][0].subject in table.get(one.prompt, {})]
    result: dict[str, Any] = {"known": int(clean[0].argmax()) == token, "clean": log_odds(clean[0], token)}
    for how, span in spans.items():
        puts = {site: _put(clean_values[site][0], donor_values[site], span, site) for site in sites}
        logits = _exchange(model, own, puts, place[0])
        result[how] = {"lost": result["clean"] - sum(log_odds(row, token) for row in logits) / len(logits)}
        if differ:
            went = [_gap(logits[i], tells[i], token) - _gap(clean[0], tells[i], token) for i in differ]
            way = [_gap(of_donors[i], tells[i], token) - _gap(clean[0], tells[i], token) for i in differ]
            result[how] |= {"went": sum(went) / len(went), "way": sum(way) / len(way)}
    return result


def log_odds(logits: Float[Tensor, " vocabulary"], token: int) -> float:
    """log p - log (1 - p) of a token."""
    rest = logits.clone()
    rest[token] = -torch.inf
    return float(logits[token] - rest.logsumexp(-1))


def _alone(model: Model, one: Fact) -> Question | None:
    try:
        return question(model, one, (), 0)
    except InputError:
        return None


def _run(
    model: Model, asked: Sequence[Question], sites: Sequence[Site]
) -> tuple[list[int], dict[Site, Float[Tensor, "rows width"]], Float[Tensor, "rows vocabulary"]]:
    """(position of the subject's last token, outputs there, logits) of some prompts."""
    at = [one.at[SUBJECT] for one in asked]
    batch, kept = pad([one.ids for one in asked]), dict[Site, Tensor]()

    def keep(site: Site, tensor: Tensor) -> None:
        kept[site] = tensor[torch.arange(len(at)), at].clone()

    taps = [Tap(site, lambda tensor, site=site: keep(site, tensor)) for site in sites]  # type: ignore[misc]
    with torch.no_grad(), model.evaluating():
        logits = model.run(batch, at=batch.last[:, None].to(model.device), taps=taps)[:, 0]
    return at, kept, at_least_float32(logits).cpu()


def _put(
    own: Float[Tensor, " width"], donors: Float[Tensor, "donors width"], span: Span | None, site: Site
) -> Float[Tensor, "donors width"]:
    if span is None:
        return donors
    basis = span.of[site].to(own)
    return own + (donors - own) @ basis @ basis.T


def _exchange(
    model: Model, asked: Question, puts: Mapping[Site, Float[Tensor, "donors width"]], at: int
) -> Float[Tensor, "donors vocabulary"]:
    def replace(tensor: Tensor, value: Tensor) -> Tensor:
        changed = tensor.clone()
        changed[:, at] = value
        return changed

    rows = len(next(iter(puts.values())))
    batch = pad([asked.ids] * rows)
    taps = [Tap(site, lambda tensor, value=value: replace(tensor, value)) for site, value in puts.items()]  # type: ignore[misc]
    with torch.no_grad(), model.evaluating():
        logits = model.run(batch, at=batch.last[:, None].to(model.device), taps=taps)[:, 0]
    return at_least_float32(logits).cpu()


def _gap(logits: Float[Tensor, " vocabulary"], to: int, of: int) -> float:
    return float(logits[to] - logits[of])


def _draw(name: str) -> bytes:
    return blake2b(name.encode(), digest_size=8).digest()


__all__ = [
    "HOW",
    "POOL",
    "Span",
    "Table",
    "asked_of",
    "donors_of",
    "exchanged",
    "known_answers",
    "log_odds",
    "place_sites",
    "random_span",
    "readable",
]
