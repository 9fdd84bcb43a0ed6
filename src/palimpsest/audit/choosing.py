"""Which facts an audit stands on: gated, spread over relations, and split by subject into those that choose and those that report.

    known        right on two of three wordings, and p(answer) at least 0.2 after the prompt
    recalled     the subject matters: other subjects of the relation give the answer at most half that probability. What a model
                 says whatever the subject is a guess from the relation, and a trace of it shows something else (Saynova et al.
                 2024, arXiv 2410.14405)
    told apart   answer and foil begin with different tokens, or a logit difference says nothing

No subject is in both splits: what was chosen on some facts of a subject is not reported on others of it. A third chooses.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from palimpsest.errors import InputError
from palimpsest.facts import Fact
from palimpsest.locate.answers import first_token, next_token_logits
from palimpsest.locate.known import FACTS_AT_ONCE, ask_each, knowledge
from palimpsest.model import Model
from palimpsest.runs import Progress

SIZES = {"smoke": 18, "standard": 300, "full": 600}  # facts, of both splits
LEAST = {"smoke": 6, "standard": 30, "full": 120}
A_RELATION = {"smoke": 4, "standard": 30, "full": 60}  # facts of one relation at most
CHOOSE = 3  # one fact in so many chooses
LEAST_P, OTHERS, PRIOR = 0.2, 3, 0.5
CANDIDATES = 4  # facts asked for each that is wanted


@dataclass(frozen=True)
class Chosen:
    """The facts of an audit.

    Attributes:
        discovery, confirmation: who chooses and who reports.
        left_out: id to the sentence that says which gate a fact failed; these are shown, not dropped.
        asked: how many facts were asked.
    """

    discovery: tuple[Fact, ...]
    confirmation: tuple[Fact, ...]
    left_out: Mapping[str, str]
    asked: int

    @property
    def facts(self) -> dict[str, Fact]:
        """All of them by id."""
        return {fact.id: fact for fact in (*self.discovery, *self.confirmation)}


def choose(
    model: Model, facts: Sequence[Fact], size: str = "standard", *, seed: int = 0, progress: Progress | None = None
) -> Chosen:
    """Gate, spread and split.

    Args:
        model: is asked.
        facts: with true and new answers; usually many more than the size wants.
        size: one of `SIZES`.
        seed: of the order in which facts are taken and of the split.
        progress: is told how many were asked.

    Raises:
        InputError: fewer facts than the size needs passed.
    """
    queue, passed = spread(facts, A_RELATION[size], seed), list[Fact]()
    left_out: dict[str, str] = {}
    asked = 0
    for begin in range(0, len(queue), FACTS_AT_ONCE):
        chunk = queue[begin : begin + FACTS_AT_ONCE]
        failed = gated(model, chunk)
        left_out |= failed
        passed += [fact for fact in chunk if fact.id not in failed]
        asked += len(chunk)
        if progress:
            progress(min(len(passed), SIZES[size]), SIZES[size], "facts that pass the gates")
        if len(passed) >= SIZES[size]:
            break
    passed = passed[: SIZES[size]]
    discovery, confirmation = split(passed, seed)
    if len(confirmation) < LEAST[size]:
        raise InputError(
            f"An audit of size {size!r} needs {LEAST[size]} facts that report, got {len(confirmation)} of {len(facts)} given "
            f"({len(left_out)} failed a gate); give more facts that the model knows"
            f"{'' if size == 'smoke' else ', or choose a smaller size'}."
        )
    return Chosen(tuple(discovery), tuple(confirmation), left_out, asked)


def spread(facts: Sequence[Fact], a_relation: int, seed: int) -> list[Fact]:
    """Relation after relation in a drawn order, at most `CANDIDATES` times `a_relation` of each: the relations come evenly."""
    by_relation: dict[str, list[Fact]] = {}
    for fact in random.Random(seed).sample(list(facts), len(facts)):
        by_relation.setdefault(fact.relation, []).append(fact)
    queues = [own[: CANDIDATES * a_relation] for own in by_relation.values()]
    order: list[Fact] = []
    while any(queues):
        order += [own.pop(0) for own in queues if own]
    return order


def split(facts: Sequence[Fact], seed: int) -> tuple[list[Fact], list[Fact]]:
    """One subject in three to those that choose, spread over the relations; none in both."""
    chooses: dict[str, bool] = {}
    for fact in spread(facts, len(facts), seed):
        if fact.subject not in chooses:
            chooses[fact.subject] = len(chooses) % CHOOSE == CHOOSE - 1
    discovery = [fact for fact in facts if chooses[fact.subject]]
    return discovery, [fact for fact in facts if not chooses[fact.subject]]


def gated(model: Model, facts: Sequence[Fact]) -> dict[str, str]:
    """Id to reason, of the facts that fail a gate."""
    reasons: dict[str, str] = {}
    able: list[Fact] = []
    for fact in facts:
        if fact.target_true is None or fact.target_new is None:
            reasons[fact.id] = "it has no true or no new answer"
        elif first_token(model, fact.text, fact.target_true) == first_token(model, fact.text, fact.target_new):
            reasons[fact.id] = "its two answers begin with the same token"
        elif len(fact.wordings) < 2:
            reasons[fact.id] = "it has a single wording"
        else:
            able.append(fact)
    answers, failures = ask_each(knowledge, model, able)
    reasons |= {able[i].id: reason for i, reason in failures.items()}
    known = []
    for i, found in answers.items():
        if not found.known:
            reasons[able[i].id] = "the model does not know it"
        elif found.probability[0] < LEAST_P:
            reasons[able[i].id] = (
                f"its answer has probability {found.probability[0]:.2f} after the prompt, below {LEAST_P}"
            )
        else:
            known.append((able[i], found.probability[0]))
    pool: dict[str, list[str]] = {}
    for fact in facts:
        pool.setdefault(fact.relation, []).append(fact.subject)
    for fact, p in known:
        others = [name for name in dict.fromkeys(pool[fact.relation]) if name != fact.subject][:OTHERS]
        if not others:
            continue
        texts = [fact.prompt.replace("{}", name) for name in others]
        token = first_token(model, fact.text, str(fact.target_true))
        prior = float(next_token_logits(model, texts).softmax(-1)[:, token].mean())
        if prior > PRIOR * p:
            reasons[fact.id] = f"other subjects give its answer a probability of {prior:.2f}, it itself {p:.2f}"
    return reasons
