"""The two models whose edits `experiments/forensics.py` looks at: facts, methods, candidates, and copies that nobody edited.

world       as it was trained
smollm2     its shipped weights lie on a quantiser's grid, of which any edit would stand out without any forensics; so every
            matrix first gets noise, uniform over one step of the grid (`off_grid`): such a model could have been trained
"""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

import palimpsest as pal
from palimpsest.erase.forensics.decode import PROMPTS
from palimpsest.facts import Fact, read_facts, shipped_text
from palimpsest.locate.known import knowledge
from palimpsest.model import Model, pad
from palimpsest.world import made_world
from palimpsest.world.records import record
from palimpsest.world.relations import relations

CANDIDATES = 1000
Copy = Callable[[Model, Sequence[Fact], int], AbstractContextManager[Model]]
BLOCK = 32  # weights that share one step of the grid


@dataclass(frozen=True)
class Study:
    """One model and what is done to it.

    Attributes:
        load: the model that is edited, the same at every call.
        facts: what may be edited, in an order drawn once; known ones are kept.
        methods: by name, a method and its settings.
        decoded: methods whose edits stand at the subject's last token, which is where `decode` looks.
        choose, each: the first `choose` of `each` edits choose thresholds, the others are reported.
        prompts: sets of prompts to decode the answer with, by name.
        moments: methods whose edits are scanned again with second moments of the edited model's own keys.
        copies: by kind, how many models that hold no rank-one edit, and a context in which one of them is to be had.
        again: so many of each kind of copy are scanned with moments too.
    """

    load: Callable[[], Model]
    facts: Callable[[], Sequence[Fact]]
    methods: Mapping[str, tuple[str, Mapping[str, Any]]]
    decoded: tuple[str, ...]
    choose: int
    each: int
    names: Callable[[], tuple[set[str], set[str]]]
    prompts: Mapping[str, Sequence[str]]
    moments: tuple[str, ...]
    copies: Mapping[str, tuple[int, Copy]]
    again: int


def known(study: Study, model: Model) -> list[Fact]:
    """The first facts that the model knows."""
    some = study.facts()
    return [fact for fact, found in zip(some, knowledge(model, some), strict=True) if found.known][: study.each]


def candidates(study: Study, model: Model) -> tuple[list[str], list[str]]:
    """Subjects and answers: those of all facts, filled up with words of the vocabulary to `CANDIDATES`."""
    tokens = [model.tokenizer.convert_tokens_to_string([token]) for token in sorted(model.tokenizer.get_vocab())]
    words = [token.strip() for token in dict.fromkeys(tokens) if token.startswith(" ") and token.strip()]
    random.Random(0).shuffle(words)
    subjects, objects = study.names()
    return [list(dict.fromkeys([*sorted(some), *words]))[:CANDIDATES] for some in (subjects, objects)]  # type: ignore[return-value]


def shuffled(facts: Sequence[Fact], count: int) -> list[Fact]:
    """The first `count` of an order drawn once."""
    order = list(facts)
    random.Random(0).shuffle(order)
    return order[:count]


@torch.no_grad()
def off_grid(seed: int) -> Model:
    """smollm2 with noise of one step of its grid: uniform within half the smallest distance of two levels of a block."""
    model, generator = pal.load("smollm2", check=False), torch.Generator().manual_seed(seed)
    for weight in model.net.parameters():
        if weight.dim() == 2:
            blocks = weight.reshape(-1, BLOCK)
            steps, size = blocks.sort(1).values.diff(dim=1), blocks.abs().amax(1, keepdim=True)
            step = torch.where(steps > 1e-4 * size, steps, torch.inf).amin(1, keepdim=True)
            step = torch.where(step.isfinite(), step, 0.0)
            weight.add_(((torch.rand(blocks.shape, generator=generator) - 0.5) * step).reshape(weight.shape))
    return model


def trained(model: Model, texts: Sequence[str], seed: int, steps: int, rows: int, rate: float = 1e-4) -> Model:
    """The model itself, after a few steps of AdamW on every weight."""
    draw = random.Random(seed)
    model.net.requires_grad_(True)
    optimiser = torch.optim.AdamW(model.net.parameters(), lr=rate)
    for _ in range(steps):
        batch = pad([model.encode(text).ids for text in draw.sample(list(texts), rows)])
        labels = batch.ids.masked_fill(batch.mask == 0, -100)
        optimiser.zero_grad()
        model.net(input_ids=batch.ids, attention_mask=batch.mask, labels=labels).loss.backward()
        optimiser.step()
    model.net.requires_grad_(False)
    return model


def fine_tuned(**settings: Any) -> Copy:
    """Copies trained on one fact each."""
    return lambda model, facts, i: pal.edit(model, [facts[i]], method="ft", **settings).applied(model)


def named(*names: str) -> Copy:
    """Shipped models."""
    return lambda model, facts, i: nullcontext(pal.load(names[i], check=False))


def world_text(model: Model, facts: Sequence[Fact], i: int) -> AbstractContextManager[Model]:
    """`world` after some of its own facts' plain sentences."""
    texts = [f"{fact.text} {fact.target_true}." for fact in made_world().records()]
    return nullcontext(trained(pal.load("world", check=False), texts, i, steps=20, rows=16))


def plain_text(model: Model, facts: Sequence[Fact], i: int) -> AbstractContextManager[Model]:
    """smollm2, off its grid, after some paragraphs of the shipped text."""
    texts = [text[:400] for text in shipped_text().split("\n") if len(text) > 200]
    return nullcontext(trained(off_grid(0), texts, i, steps=10, rows=4))


def world_names() -> tuple[set[str], set[str]]:
    """Every name of the world, and every object of its facts."""
    return set(made_world().names), {fact.object for fact in made_world().facts}


def questions() -> list[str]:
    """One prompt a relation of the world: none says which relation was edited."""
    world = made_world()
    first = {fact.relation: fact for fact in world.facts}
    return [record(world, first[name]).prompt for name in relations() if name in first]


def shipped() -> list[Fact]:
    """The shipped facts with a new answer."""
    return [fact for fact in read_facts("shipped").facts if fact.target_new]


def shipped_names() -> tuple[set[str], set[str]]:
    """Subjects, old and new answers of the shipped facts."""
    return {fact.subject for fact in shipped()}, {str(o) for f in shipped() for o in (f.target_true, f.target_new)}


def studies() -> dict[str, Study]:
    """Both. In `world` `decode` needs edits at the subject's last token, and `palimpsest edit` makes them at the last one: four ways."""
    return {
        "world": Study(
            load=lambda: pal.load("world", check=False),
            facts=lambda: shuffled(made_world().records(), 400),
            methods={
                "rome": ("rome", {"layers": (3,), "token": "subject_last"}),
                "memit": (
                    "memit",
                    {"layers": (0, 1, 2), "token": "subject_last", "clamp": 4.0, "moment_weight": 100.0},
                ),
                "rome, last token": ("rome", {}),
                "memit, last token": ("memit", {}),
            },
            decoded=("rome", "memit"),
            choose=50,
            each=100,
            names=world_names,
            prompts={"object": questions()},
            moments=("rome", "memit", "rome, last token", "memit, last token"),
            copies={
                "unedited": (4, named("world", "world-seed1", "world-plain", "world-llama")),
                "fixed": (20, fine_tuned(preset="fixed")),
                "ft-l, bound 0.001": (20, fine_tuned(preset="ft-l", epsilon=1e-3)),
                "trained on text": (20, world_text),
            },
            again=20,
        ),
        "smollm2": Study(
            load=lambda: off_grid(0),
            facts=lambda: shuffled(shipped(), 200),
            methods={"rome": ("rome", {}), "memit": ("memit", {})},
            decoded=("rome", "memit"),
            choose=10,
            each=31,
            names=shipped_names,
            prompts={"object": PROMPTS, "object, own prompts": sorted({fact.prompt for fact in shipped()})},
            moments=("memit",),
            copies={
                "unedited": (10, lambda model, facts, i: nullcontext(off_grid(i))),
                "fixed": (6, fine_tuned(preset="fixed")),
                "ft-l": (6, fine_tuned(preset="ft-l")),
                "trained on text": (4, plain_text),
            },
            again=1,  # a minute and a half each
        ),
    }
