"""zsRE as MEND published it: questions with a made-up answer to edit in (Levy et al. 2017; Mitchell et al. 2022).

    {
      "subject": "Shmavon Shmavonyan",
      "src": "What country is Shmavon Shmavonyan from?",
      "pred": "Israel",                                                what MEND's model said
      "rephrase": "Which country is Shmavon Shmavonyan from?",
      "alt": "Yemen",                                                  what the edit asks for
      "answers": ["Armenia"],                                          what the world says, in one or more spellings
      "loc": "nq question: who sang the song",                         an unrelated question, and its answer
      "loc_ans": "Kris Kristofferson",
      "portability": {"New Question": "What is the capital of Shmavon Shmavonyan's country?", "New Answer": "Sana'a"}
    }

    src                 becomes   `prompt`, the subject in it replaced by {}; the file names no relation, so it stands for one
    alt, answers        become    `target_new`; `target_true` and `answer_aliases`
    rephrase            becomes   `paraphrases` (one)
    loc, loc_ans        become    `far` (one): without "nq question: ", with the "?" that the published scripts add
    portability         becomes   `entailed` (one), of the kind "portability"; only the evaluation file has it
    the position        becomes   `id`: "zsre/record-7"

Blanks around an answer are dropped. A record whose `alt` is empty, or already among its `answers`, asks for no edit and
is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palimpsest.facts.fact import Fact, Probe
from palimpsest.facts.records import short
from palimpsest.facts.schema import FieldError, find, identifier, make_hole, optional_text, required_text, texts

_QUESTION = "nq question: "


class Zsre:
    """MEND's schema of zsRE, with or without portability."""

    name = "zsre"
    title = "zsRE"

    def matches(self, record: Mapping[str, Any]) -> bool:
        return any(fields <= set(record) for fields in ({"src", "alt"}, {"src", "pred", "rephrase"}))

    def to_fact(self, record: Mapping[str, Any], position: int) -> Fact:
        subject = required_text(record, "subject")
        new = required_text(record, "alt").strip()
        true = tuple(answer.strip() for answer in texts(record, "answers"))
        if new in true:
            raise FieldError(
                "alt", f"the new answer {short(new)} is a right answer already, so there is nothing to edit"
            )
        rephrase = optional_text(record, "rephrase")
        return Fact(
            subject=subject,
            prompt=make_hole(required_text(record, "src"), subject, "src"),
            target_true=true[0] if true else None,
            target_new=new,
            id=identifier(record, "case_id", self.name, position),
            answer_aliases=true[1:],
            paraphrases=() if rephrase is None else (rephrase,),
            entailed=_portability(record),
            far=_unrelated(record),
        )


def _portability(record: Mapping[str, Any]) -> tuple[Probe, ...]:
    if find(record, "portability") is None:
        return ()
    question = required_text(record, "portability.New Question")
    return (Probe(question, answer=required_text(record, "portability.New Answer"), kind="portability"),)


def _unrelated(record: Mapping[str, Any]) -> tuple[Probe, ...]:
    question = optional_text(record, "loc")
    if question is None:
        return ()
    question = question.removeprefix(_QUESTION).strip()
    return (Probe(question if question.endswith("?") else f"{question}?", answer=optional_text(record, "loc_ans")),)


SCHEMA = Zsre()
