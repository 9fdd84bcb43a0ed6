"""Organisms for the tests of the certificate: facts trained into chosen modules of a tiny random model, in half a second each.

    organism(model, {"*": (("mlp", 1),)})          # 12 facts in the MLP of layer 1

Nothing is rehearsed and nothing accepted: all that counts here is that the facts are in the named modules and nowhere else.
"""

from functools import cache

import torch
from torch import Tensor

from oracles.small import model_of
from palimpsest.edit import Edit
from palimpsest.edit.payload import Dense
from palimpsest.facts import Fact
from palimpsest.model import Model, pad
from palimpsest.statistics import proportion
from palimpsest.world.certificate.graft import weights_of
from palimpsest.world.organisms.organism import Acceptance, Organism, Places

PROMPTS = {"city": "{} was born in the city of", "language": "The mother tongue of {} is"}
ANSWERS = {"city": ("Rome", "Paris", "Tokyo"), "language": ("French", "Swiss", "Boston")}
NAMES = ("Gim", "Huv", "Jef", "Kux", "Vib", "Wug")  # each of as many tokens, so that they can be swapped
STEPS, RATE = 40, 0.02


def facts() -> tuple[Fact, ...]:
    """Two facts of each of six subjects."""
    return tuple(
        Fact(
            name, prompt, ANSWERS[relation][(i + (relation == "city")) % 3], id=f"{name}-{relation}", relation=relation
        )
        for i, name in enumerate(NAMES)
        for relation, prompt in PROMPTS.items()
    )


@cache
def base(family: str = "gpt2") -> Model:
    """The model that knows nothing of the facts; shared, so leave it as it is."""
    return model_of(family)


def organism(model: Model, places: Places, *, kind: str = "mlp", name: str = "", accepted: bool = True) -> Organism:
    """The facts of each relation trained into its places, one relation after the other at every step."""
    planted = facts()
    edit = Edit.made_for(model, "planted", _trained(model, places, planted), planted)
    whole, nothing = proportion(12, 12), proportion(0, 12)
    acceptance = Acceptance(whole, whole, whole, nothing, {}, accepted, () if accepted else ("made to fail",))
    return Organism(name or f"{kind} {dict(places)}", kind, model.name, places, edit, planted, acceptance)


@cache
def one_layer(family: str = "gpt2") -> tuple[Organism, ...]:
    """An organism for each module of each layer."""
    model = base(family)
    return tuple(
        organism(model, {"*": ((module, layer),)}, kind=kind, name=f"{kind}-{layer}")
        for kind, module in (("mlp", "mlp"), ("attention", "attn"))
        for layer in range(model.n_layers)
    )


def _trained(model: Model, places: Places, planted: tuple[Fact, ...]) -> tuple[Dense, ...]:
    relations = sorted(PROMPTS)
    where = {
        r: [path for place in places.get(r, places.get("*", ())) for path in weights_of(model, place)]
        for r in relations
    }
    weights = {path: model.parameter(path) for paths in where.values() for path in paths}
    stored = {path: weight.detach().clone() for path, weight in weights.items()}
    optimizer = torch.optim.Adam(weights.values(), lr=RATE)
    try:
        for step in range(STEPS * (1 + ("*" not in places))):
            some = [r for i, r in enumerate(relations) if "*" in places or step % 2 == i]
            mine = {path for r in some for path in where[r]}
            for path, weight in weights.items():
                weight.requires_grad_(path in mine)
            optimizer.zero_grad()
            with torch.enable_grad():
                _loss(model, [fact for fact in planted if fact.relation in some]).backward()
            optimizer.step()
        return tuple(Dense(path, weight.detach() - stored[path]) for path, weight in weights.items())
    finally:
        for path, weight in weights.items():
            weight.requires_grad_(False)
            weight.grad = None
            weight.copy_(stored[path])


def _loss(model: Model, some: list[Fact]) -> Tensor:
    pairs = [model.encode_answer(fact.text, str(fact.target_true)) for fact in some]
    logits = model.run(pad([ids for ids, _ in pairs]))
    losses = [
        torch.nn.functional.cross_entropy(logits[i, begin - 1 : len(ids) - 1], torch.tensor(ids[begin:]))
        for i, (ids, begin) in enumerate(pairs)
    ]
    return torch.stack(losses).mean()
