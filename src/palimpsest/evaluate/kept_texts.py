"""Texts that a suite keeps beside its numbers, for people to read and rate.

A suite that has texts worth keeping says so by a method of its own, which is no part of what every suite must have:

    def written(self, case: Case, answers: Answers) -> Mapping[str, object]:
        return {"statement": "The Louvre is in Rome.", "texts": {"Near the Louvre": " ..."}}
"""

from typing import Any

from palimpsest.evaluate.suite import Answers, Suite
from palimpsest.facts.case import Case


def kept_texts(suite: Suite, case: Case, answers: Answers) -> dict[str, Any]:
    """{"written": ...} of the suite, or of the first of several together, that keeps texts; else nothing."""
    for one in getattr(suite, "suites", (suite,)):
        if hasattr(one, "written"):
            found = one.written(case, answers)
            return {"written": found} if found["texts"] else {}
    return {}
