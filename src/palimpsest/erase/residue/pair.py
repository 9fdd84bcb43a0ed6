"""A pair (subject, answer): what a readout is asked about, and which of three groups it stands in.

    edited         the edited subject and its old answer: does the old text still show?
    same answer    another subject of the relation, never edited, whose own answer is a different one, with that same old
                   answer: how readable the answer is at any subject, because it is a likely word
    never known    a subject whose true answer the model never knew, edited in the same way: how readable a true answer is that
                   was never written

A readout scores how far the answer stands above the relation's other answers, so that scores of different answers, layers and
wordings are of one kind:

    advantage = log p(answer) - mean over others of log p(other)      in nats

The normaliser of the softmax cancels: only logits of the few answers are needed. Both control groups say what advantage there is
without anything to erase; Patil, Hase and Bansal (2024) and Xie et al. (2025) report recovery without such a base rate.
"""

from dataclasses import dataclass

from palimpsest.errors import FactError
from palimpsest.facts import Fact

EDITED, SAME_ANSWER, NEVER_KNOWN = GROUPS = ("edited", "same answer", "never known")


@dataclass(frozen=True)
class Pair:
    """One subject and one answer.

    Attributes:
        fact: whose wordings ask, and whose subject and relation are the clusters of every interval.
        answer: the answer whose readability is measured.
        others: other answers of the relation, which it is compared with; at least one.
        group: "edited", "same answer" or "never known".
        of: the id of the edited fact this pair belongs to: under whose edit it is read (its own id in the first and last group).
    """

    fact: Fact
    answer: str
    others: tuple[str, ...]
    group: str
    of: str

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise FactError(f"The group of a pair must be one of {', '.join(GROUPS)}, got {self.group!r}.")
        if not self.others or self.answer in self.others:
            raise FactError(
                f"The answer {self.answer!r} of {self.fact.text!r} must be compared with at least one other answer, got "
                f"{list(self.others)}; give more facts of the relation {self.fact.relation!r}."
            )
