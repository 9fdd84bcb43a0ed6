"""Facts and the files they come in; this room knows nothing of models.

`Fact` and `Probe` say what a fact is, `read_facts` reads any supported file of them and `write_facts` writes one.
"""

from palimpsest.facts.blimp import other_number
from palimpsest.facts.case import Case, Check, Query, cases_of
from palimpsest.facts.case_reading import CaseFile, read_cases
from palimpsest.facts.fact import STRATA, Fact, Probe
from palimpsest.facts.jsonl import write_facts
from palimpsest.facts.reading import FactFile, read_facts
from palimpsest.facts.records import Problem
from palimpsest.facts.text import shipped_text

__all__ = [
    "STRATA",
    "Case",
    "CaseFile",
    "Check",
    "Fact",
    "FactFile",
    "Probe",
    "Problem",
    "Query",
    "cases_of",
    "other_number",
    "read_cases",
    "read_facts",
    "shipped_text",
    "write_facts",
]
