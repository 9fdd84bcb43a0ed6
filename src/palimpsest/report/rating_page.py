"""The page on which people compare texts of two editors: one HTML file, from disk, without network and without names.

    atomic_write("rate/page.html", rating_page(study))

Every text of the study stands in the page as escaped HTML, so that a subject such as "<script>" stays text. The page's own
script is the only one that may run: a content security policy names its hash, and forbids every address. What has been chosen is
kept in the browser's local storage under the study's id until it is saved as a file.
"""

import base64
import hashlib
from importlib import resources

from markupsafe import Markup

from palimpsest.evaluate.rating import QUESTIONS, Study
from palimpsest.report.rendered import rendered

_SIDES = {"left": "the left one", "tie": "neither", "right": "the right one"}


def rating_page(study: Study) -> str:
    """The page as text; it holds neither the editors' names nor anything that tells their sides."""
    script = (resources.files("palimpsest.report") / "templates" / "rating.js").read_text(encoding="utf-8")
    return rendered(
        "rating.html.j2",
        study=study.id,
        pairs=[
            {"id": pair.id, "statement": pair.statement, "prompt": pair.prompt, "left": pair.left, "right": pair.right}
            for pair in study.pairs
        ],
        questions=QUESTIONS,
        sides=_SIDES,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
