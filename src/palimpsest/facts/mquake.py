"""MQuAKE: facts edited together, and questions that need all of them (Zhong et al. 2023).

    {
      "case_id": 1,
      "requested_rewrite": [{"prompt": "{} is a citizen of", "subject": "Ellie Kemper", "relation_id": "P27",
                             "question": "What is the country of citizenship of Ellie Kemper?",
                             "target_new": {"str": "Croatia"}, "target_true": {"str": "United States of America"}}, ...],
      "questions": ["Who is the head of state of the country that Ellie Kemper is a citizen of?", ...],     three wordings
      "new_answer": "Kolinda Grabar-Kitarovic", "new_answer_alias": ["Grabar-Kitarovic"],
      "new_single_hops": [{"question": "What is the country of citizenship of Ellie Kemper?",
                           "answer": "Croatia", "answer_alias": ["HR", ...]}, ...]                          the whole chain
    }

    requested_rewrite    becomes   the facts of the case, to be edited together, and for each a check "edit_wise": its question
    new_single_hops      becomes   the check "instance_wise", which needs all of them
    questions            becomes   the check "multi_hop", which needs any of them
    case_id              becomes   `id`: "mquake/1"; its facts are "mquake/1/1", "mquake/1/2", ...

The fields without `new_` tell what held before the edit; they ask for nothing after it and are not used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palimpsest.facts.case import Case, Check, Query
from palimpsest.facts.fact import Fact
from palimpsest.facts.records import short
from palimpsest.facts.schema import FieldError, find, hole_of, identifier, objects, optional_text, required_text, texts


class Mquake:
    """The schema of MQuAKE-CF and its other files."""

    name = "mquake"
    title = "MQuAKE"

    def matches(self, record: Mapping[str, Any]) -> bool:
        return "requested_rewrite" in record and bool({"new_answer", "single_hops", "new_single_hops"} & set(record))

    def to_case(self, record: Mapping[str, Any], position: int) -> Case:
        name = identifier(record, "case_id", self.name, position)
        rewrites = objects(record, "requested_rewrite")
        if not rewrites:
            raise FieldError("requested_rewrite", "there is nothing to edit")
        hops = [_question(hop, "question", "answer", "answer_alias") for hop in objects(record, "new_single_hops")]
        answers = {hop.prompt: hop.answers for hop in hops}
        edited = [(rewrite, required_text(rewrite, "question")) for rewrite in rewrites]
        single = [
            Query(asked, answers.get(asked, ((required_text(rewrite, "target_new.str").strip(),),)))
            for rewrite, asked in edited
        ]
        asked = texts(record, "questions")
        new = _spellings(record, "new_answer", "new_answer_alias")
        checks = [Check("edit_wise", (query,)) for query in single]
        checks += [Check("instance_wise", tuple(hops), need="all")] if hops else []
        checks += [Check("multi_hop", tuple(Query(question, (new,)) for question in asked))] if asked else []
        facts = tuple(_fact(rewrite, f"{name}/{number}") for number, rewrite in enumerate(rewrites, start=1))
        return Case(name, facts, tuple(checks))


def _fact(rewrite: Mapping[str, Any], name: str) -> Fact:
    return Fact(
        subject=required_text(rewrite, "subject"),
        prompt=hole_of(required_text(rewrite, "prompt"), "requested_rewrite.prompt"),
        target_true=optional_text(rewrite, "target_true.str"),
        target_new=required_text(rewrite, "target_new.str"),
        id=name,
        relation=optional_text(rewrite, "relation_id") or "",
    )


def _question(record: Mapping[str, Any], question: str, answer: str, aliases: str) -> Query:
    return Query(required_text(record, question), (_spellings(record, answer, aliases),))


def _spellings(record: Mapping[str, Any], answer: str, aliases: str) -> tuple[str, ...]:
    """The answer and its aliases, each once; blank aliases are dropped."""
    others = find(record, aliases) or []
    if not isinstance(others, list):
        raise FieldError(aliases, f"expected a list of texts, got {short(others)}")
    named = [other.strip() for other in others if isinstance(other, str) and other.strip()]
    return tuple(dict.fromkeys([required_text(record, answer).strip(), *named]))


SCHEMA = Mquake()
