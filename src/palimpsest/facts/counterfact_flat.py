"""CounterFact as EasyEdit keeps it: the same facts, flattened, with one paraphrase and one neighbour each.

    {
      "case_id": 1234,
      "prompt": "Eiffel Tower is located in the city of",              complete text, the subject in it
      "subject": "Eiffel Tower",
      "target_new": "Rome",
      "ground_truth": "Paris",
      "rephrase_prompt": "Some other text. Eiffel Tower stands in",
      "locality_prompt": "The Louvre is located in the city of",
      "locality_ground_truth": "Paris"
    }

    prompt                 becomes   `prompt`, the first occurrence of the subject replaced by {}
    ground_truth           becomes   `target_true`
    rephrase_prompt        becomes   `paraphrases` (one)
    locality_prompt        becomes   `neighbours` (one), with the answer `locality_ground_truth`
    case_id                becomes   `id`: "counterfact_flat/1234", or "counterfact_flat/record-7" without a case_id

The file names no relation, so the prompt with its hole stands for it. `prompt`, `subject` and `target_new` must be
there; the others may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palimpsest.facts.fact import Fact, Probe
from palimpsest.facts.schema import identifier, make_hole, optional_text, required_text


class CounterFactFlat:
    """EasyEdit's flat schema."""

    name = "counterfact_flat"
    title = "EasyEdit's CounterFact"

    def matches(self, record: Mapping[str, Any]) -> bool:
        own = {"ground_truth", "rephrase_prompt", "locality_prompt", "locality_ground_truth"} & set(record)
        shared = {"prompt", "subject", "target_new"} & set(record)
        return bool(own) and len(shared) >= 2

    def to_fact(self, record: Mapping[str, Any], position: int) -> Fact:
        subject = required_text(record, "subject")
        rephrase = optional_text(record, "rephrase_prompt")
        locality = optional_text(record, "locality_prompt")
        locality_answer = optional_text(record, "locality_ground_truth")
        return Fact(
            subject=subject,
            prompt=make_hole(required_text(record, "prompt"), subject, "prompt"),
            target_true=optional_text(record, "ground_truth"),
            target_new=required_text(record, "target_new"),
            id=identifier(record, "case_id", self.name, position),
            paraphrases=() if rephrase is None else (rephrase,),
            neighbours=() if locality is None else (Probe(locality, answer=locality_answer),),
        )


SCHEMA = CounterFactFlat()
