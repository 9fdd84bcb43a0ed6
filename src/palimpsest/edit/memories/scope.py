"""What belongs to an edit: a scope classifier over two sentence vectors (SERAC, Mitchell et al. 2022, section 3).

    p(x in scope of z) = exp(-|M (e(x) - e(z))|^2)      e: a sentence encoder, left as it is; M: learned; in scope from 1/2 on

That is the paper's embedding classifier with its scale inside M, of the facts' prompts alone (the published code may read their new
answers too). There the encoder itself is trained on tens of thousands of questions; here a matrix M, of facts given as examples:

    in scope        paraphrases of a fact's prompt
    out of scope    its neighbours, and the prompts of other facts: first those about the same subject

by the cross-entropy in which both kinds weigh alike. Half of the subjects teach. M begins as a multiple of the identity, the
one with the least loss, and is kept as it was at the step whose loss is least on a quarter of them. The last quarter reports.
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

LEAST = 8  # subjects: four teach, two choose, two report
THRESHOLD = 0.5  # from which on a prompt is in scope
OTHERS = 4  # prompts of other facts for each example
STEPS, LEARNING_RATE, DECAY = 300, 0.02, 1e-3
SCALES = 60


@dataclass(frozen=True)
class Lesson:
    """A prompt asked, the fact's prompt it is held against, and whether it belongs to it."""

    asked: str
    held: str
    inside: bool


@dataclass(frozen=True, eq=False)
class Scope:
    """What was learned, and how it does on subjects that neither taught nor chose.

    Attributes:
        matrix: M.
        report: "loss" and that of the first M, "missed" (share of paraphrases below one half), "taken" (share of the other prompts
            at or above it), each pair of texts by itself, and how many of both there are.
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
        own = {fact.text, *fact.paraphrases}
        found += [Lesson(text, fact.text, True) for text in dict.fromkeys(fact.paraphrases) if text != fact.text]
        found += [Lesson(text, fact.text, False) for text in dict.fromkeys(out) if text not in own]
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
        facts: examples; those without a paraphrase are passed over. None of them should be edited.
        seed: of the draws of other facts, and of who teaches, chooses and reports.

    Raises:
        InputError: paraphrases of fewer than 8 subjects; the encoder gives something else than rows of finite numbers.
    """
    able = [fact for fact in facts if any(text != fact.text for text in fact.paraphrases)]
    subjects = sorted({fact.subject for fact in able})
    if len(subjects) < LEAST:
        raise InputError(
            f"A scope is learned of facts with paraphrases, of at least {LEAST} subjects, got {len(subjects)}; give more examples."
        )
    random.Random(seed).shuffle(subjects)
    quarter = len(subjects) // 4
    parts = (subjects[2 * quarter :], subjects[:quarter], subjects[quarter : 2 * quarter])
    lots = [lessons([fact for fact in able if fact.subject in part], seed) for part in parts]
    texts = list(dict.fromkeys(text for lot in lots for one in lot for text in (one.asked, one.held)))
    rows = encoded(encoder, texts)
    at = {text: i for i, text in enumerate(texts)}
    sides = [
        (
            torch.stack([rows[at[one.asked]] - rows[at[one.held]] for one in lot]),
            torch.tensor([one.inside for one in lot]),
        )
        for lot in lots
    ]
    first, matrix = _trained(*sides[0], *sides[1])
    apart, inside = sides[2]
    taken = likeness(matrix, torch.zeros_like(apart), apart) >= THRESHOLD
    report = {
        "loss_before": float(cross_entropy(first, apart, inside)),
        "loss": float(cross_entropy(matrix, apart, inside)),
        "missed": float((~taken[inside]).double().mean()),
        "taken": float(taken[~inside].double().mean()),
        "in_scope": int(inside.sum()),
        "out_of_scope": int((~inside).sum()),
    }
    return Scope(matrix, report)


def _trained(apart: Tensor, inside: Tensor, held_apart: Tensor, held_inside: Tensor) -> tuple[Tensor, Tensor]:
    """M as it begins, and with the least loss on what is held out."""
    identity = torch.eye(apart.shape[1]).to(apart)
    size = apart.square().sum(-1).median().clamp(min=1e-12)
    scales = torch.logspace(-2, 3, SCALES).to(apart) / size
    losses = [float(cross_entropy(identity * scale.sqrt(), apart, inside)) for scale in scales]
    scale = scales[min(range(SCALES), key=losses.__getitem__)].sqrt()
    first = best = identity * scale
    least = float(cross_entropy(first, held_apart, held_inside))
    change = torch.zeros_like(identity, requires_grad=True)  # in units of the first scale
    optimiser = torch.optim.Adam([change], lr=LEARNING_RATE)
    with torch.enable_grad():
        for _ in range(STEPS):
            optimiser.zero_grad()
            loss = cross_entropy(first + scale * change, apart, inside) + DECAY * change.square().sum()
            loss.backward()
            optimiser.step()
            now = (first + scale * change).detach()
            held = float(cross_entropy(now, held_apart, held_inside))
            if held < least:
                best, least = now, held
    return first, best
