"""Whether a file and a suite belong together, told before a model is asked anything.

None of the 200 cases has what the suite mquake asks, because: ...; this looks like zsRE: use --suite zsre.
"""

from collections.abc import Sequence

from palimpsest.errors import InputError, PalimpsestError
from palimpsest.evaluate.suite import Suite
from palimpsest.facts.case import Case
from palimpsest.facts.reading import CASE_SCHEMAS, SCHEMAS
from palimpsest.facts.schema import CaseSchema, Schema

# the suite that a schema of records was made for, where it was made for one
_MADE_FOR = {
    "counterfact": "counterfact",
    "counterfact_flat": "counterfact",
    "zsre": "zsre",
    "knowedit": "knowedit",
    "mquake": "mquake",
    "ripple": "ripple",
    "pararel": "pararel",
    "blimp": "blimp",
    "blimp_pairs": "blimp",
}


def require_fitting(cases: Sequence[Case], suite: Suite, schema: str | None = None) -> None:
    """Pass silently where at least one case has what the suite asks.

    Args:
        cases: what is to be measured.
        suite: with what.
        schema: what the file was read as; where it is not known, the ids of the cases tell.

    Raises:
        InputError: none has; it says what the first lacks, and which suite the file was made for.
    """
    first: PalimpsestError | None = None
    for case in cases:
        try:
            if list(suite.asks(case)):
                return
        except PalimpsestError as error:
            first = first or error
    why = f", because: {str(first).rstrip('.')}" if first else ""
    looks = schema if schema in _MADE_FOR or not cases else cases[0].id.partition("/")[0]  # "zsre/record-7"
    hint = advice(looks, suite)
    raise InputError(
        f"None of the {len(cases)} cases has what the suite {suite.name} asks{why}{f'; {hint}' if hint else ''}."
    )


def advice(schema: str | None, suite: Suite) -> str | None:
    """ "this looks like zsRE: use --suite zsre", where the records were made for a suite that is not asked; else None."""
    own = _MADE_FOR.get(schema or "")
    if own is None or own in suite.name.split("+"):
        return None
    schemas: list[Schema | CaseSchema] = [*SCHEMAS, *CASE_SCHEMAS]
    titles = {one.name: one.title for one in schemas}
    return f"this looks like {titles[schema or '']}: use --suite {own}"
