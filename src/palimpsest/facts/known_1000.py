"""The prompts of ROME's causal tracing: facts that GPT-2 XL completes correctly (Meng et al. 2022, section 2).

    {
      "known_id": 7,
      "subject": "Marshall Islands",
      "attribute": "English",                                          the answer
      "template": "In {}, the language spoken is",
      "prediction": " a mixture of English and Marshallese<|endoftext|>",
      "prompt": "In Marshall Islands, the language spoken is a mixture of",
      "relation_id": "P37"
    }

    prompt         becomes   `prompt`, the subject in it replaced by {}
    attribute      becomes   `target_true`; there is no `target_new`, since tracing edits nothing
    relation_id    becomes   `relation`
    known_id       becomes   `id`: "known_1000/7"

`prompt` is used and not `template`: where GPT-2 XL said a few words before the answer, the prompt has them and the
template does not, and only after the prompt is the answer the next word. `prediction` is what GPT-2 XL said; it is no
part of the fact. (The file is called known_1000 and holds 1,209 records.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palimpsest.facts.fact import Fact
from palimpsest.facts.schema import identifier, make_hole, optional_text, required_text


class Known1000:
    """The schema of known_1000.json."""

    name = "known_1000"
    title = "known_1000"

    def matches(self, record: Mapping[str, Any]) -> bool:
        return "known_id" in record or {"attribute", "template"} <= set(record)

    def to_fact(self, record: Mapping[str, Any], position: int) -> Fact:
        subject = required_text(record, "subject")
        return Fact(
            subject=subject,
            prompt=make_hole(required_text(record, "prompt"), subject, "prompt"),
            target_true=required_text(record, "attribute"),
            id=identifier(record, "known_id", self.name, position),
            relation=optional_text(record, "relation_id") or "",
        )


SCHEMA = Known1000()
