"""Where memories answer and where they keep silent: the scores that decide, and how often the threshold is wrong. smollm2.

    PALIMPSEST_RECORDS=... python experiments/memory_routing.py run [METHOD ...]   # resumable; results/memory-routing.json
    python experiments/memory_routing.py page                                      # docs/memory-routing.md and its figure

A memory of 30 CounterFact records, written in sequence, is asked about four kinds of prompts: the edited ones, their paraphrases, the
neighbourhood prompts of the same records (the same relation, another subject), and prompts of 100 records that were never edited.
The first two should be answered and the last two should not. Each score is kept in units of the threshold it was held against.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import palimpsest as pal
from all_methods import WAYS, file_of, sequence  # beside this file
from edit_methods import REPORT, records
from palimpsest.edit import Edit
from palimpsest.edit.memories.examples import examples_or_shipped
from palimpsest.errors import ModelError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.runs import atomic_write, check_writable

ROOT = Path(__file__).parents[1]
RESULTS, WORK = ROOT / "results" / "memory-routing.json", ROOT / "run" / "memory-routing"
MEMORIES = ("grace", "wise", "in-context, bm25", "in-context, keys", "in-context, encoder", "serac")
EDITED, OTHERS = 30, 100


def prompts(edited: Sequence[Fact], others: Sequence[Fact]) -> dict[str, list[tuple[str, str]]]:
    """(id of the record, prompt) of each kind; what is an edited prompt, has an edited subject or taught a memory is not unrelated."""
    asked, subjects = {fact.text for fact in edited}, {fact.subject for fact in edited}
    asked |= {fact.text for fact in examples_or_shipped(None)}  # of SERAC and WISE
    neighbours = [(fact.id, probe.prompt) for fact in edited for probe in fact.neighbours]
    return {
        "edited": [(fact.id, fact.text) for fact in edited],
        "paraphrase": [(fact.id, text) for fact in edited for text in fact.paraphrases],
        "neighbourhood": [(name, text) for name, text in neighbours if text not in asked],
        "not edited": [
            (fact.id, fact.text) for fact in others if fact.subject not in subjects and fact.text not in asked
        ],
    }


def scores(model: Model, edit: Edit, asked: dict[str, list[tuple[str, str]]]) -> dict[str, Any]:
    """Of each prompt: its record, the score over the threshold, whether the memory answered, and whether with the record's own fact."""
    found = {}
    for kind, some in asked.items():
        routed = [one for (one,) in edit.routing(model, [text for _, text in some])]  # a single payload decides
        found[kind] = {
            "record": [name for name, _ in some],
            "score": [float(f"{one.score / one.threshold:.5g}") for one in routed],
            "answered": [int(one.answered) for one in routed],
            "own": [int(name in one.facts) for (name, _), one in zip(some, routed, strict=True)],
        }
    return found


def run(names: Sequence[str]) -> None:
    """Every memory that is missing."""
    model, facts = pal.load("smollm2"), records(REPORT, EDITED + OTHERS)
    asked = prompts(facts[:EDITED], facts[EDITED:])
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    for name in names:
        if name in found:
            continue
        began = time.process_time()
        try:
            line, seconds = sequence(model, facts[:EDITED], WAYS[name], check_writable(WORK / file_of(name)))
        except ModelError as error:  # an encoder that is not installed
            print(f"{name}: {error}", flush=True)
            continue
        edit = line.edit
        assert edit is not None
        found[name] = {"seconds_an_edit": seconds / EDITED, "bytes": edit.size, "prompts": scores(model, edit, asked)}
        atomic_write(RESULTS, json.dumps(found) + "\n")
        answered = {kind: sum(one["answered"]) / len(one["answered"]) for kind, one in found[name]["prompts"].items()}
        print(name, answered, f"{time.process_time() - began:.0f} CPU-seconds", flush=True)


def main() -> None:
    """`run` or `page`."""
    if sys.argv[1:2] == ["page"]:
        from memory_routing_page import write  # beside this file

        return write()
    return run(sys.argv[2:] or MEMORIES)


if __name__ == "__main__":
    main()
