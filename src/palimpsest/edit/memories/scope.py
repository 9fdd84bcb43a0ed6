"""What belongs to an edit: a scope classifier over two sentence vectors (SERAC, Mitchell et al. 2022, section 3).

    p(x in scope of z) = exp(-|M (e(x) - e(z))|^2)      e: a sentence encoder, left as it is; M: trained; in scope above 1/2

That is the paper's embedding classifier with its learned scale inside M. There the encoder itself is trained on tens of thousands
of questions; here a matrix M, of the facts that are given as examples, each with

    in scope        its prompt, its paraphrases
    out of scope    its neighbours, and the prompts of other facts: first those about the same subject

by the cross-entropy in which both kinds weigh alike. M begins as a multiple of the identity, the one with the least loss, and is
kept as it was at the step whose loss is least on a quarter of the subjects, from which it does not learn.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from palimpsest.edit.memories.retrieve import Encoder, encoded
from palimpsest.errors import InputError
from palimpsest.facts import Fact

LEAST = 8  # subjects; a quarter of them judge
HELD_OUT = 4  # one subject in so many
OTHERS = 4  # prompts of other facts for each example
STEPS, LEARNING_RATE, DECAY = 300, 0.02, 1e-3
SCALES = 60


@dataclass(frozen=True)
class Lesson:
    """A prompt asked, the fact's prompt it is held against, whether it belongs to it, and the fact's subject."""

    asked: str
    held: str
    inside: bool
    subject: str


@dataclass(frozen=True, eq=False)
class Scope:
    """What was learned, and how it does on subjects it did not learn from.

    Attributes:
        matrix: M.
        report: "loss" before and after, "missed" (share in scope that is not taken), "taken" (share out of scope that is), and how
            many lessons each is of.
    """

    matrix: Float[Tensor, "width width"]
    report: dict[str, float]


def lessons(facts: Sequence[Fact], seed: int = 0) -> list[Lesson]:
    """Every lesson that the examples hold, in a fixed order."""
    found = []
    for fact in facts:
        near = [one for one in facts if one.subject == fact.subject and one.text != fact.text]
        far = [one for one in facts if one.subject != fact.subject]
        far = random.Random(f"{seed}/{fact.id}").sample(far, min(OTHERS, len(far)))
        out = [probe.prompt for probe in fact.neighbours] + [one.text for one in (*near, *far)][:OTHERS]
        inside = dict.fromkeys((fact.text, *fact.paraphrases))
        found += [Lesson(text, fact.text, True, fact.subject) for text in inside]
        found += [Lesson(text, fact.text, False, fact.subject) for text in dict.fromkeys(out) if text not in inside]
    return found


def likeness(
    matrix: Float[Tensor, "width width"], held: Float[Tensor, "rows width"], asked: Float[Tensor, "*rows width"]
) -> Float[Tensor, "rows"]:
    """p of each row: exp(-|M (e(x) - e(z))|^2)."""
    return torch.exp(-((asked - held) @ matrix.T).square().sum(-1))


def cross_entropy(
    matrix: Float[Tensor, "width width"], apart: Float[Tensor, "rows width"], inside: Bool[Tensor, "rows"]
) -> Float[Tensor, ""]:
    """(mean of -log p over what is in scope + mean of -log(1 - p) over what is not) / 2."""
    squared = (apart @ matrix.T).square().sum(-1)
    away = -torch.log(-torch.expm1(-squared[~inside].clamp(min=1e-6)))  # finite where two texts have one vector
    return (squared[inside].mean() + away.mean()) / 2


def fitted(encoder: Encoder, facts: Sequence[Fact], seed: int = 0) -> Scope:
    """M, learned of examples.

    Args:
        encoder: one row a text; left as it is.
        facts: examples, with paraphrases and neighbours; none of them should be edited.
        seed: of the draws of other facts and of the subjects that judge.

    Raises:
        InputError: fewer than 8 subjects, or no paraphrase; the encoder gives something else than rows of finite numbers.
    """
    subjects = sorted({fact.subject for fact in facts})
    if len(subjects) < LEAST:
        raise InputError(
            f"A scope is learned of the facts of at least {LEAST} subjects, of which a quarter judge, got {len(subjects)}; "
            "give more examples."
        )
    if not any(fact.paraphrases for fact in facts):
        raise InputError("A scope is learned of facts with paraphrases, and none of the examples has one; give others.")
    judges = set(random.Random(seed).sample(subjects, len(subjects) // HELD_OUT))
    taught = lessons([fact for fact in facts if fact.subject not in judges], seed)
    judging = lessons([fact for fact in facts if fact.subject in judges], seed)
    texts = list(dict.fromkeys(text for one in (*taught, *judging) for text in (one.asked, one.held)))
    rows = encoded(encoder, texts)
    at = {text: i for i, text in enumerate(texts)}

    def apart(some: Sequence[Lesson]) -> tuple[Tensor, Tensor]:
        differences = [rows[at[one.asked]] - rows[at[one.held]] for one in some]
        return torch.stack(differences), torch.tensor([one.inside for one in some])

    matrix, before, after = _trained(*apart(taught), *apart(judging))
    difference, inside = apart(judging)
    answered = likeness(matrix, torch.zeros_like(difference), difference) > 0.5
    report = {
        "loss_before": before,
        "loss": after,
        "missed": float((~answered[inside]).double().mean()),
        "taken": float(answered[~inside].double().mean()),
        "in_scope": int(inside.sum()),
        "out_of_scope": int((~inside).sum()),
    }
    return Scope(matrix, report)


def _trained(apart: Tensor, inside: Tensor, held_apart: Tensor, held_inside: Tensor) -> tuple[Tensor, float, float]:
    """M with the least loss on what is held out, that loss at the first step, and at the one chosen."""
    width = apart.shape[1]
    size = apart.square().sum(-1).median().clamp(min=1e-12)
    scales = torch.logspace(-2, 3, SCALES) / size
    losses = [float(cross_entropy(torch.eye(width) * scale.sqrt(), apart, inside)) for scale in scales]
    scale = scales[min(range(SCALES), key=losses.__getitem__)].sqrt()
    start = torch.eye(width) * scale
    change = torch.zeros(width, width, requires_grad=True)  # in units of the first scale
    optimiser = torch.optim.Adam([change], lr=LEARNING_RATE)
    best, first = start, float(cross_entropy(start, held_apart, held_inside))
    least = first
    with torch.enable_grad():
        for _ in range(STEPS):
            optimiser.zero_grad()
            loss = cross_entropy(start + scale * change, apart, inside) + DECAY * change.square().sum()
            loss.backward()
            optimiser.step()
            now = (start + scale * change).detach()
            held = float(cross_entropy(now, held_apart, held_inside))
            if held < least:
                best, least = now.clone(), held
    return best, first, least
