"""Locality in nats: how far did the next-token distribution move where nothing should?

    kl           KL(p || p') = sum_v p(v) (log p(v) - log p'(v)) of the token after a neighbour's prompt, p unedited and p' edited,
                 mean over neighbours
    argmax_same  share of neighbours where p and p' have the same likeliest token
    far_..., same_subject_...    the same over those strata of the fact

Zero and one say that nothing moved. The direction and the unit matter: the published NKL (Hoelscher-Obermaier et al. 2023,
`CounterFact+`) is KL(p' || p) and, because its code asks for a batch mean of single vectors, is divided by the size of the
vocabulary (50,257 for GPT-2). p is always the model without the edit: EasyEdit's sequential runs once took it on the edited
model, which makes every edit look local. Next-token agreement is also the "locality" of EasyEdit and, on the final model, of
WISE (Wang et al. 2024, equation 9).
"""

from collections.abc import Sequence

import torch

from palimpsest.errors import FactError
from palimpsest.evaluate.asks import Ask, NextToken, NextTokenAnswer
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import mean
from palimpsest.facts.case import Case

PREFIXES = {"neighbours": "", "far": "far_", "same_subject": "same_subject_"}


class Locality:
    """The suite, for facts with neighbours, far facts or facts of the same subject."""

    name = "locality"
    metrics = {
        name: metric
        for stratum, prefix in PREFIXES.items()
        for name, metric in (
            (
                f"{prefix}kl",
                Metric(f"KL(before || after) of the next token, mean over {stratum}", False, "nats", needs_before=True),
            ),
            (
                f"{prefix}argmax_same",
                Metric(
                    f"1 if the likeliest token is the same before and after, mean over {stratum}",
                    True,
                    needs_before=True,
                ),
            ),
        )
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """The next token after each prompt of the three strata."""
        asks = [NextToken(probe.prompt) for stratum in PREFIXES for probe in getattr(case.fact, stratum)]
        if not asks:
            raise FactError(
                f"The fact {case.id} has no neighbours or far facts; locality needs prompts that should stay."
            )
        return asks

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """Both metrics of each stratum that the fact has."""
        found: dict[str, float | None] = {}
        for stratum, prefix in PREFIXES.items():
            prompts = [probe.prompt for probe in getattr(case.fact, stratum)]
            pairs = [(before.next_token(prompt), after.next_token(prompt)) for prompt in prompts]
            found[f"{prefix}kl"] = mean([divergence(p, q) for p, q in pairs])
            found[f"{prefix}argmax_same"] = mean([float(p.best == q.best) for p, q in pairs])
        return found


def divergence(p: NextTokenAnswer, q: NextTokenAnswer) -> float:
    """KL(p || q) in nats; a token that p never gives adds nothing, rounding cannot make it negative, and NaN stays NaN."""
    log_p, log_q = p.log_p.double(), q.log_p.double()
    found = float(torch.where(log_p == -torch.inf, 0, log_p.exp() * (log_p - log_q)).sum())
    return (
        0.0 if found < 0 else found
    )  # and not max(0.0, found), which makes 0 of NaN: a broken model that changed nothing
