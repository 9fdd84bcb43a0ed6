"""The KnowEdit suite: the edit, what must follow from it and what must stay, each kind by itself (Zhang et al. 2024).

With the new answer a, the prompt x, and probes (p, b) by kind:

    knowedit_success               token accuracy(a | x)
    knowedit_rephrase              token accuracy(a | rephrased prompt), mean
    knowedit_portability_KIND      token accuracy(b | p), mean over the probes of the kind:
                                   reasoning, subject_aliasing, logical_generalization
    knowedit_portability           mean over the kinds that the case has
    knowedit_locality_KIND         agreement(b | p) with the unedited model, mean over the probes of the kind:
                                   relation_specificity, forgetfulness, distracting_neighbor
    knowedit_locality              mean over the kinds that the case has
    knowedit_gen_success           1 if the first line written after x says a in whole words
    knowedit_gen_portability       1 if the first line written after p says b in any spelling; mean over kinds of means over probes

Teacher forcing takes the first spelling of an answer, free generation any. Locality is taken against the unedited model
always; the published code, editing in sequence, takes it against a model that carries the edits before.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from palimpsest.evaluate.asks import Ask, Written
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import (
    agreement,
    answered,
    lacks,
    likelihoods,
    mean,
    new_answer,
    says,
    spellings,
    spoken,
    token_accuracy,
)
from palimpsest.facts import Case, Fact, Probe

PORTABILITY = ("reasoning", "subject_aliasing", "logical_generalization")
LOCALITY = ("relation_specificity", "forgetfulness", "distracting_neighbor")


@dataclass(frozen=True)
class KnowEdit:
    """The suite; `tokens` are written at most after a prompt."""

    tokens: int = 24
    name = "knowedit"
    metrics = {
        "knowedit_success": Metric("token accuracy of the new answer after the prompt", True),
        "knowedit_rephrase": Metric("token accuracy of the new answer after rephrased prompts, mean", True),
        "knowedit_portability": Metric("mean of the kinds of portability", True),
        **{
            f"knowedit_portability_{kind}": Metric(f"token accuracy after {kind} prompts, mean", True)
            for kind in PORTABILITY
        },
        "knowedit_locality": Metric("mean of the kinds of locality", True, needs_before=True),
        **{
            f"knowedit_locality_{kind}": Metric(
                f"agreement with the unedited model after {kind} prompts, mean", True, needs_before=True
            )
            for kind in LOCALITY
        },
        "knowedit_gen_success": Metric("1 if the text written after the prompt says the new answer", True),
        "knowedit_gen_portability": Metric(
            "1 if the text written after a prompt says what follows, mean of the kinds", True
        ),
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """What is forced and what is written."""
        fact, new = case.fact, new_answer(case.fact)
        local = _local(fact)
        if not any(probe.kind in (*PORTABILITY, *LOCALITY) for probe in (*fact.entailed, *local)):
            raise lacks(case, self.name, "probes of portability or locality by kind")
        forced = likelihoods([*((text, new) for text in fact.wordings), *answered((*fact.entailed, *local))])
        texts = [fact.text, *(probe.prompt for probe in fact.entailed)]
        return [*forced, *(Written(text, self.tokens) for text in texts)]

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The metrics above."""
        fact, new = case.fact, new_answer(case.fact)

        def said(text: str, wanted: Sequence[str]) -> float:
            return float(says(spoken(after.written(Written(text, self.tokens))), wanted))

        forced = [token_accuracy(after, text, new) for text in fact.wordings]
        follows = _by_kind(fact.entailed, lambda probe: token_accuracy(after, probe.prompt, spellings(probe)[0]))
        stays = _by_kind(_local(fact), lambda probe: agreement(before, after, probe.prompt, spellings(probe)[0]))
        written = _by_kind(fact.entailed, lambda probe: said(probe.prompt, spellings(probe)))
        return {
            "knowedit_success": forced[0],
            "knowedit_rephrase": mean(forced[1:]),
            "knowedit_portability": mean(follows.values()),
            **{f"knowedit_portability_{kind}": follows.get(kind) for kind in PORTABILITY},
            "knowedit_locality": mean(stays.values()),
            **{f"knowedit_locality_{kind}": stays.get(kind) for kind in LOCALITY},
            "knowedit_gen_success": said(fact.text, (new,)),
            "knowedit_gen_portability": mean(written.values()),
        }


def _local(fact: Fact) -> tuple[Probe, ...]:
    return (*fact.same_subject, *fact.neighbours)


def _by_kind(probes: Sequence[Probe], measured: Callable[[Probe], float]) -> dict[str, float]:
    """The mean over the probes with an answer of each kind."""
    found: dict[str, list[float]] = {}
    for probe in probes:
        if probe.answer is not None:
            found.setdefault(probe.kind or "", []).append(measured(probe))
    return {kind: sum(values) / len(values) for kind, values in found.items()}
