"""Strata: the fact itself, what follows from it and what must stay, each counted apart.

"The Eiffel Tower is in Rome" should move "the Eiffel Tower is in the country of", and must not move "the Eiffel Tower was
built by", "the Louvre is in" or "water is made of". A mean over all of them could be the same for an edit that does nothing
and one that breaks everything, so there is none. With exact(a | x) = 1 if every token of a is the likeliest after x and the
tokens before it:

    strata_edited_right         exact(new answer | prompt)
    strata_paraphrases_right    the same, mean over paraphrases
    strata_entailed_right       exact(answer | probe) in any spelling, mean over entailed probes
    strata_entailed_old         exact(answer before | probe), mean over entailed probes that had one; zero is best
    strata_STRATUM_right        exact(answer | probe) in any spelling, mean over probes; same_subject, neighbours, far
    strata_STRATUM_kept         1 if the likeliest next token is the unedited model's, mean over probes

`right` depends on what the model knew before, `kept` does not: a model that knew nothing of a stratum can keep all of it.
"""

from collections.abc import Sequence

from palimpsest.evaluate.asks import Ask, NextToken
from palimpsest.evaluate.suite import Answers, Metric
from palimpsest.evaluate.suites.parts import exact, lacks, likelihoods, mean, new_answer, spellings
from palimpsest.facts import Case, Probe

STAY = ("same_subject", "neighbours", "far")


class Strata:
    """The suite, for facts with probes in any stratum."""

    name = "strata"
    metrics = {
        "strata_edited_right": Metric("1 if the model says the new answer after the prompt", True),
        "strata_paraphrases_right": Metric("1 if it does after a paraphrase, mean", True),
        "strata_entailed_right": Metric("1 if it says what follows from the edit, mean over entailed probes", True),
        "strata_entailed_old": Metric("1 if it still says what held before, mean over entailed probes", False),
        **{f"strata_{name}_right": Metric(f"1 if it says the answer, mean over {name} probes", True) for name in STAY},
        **{
            f"strata_{name}_kept": Metric(
                f"1 if the likeliest next token is the unedited model's, mean over {name} probes",
                True,
                needs_before=True,
            )
            for name in STAY
        },
    }

    def asks(self, case: Case) -> Sequence[Ask]:
        """Every answer after its prompt, and the next token where things must stay."""
        fact = case.fact
        staying = [probe for name in STAY for probe in getattr(fact, name)]
        probes = [*fact.entailed, *staying]
        if not probes:
            raise lacks(case, self.name, "probe that is entailed, of the same subject, near or far")
        pairs = [(text, new_answer(fact)) for text in fact.wordings]
        pairs += [(probe.prompt, spelling) for probe in probes for spelling in spellings(probe)]
        pairs += [(probe.prompt, probe.before) for probe in fact.entailed if probe.before is not None]
        return [*likelihoods(pairs), *(NextToken(probe.prompt) for probe in staying)]

    def measure(self, case: Case, before: Answers, after: Answers) -> dict[str, float | None]:
        """The metrics of the strata that the fact has."""
        fact = case.fact
        own = [exact(after, text, (new_answer(fact),)) for text in fact.wordings]
        values = {
            "strata_edited_right": float(own[0]),
            "strata_paraphrases_right": mean(own[1:]),
            "strata_entailed_right": _right(after, fact.entailed),
            "strata_entailed_old": mean(
                exact(after, probe.prompt, (probe.before,)) for probe in fact.entailed if probe.before is not None
            ),
        }
        for name in STAY:
            probes = getattr(fact, name)
            values[f"strata_{name}_right"] = _right(after, probes)
            values[f"strata_{name}_kept"] = mean(_is_kept(before, after, probe) for probe in probes)
        return values


def _right(answers: Answers, probes: Sequence[Probe]) -> float | None:
    """Share of the probes with an answer to which it is given."""
    return mean(exact(answers, probe.prompt, spellings(probe)) for probe in probes if probe.answer is not None)


def _is_kept(before: Answers, after: Answers, probe: Probe) -> bool:
    return before.next_token(probe.prompt).best == after.next_token(probe.prompt).best
