"""CounterFact as ROME published it: a fact, its replacement, and prompts of four kinds (Meng et al. 2022, section 3.3).

    {
      "case_id": 1234,
      "requested_rewrite": {
        "prompt": "{} is located in the city of",          exactly one {}
        "relation_id": "P131",                             Wikidata's name of the relation
        "target_new":  {"str": "Rome",  "id": "Q220"},     what the edit asks for
        "target_true": {"str": "Paris", "id": "Q90"},      what the world says
        "subject": "Eiffel Tower"
      },
      "paraphrase_prompts":   ["Some other text. Eiffel Tower stands in", ...],
      "neighborhood_prompts": ["The Louvre is located in the city of", ...],
      "attribute_prompts":    ["The Colosseum is located in the city of", ...],
      "generation_prompts":   ["Eiffel Tower is a place where", ...]
    }

    requested_rewrite     becomes   the fact itself
    case_id               becomes   `id`: "counterfact/1234"
    paraphrase_prompts    becomes   `paraphrases`; the unrelated sentence that opens them belongs to them and is kept
    neighborhood_prompts  becomes   `neighbours`, each with the answer `target_true`
    generation_prompts    becomes   `generation`, in the order of the file, repeated ones included

`attribute_prompts` ask about subjects for which `target_new` is the right answer already. None of CounterFact's scores
uses them, and an edit that says `target_new` everywhere would shine on them, so they are left out of every stratum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from palimpsest.facts.fact import Fact, Probe
from palimpsest.facts.schema import hole_of, identifier, optional_text, required_text, texts


class CounterFact:
    """The original nested schema."""

    name = "counterfact"
    title = "CounterFact"

    def matches(self, record: Mapping[str, Any]) -> bool:
        return isinstance(record.get("requested_rewrite"), Mapping)

    def to_fact(self, record: Mapping[str, Any], position: int) -> Fact:
        true = required_text(record, "requested_rewrite.target_true.str").strip()
        return Fact(
            subject=required_text(record, "requested_rewrite.subject"),
            prompt=hole_of(required_text(record, "requested_rewrite.prompt"), "requested_rewrite.prompt"),
            target_true=true,
            target_new=required_text(record, "requested_rewrite.target_new.str"),
            id=identifier(record, "case_id", self.name, position),
            relation=optional_text(record, "requested_rewrite.relation_id") or "",
            paraphrases=texts(record, "paraphrase_prompts"),
            neighbours=tuple(Probe(prompt, answer=true) for prompt in texts(record, "neighborhood_prompts")),
            generation=tuple(Probe(prompt) for prompt in texts(record, "generation_prompts")),
        )


SCHEMA = CounterFact()
