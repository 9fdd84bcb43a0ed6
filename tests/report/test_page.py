"""The page: self-contained, escaped, and saying what was measured."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from palimpsest.errors import OutputError
from palimpsest.evaluate import Scores
from palimpsest.facts import Fact
from palimpsest.locate import Trace
from palimpsest.model import Diagnosis
from palimpsest.report import Report

EVIL = "<script>alert('x')</script>"


def _report() -> Report:
    fact = Fact(subject=f"Tower {EVIL}", prompt="The {} is in", target_true="Paris", target_new=f"Rome {EVIL}", id="f")
    rng = np.random.default_rng(0)
    trace = Trace(
        fact=fact,
        answer=" Paris",
        foil="",
        known=True,
        tokens=("The", " Tower", EVIL, " in"),
        subject=(1, 3),
        layers=(0, 1, 2, 3, 4),
        score="probability",
        log_p_clean=np.log([0.7, 0.7]),
        log_p_corrupted=np.log(rng.random((4, 2)) * 0.1),
        log_p_patched=np.log(rng.random((4, 5, 4, 2))),
        settings={"samples": 4, "noise_level": 0.1, "note": EVIL},
    )
    side = {"es": 1.0, "em": 0.5, "ps": 1.0, "pm": 0.2, "ns": 1.0, "nm": 0.1, "nll_new": 0.1, "nll_true": 2.0}
    record = {"id": "f", "relation": "place", "subject": fact.subject, "eligible": True, "pre": side, "post": side}
    bad = {"id": "g", "error": EVIL}
    diagnosis = Diagnosis(EVIL, "Tiny", 5, 8, (), ())
    return Report(
        diagnosis, [trace], Scores((record, bad), {"model": EVIL}), {"before": "a", "after": "a"}, {"x": EVIL}
    )


class _Structure(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_every_string_is_escaped_and_nothing_comes_from_outside() -> None:
    html = _report().html()
    parser = _Structure()
    parser.feed(html)
    tags = {tag for tag, _ in parser.tags}
    assert "script" not in tags
    assert "link" not in tags
    assert not any({"src", "href"} & attributes.keys() for _, attributes in parser.tags)
    assert not re.search(r"https?://|@import|url\(", html)
    assert html.count("alert(") == html.count("&lt;script&gt;alert(")


def test_the_map_has_a_cell_for_each_token_and_layer_and_stars_the_subject() -> None:
    html = _report().html()
    parser = _Structure()
    parser.feed(html)
    cells = [
        attributes
        for tag, attributes in parser.tags
        if tag == "rect" and "width" in attributes and attributes["width"] == "18"
    ]
    assert len(cells) == 4 * 5
    assert ">Tower*<" in html
    assert ">The<" in html


def test_old_and_new_probabilities_and_the_undo_are_said() -> None:
    html = _report().html()
    assert f"{np.exp(-2.0):.3f}" in html
    assert f"{np.exp(-0.1):.3f}" in html
    assert "bit for bit" in html


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OutputError, match="file"):
        _report().to_html(blocked / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
