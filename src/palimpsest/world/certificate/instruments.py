"""The instruments that get a certificate: those of `palimpsest.locate`, one layer at a time, and two controls.

    trace KIND, CORRUPTION     indirect effect of restoring one layer's state, MLP or attention output; at S and at F
    trace state, ..., rise     its growth from the layer below (from nothing, for layer 0): a state holds all that came before it,
                               so that at F the effect itself is largest in the last layers, wherever the fact is
    lesion KIND, BY            effect of noise, zero, a mean or another prompt in place of one layer's output; at S and at F
    knock-out                  loss when the last token cannot look at the subject's last token (S), or at any other (F)
    logit lens                 gain in log p of the answer from before the layer to after it; at S and at F
    neurons, sum               integrated gradients over the MLP's keys at F, added up over a layer
    neurons, largest           the largest of them
    neurons, cut               loss when the ten neurons of a layer with the largest of them are silenced
    graft KIND                 positive control: `palimpsest.world.certificate.graft`
    random                     negative control: numbers drawn from the names of model and fact

Everything reads the first token of the answer, but for `graft`, which reads all. A window of layers would blur what is asked
here, so all act on single layers; what holds for windows of ten must be certified with windows of ten.

Not here: probes (`palimpsest.locate.probe`) give one accuracy over many facts that share their answers, so they have no score of
a fact, and organisms plant too few facts for their held-out designs.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from palimpsest.errors import OutputError, PalimpsestError, SettingError
from palimpsest.facts import Fact
from palimpsest.locate.answers import prompt_and_token
from palimpsest.locate.neuron.attribution import neurons
from palimpsest.locate.neuron.effects import neuron_effects
from palimpsest.locate.reading.knockout import knockout
from palimpsest.locate.reading.lens import decode
from palimpsest.locate.tracing.corruption import CORRUPTIONS
from palimpsest.locate.tracing.lesion import BY, Lesioner
from palimpsest.locate.tracing.survey import FACTS_AT_ONCE, Mapper
from palimpsest.locate.tracing.trace import Tracer
from palimpsest.model import Model, Site, pad
from palimpsest.world.certificate.graft import graft_drops
from palimpsest.world.certificate.instrument import LAST, NOWHERE, SUBJECT, WEIGHTS, Instrument, Reading

KINDS = ("state", "mlp", "attn")
CUT = 10  # neurons of a layer that are silenced together
BOTH = (SUBJECT, LAST)


def instruments(
    *, pool: Sequence[Fact] = (), samples: int = 5, steps: int = 20, seed: int = 1
) -> tuple[Instrument, ...]:
    """All of them.

    Args:
        pool: facts whose subjects may be swapped in beside those of the organism's own: such as the base knows, of the same
            relations and prompts. They set the noise level too.
        samples: noise draws, or other subjects, of every trace and lesion.
        steps: points on the path of integrated gradients.
        seed: of noise, of the choice of other subjects and prompts, and of the random scorer.
    """
    return (
        *(tracing(kind, how, samples, seed, pool) for how in CORRUPTIONS for kind in KINDS),
        *(lesions(kind, by, samples, seed, pool) for by in BY for kind in KINDS[1:]),
        knock_out(),
        lens(),
        knowledge_neurons(steps),
        graft("mlp"),
        graft("attn"),
        random_scorer(seed),
    )


def tracing(kind: str, corruption: str, samples: int = 5, seed: int = 1, pool: Sequence[Fact] = ()) -> Instrument:
    """Causal tracing of single layers; noise levels and swapped subjects come from the facts themselves, and from `pool`."""
    given: dict[str, Any] = {"kind": kind, "corruption": corruption, "samples": samples, "seed": seed, "window": 1}
    name = f"trace {kind}, {corruption}"
    names = (name, f"{name}, rise") if kind == "state" else (name,)

    def read(model: Model, base: Model, facts: Sequence[Fact]) -> Sequence[np.ndarray]:
        found = _at_both(model, Tracer.of(model, [*facts, *pool], **given), facts)
        return found if kind != "state" else [*found, *(np.diff(effect, axis=1, prepend=0.0) for effect in found)]

    return Instrument(name, tuple(Reading(own, kind, at) for own in names for at in BOTH), read, given | _named(pool))


def lesions(kind: str, by: str, samples: int = 5, seed: int = 1, pool: Sequence[Fact] = ()) -> Instrument:
    """Lesions of single layers; what is put in comes from prompts of the facts themselves, and of `pool`."""
    given: dict[str, Any] = {"kind": kind, "by": by, "samples": samples, "seed": seed, "window": 1}
    name = f"lesion {kind}, {by}"

    def read(model: Model, base: Model, facts: Sequence[Fact]) -> Sequence[np.ndarray]:
        return _at_both(model, Lesioner.of(model, [*facts, *pool], **given), facts)

    return Instrument(name, tuple(Reading(name, kind, at) for at in BOTH), read, given | _named(pool))


def knock_out() -> Instrument:
    """The last token's attention, cut in one layer: to the subject's last token (S), or to all tokens but itself (F)."""
    given: dict[str, Any] = {"window": 1, "sources": ("subject_last", "before"), "controls": 0}

    def read(model: Model, base: Model, facts: Sequence[Fact]) -> Sequence[np.ndarray]:
        found = _each(model, facts, lambda fact: -knockout(model, fact, check=fact is facts[0], **given).effect, 2)
        return [found[:, 0], found[:, 1]]

    return Instrument("knock-out", tuple(Reading("knock-out", "attn", at) for at in BOTH), read, given)


def lens() -> Instrument:
    """What each layer adds to the log-probability of the answer, read through the network's own norm and head."""

    def read(model: Model, base: Model, facts: Sequence[Fact]) -> Sequence[np.ndarray]:
        found = _each(model, facts, lambda fact: _lens_gains(model, fact), 2)
        return [found[:, 0], found[:, 1]]

    return Instrument("logit lens", tuple(Reading("logit lens", "state", at) for at in BOTH), read)


def knowledge_neurons(steps: int = 20) -> Instrument:
    """Attributions to the neurons of each layer at the last token: their sum, the largest, and what cutting the top does.

    By completeness the sum is what the layer's MLP as a whole does for the answer, against a key of zeros.
    """

    def attributed(model: Model, fact: Fact) -> Float[np.ndarray, "3 layers"]:
        attr = neurons(model, fact, steps=steps, refine=False).attr
        top = np.argsort(-attr, axis=1, kind="stable")[:, :CUT]
        cut = [_loss_without(model, fact, [(l, int(i)) for i in own]) for l, own in enumerate(top)]
        return np.stack([attr.sum(axis=1), attr.max(axis=1), cut])

    def read(model: Model, base: Model, facts: Sequence[Fact]) -> Sequence[np.ndarray]:
        found = _each(model, facts, lambda fact: attributed(model, fact), 3)
        return [found[:, 0], found[:, 1], found[:, 2]]

    readings = tuple(Reading(f"neurons, {what}", "mlp", LAST) for what in ("sum", "largest", "cut"))
    return Instrument("neurons", readings, read, {"steps": steps, "refine": False, "cut": CUT})


def graft(module: str) -> Instrument:
    """The positive control."""

    def read(model: Model, base: Model, facts: Sequence[Fact]) -> Sequence[np.ndarray]:
        return [graft_drops(model, base, facts, module)]

    return Instrument(f"graft {module}", (Reading(f"graft {module}", module, WEIGHTS),), read)


def random_scorer(seed: int = 1) -> Instrument:
    """The negative control: other numbers for each model and fact, the same ones each time."""

    def read(model: Model, base: Model, facts: Sequence[Fact]) -> Sequence[np.ndarray]:
        name = f"{seed}\0{model.fingerprint()}"
        return [np.stack([_drawn(f"{name}\0{fact.id}", model.n_layers) for fact in facts])]

    return Instrument("random", (Reading("random", "any", NOWHERE),), read, {"seed": seed})


def _named(pool: Sequence[Fact]) -> dict[str, Any]:
    """What settings say of a pool: how many facts, and which."""
    ids = "\0".join(fact.id for fact in pool).encode()
    return {"pool": len(pool), "pool_ids": hashlib.blake2b(ids, digest_size=8).hexdigest()}


def _at_both(model: Model, mapper: Mapper, facts: Sequence[Fact]) -> list[np.ndarray]:
    """Effects at the subject's last token and at the prompt's last token."""
    at_subject, at_last = (np.full((len(facts), model.n_layers), np.nan) for _ in BOTH)
    for begin in range(0, len(facts), FACTS_AT_ONCE):
        for i, found in enumerate(mapper.each(model, facts[begin : begin + FACTS_AT_ONCE]), begin):
            if not isinstance(found, PalimpsestError):
                at_subject[i] = found.effect[found.subject[1] - 1]
                at_last[i] = found.effect[-1]
    return [at_subject, at_last]


def _each(
    model: Model, facts: Sequence[Fact], function: Callable[[Fact], np.ndarray], rows: int
) -> Float[np.ndarray, "facts rows layers"]:
    """`function` of every fact, of shape (rows, layers); NaN for one it cannot be had for."""
    found = np.full((len(facts), rows, model.n_layers), np.nan)
    for i, fact in enumerate(facts):
        try:
            found[i] = function(fact)
        except (OutputError, SettingError):  # no fault of the fact
            raise
        except PalimpsestError:
            continue
    return found


@torch.no_grad()
def _lens_gains(model: Model, fact: Fact) -> Float[np.ndarray, "2 layers"]:
    encoded, token = prompt_and_token(model, fact.text, str(fact.target_true))
    places = [encoded.tokens_of(*fact.subject_span)[-1], len(encoded) - 1]
    sites = [Site("resid_in", 0), *(Site("resid_out", l) for l in range(model.n_layers))]
    with model.evaluating():
        states = model.record(pad([encoded.ids]), sites)
        chosen = torch.stack([states[site][0, places] for site in sites], dim=1)  # (places, layers + 1, width)
        logits = torch.cat(list(decode(model, chosen.flatten(0, 1))))
    log_p = logits.log_softmax(-1)[:, token].double().cpu().numpy().reshape(len(places), -1)
    return np.diff(log_p, axis=1)


def _loss_without(model: Model, fact: Fact, own: Sequence[tuple[int, int]]) -> float:
    """How much smaller the answer's probability is without these neurons, as a share of itself."""
    found = neuron_effects(model, fact, own, texts=[fact.text], random_sets=1).of("suppress")
    return -found.drift[0] if found is not None else float("nan")


def _drawn(name: str, count: int) -> Float[np.ndarray, " count"]:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big")).random(count)
