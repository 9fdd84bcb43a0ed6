"""The second hop comes from the model itself: what the unedited model says of a new object.

    birth_country(s) after born_in(s) = Lyon:      "Lyon is a city in the country of" -> " France"

A question (subject, relation) is asked in the first wordings of the relation. Each wording is continued greedily, and what is
written up to the first punctuation or verb is a candidate ("U.S." and "St. Lucia" are whole; what never ends is none). How
surely the model says an answer o is

    confidence(o) = mean over wordings w of exp(-nll(o | w))        nll in nats a token (`palimpsest.locate.answers`)

The candidate it says most surely is the answer, and a premise where its confidence reaches the gate; below it the model does not
know, and nothing is concluded. What the user knows goes before what the model says, and no benchmark's answer is ever read.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from palimpsest.erase.propagate.derive import LIMIT, derive
from palimpsest.erase.propagate.plan import Hop, Plan, Question, Step
from palimpsest.erase.propagate.rules import Rules
from palimpsest.errors import SettingError
from palimpsest.evaluate.answering import answer
from palimpsest.evaluate.asks import Likelihood, Written
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.runs import Progress

GATE = 0.3
WORDINGS = 3  # in which a question is asked
TOKENS = 12  # an answer has at most

_ARTICLE = re.compile(r"(?:the|a|an) ", re.IGNORECASE)
_END = re.compile(
    r"[,;:!?()\[\]\"\n]"
    r"|(?<!\b[A-Z])(?<!\bSt)(?<!\bMt)(?<!\bFt)(?<!\bDr)(?<!\bMr)(?<!\bMs)(?<!\bMrs)\."  # the stop of a sentence
    r"|\.(?=\s+(?:The|It|Its|He|She|They|This|There|In|And|But)\b)"  # the same after "U.S." or "vitamin C."
    r"|\b(?:is|was|are|were|has|had|which|who|where|that)\b"  # no name goes on here
)
_INITIALS = re.compile(r"(?:\b[A-Z]\.)+[A-Z]$")


def plan(
    model: Model,
    facts: Fact | Sequence[Fact],
    rules: Rules,
    *,
    gate: float = GATE,
    limit: int = LIMIT,
    progress: Progress | None = None,
) -> Plan:
    """What edits entail, where the model, as it is now, is asked whatever the user's facts leave open.

    Contradictions and explosions that follow from the user's facts alone are found before the model is asked anything.

    Args:
        model: before the edit.
        facts: the edits.
        rules: with the user's own facts.
        gate: how surely the model must say an answer for it to be a premise, from 0 to 1.
        limit: how many statements one edit may entail, on average.
        progress: called with (asked, all, "asked").

    Raises:
        FactError, EditError: see `derive`.
        SettingError: the gate is no probability.
    """
    if not 0 <= gate <= 1:
        raise SettingError(f"The gate of a second hop must be a probability from 0 to 1, got {gate}; 0.3 is usual.")
    known: dict[Question, tuple[str, ...]] = {}
    hops: list[Hop] = []
    made = derive(facts, rules, limit=limit)
    while made.questions:
        asked = ask(model, made.questions, rules, gate=gate, progress=progress)
        hops += asked
        known |= {(hop.subject, hop.relation): (hop.answer,) if hop.taken else () for hop in asked}
        made = derive(facts, rules, known, limit=limit)
    return replace(made, hops=tuple(hops), steps=tuple(_said(model, made, progress)))


def ask(
    model: Model,
    questions: Iterable[Question],
    rules: Rules,
    *,
    gate: float = GATE,
    wordings: int = WORDINGS,
    progress: Progress | None = None,
) -> list[Hop]:
    """The model's answer to each question in its first `wordings`, with its confidence, all questions in one batch."""
    prompts = {
        (subject, name): rules.relations[name].prompts(subject, wordings) for subject, name in dict.fromkeys(questions)
    }
    texts = [text for some in prompts.values() for text in some]
    written = answer(model, [Written(text, TOKENS) for text in texts], progress=progress)
    candidates = {
        question: list(
            dict.fromkeys(one for text in some for one in begun(model, written.written(Written(text, TOKENS))))
        )
        for question, some in prompts.items()
    }
    told = answer(
        model,
        [Likelihood(text, one) for question, some in prompts.items() for text in some for one in candidates[question]],
    )

    def confidence(question: Question, one: str) -> float:
        some = prompts[question]
        return sum(math.exp(-told.likelihood(text, one).nll) for text in some) / len(some)

    hops = []
    for question in prompts:
        sure = {one: confidence(question, one) for one in candidates[question]}
        best = max(sure, key=lambda one: sure[one], default="")
        taken = bool(best) and sure[best] >= gate and rules.entity(best) != rules.entity(question[0])
        hops.append(Hop(*question, rules.entity(best), sure.get(best, 0.0), taken))
    return hops


def _said(model: Model, made: Plan, progress: Progress | None) -> list[Step]:
    """Every step with what the unedited model says of it."""
    prompts = [
        made.rules.relations[step.statement.relation].prompts(step.statement.subject, WORDINGS) for step in made.steps
    ]
    told = answer(
        model,
        [
            Likelihood(text, step.statement.object)
            for step, some in zip(made.steps, prompts, strict=True)
            for text in some
        ],
        progress=progress,
    )
    steps = []
    for step, some in zip(made.steps, prompts, strict=True):
        answers = [told.likelihood(text, step.statement.object) for text in some]
        right = [all(one.right) for one in answers]
        already = {"edit": False, "entailed": all(right), "lost": not any(right)}[step.kind]
        said = sum(math.exp(-one.nll) for one in answers) / len(answers)
        steps.append(replace(step, said=said, already=already))
    return steps


def begun(model: Model, written: str) -> tuple[str, ...]:
    """The answers that a text may begin with; none where it is blank, or was still going on when it was cut off.

    "the" before a name is left out; "The" may belong to it, as in The Hague, so there are two answers then.
    """
    text = written.strip()
    if (end := _END.search(text)) is None:
        if len(model.tokenizer(written, add_special_tokens=False).input_ids) >= TOKENS:
            return ()
    else:
        text = text[: end.start()].strip()
        text += "." if end[0] == "." and _INITIALS.search(text) else ""
    article = _ARTICLE.match(text)
    if article is None:
        return (text,) if text else ()
    bare = text[article.end() :].strip()
    return tuple(filter(None, (bare,) if text[0].islower() else (text, bare)))
