"""The audit's page in a real browser without any network: quiet, readable on a phone, in the dark, on paper, by keyboard."""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from audit_report import EVIL, READINGS, audit_report
from test_rating_browser import BROWSER, Browser

from palimpsest.report.audit_page import audit_page

PHONE, DESK = (360, 740), (1200, 900)
# WCAG's contrast of an element's text on the first ground behind it that is not transparent
CONTRAST = """(selector) => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  return Math.min(...Array.from(document.querySelectorAll(selector), (one) => {
    let at = one, ground = [0, 0, 0, 0];
    for (; at && ground[3] === 0; at = at.parentElement) ground = numbers(getComputedStyle(at).backgroundColor);
    const [a, b] = [light(numbers(getComputedStyle(one).color)), light(ground)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
}"""
TEXTS = (
    "p",
    ".note",
    "a",
    ".tile.pass",
    ".tile.partial",
    ".tile.weak",
    ".tile.fail",
    ".tile.not_tested",
    ".tile.na",
    ".badge",
    "th",
)
# what sticks out of the window, and stands in nothing that scrolls by itself
OUTSIDE = """Array.from(document.querySelectorAll('body *')).filter((one) => {
  const box = one.getBoundingClientRect();
  return box.width > 0 && box.right > document.documentElement.clientWidth + 1
    && !one.closest('.scroll, .skip, .visually-hidden, pre') ;
}).map((one) => one.tagName + '.' + one.className)"""


class Watched(Browser):
    """A browser that keeps what the page asked for and what it complained about."""

    def __init__(self, profile: Path) -> None:
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.unread, self.loads = bytearray(), 0
        super().__init__(profile)
        for domain in ("Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def receive(self) -> dict[str, Any]:
        """The next message; requests, complaints and dialogs are kept. Messages may be megabytes: they are read in large parts."""
        while b"\0" not in self.unread:
            part = self.reader.read1(1 << 16)
            assert part, "the browser ended"
            self.unread += part
        data, _, rest = self.unread.partition(b"\0")
        self.unread = bytearray(rest)
        message: dict[str, Any] = json.loads(data)
        method, given = message.get("method", ""), message.get("params", {})
        self.dialogs += method == "Page.javascriptDialogOpening"
        self.loads += method == "Page.loadEventFired"
        if method == "Network.requestWillBeSent":
            self.asked.append(given["request"]["url"])
        if method in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
            self.complaints.append(str(given))
        return message

    def open(self, address: str) -> None:
        """Load a page and wait for it, also where it is there before the answer to the command."""
        before = self.loads
        self.call("Page.navigate", url=address)
        while self.loads == before:
            self.receive()

    def window(self, size: tuple[int, int], *, mobile: bool = False) -> None:
        """The window's size in CSS pixels."""
        width, height = size
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def media(self, kind: str = "screen", scheme: str = "light") -> None:
        """Screen or print, light or dark."""
        self.call(
            "Emulation.setEmulatedMedia", media=kind, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    if BROWSER is None:
        said = "install chromium to open the page of an audit in a real browser"
        if os.environ.get("PALIMPSEST_REQUIRE_BROWSER"):
            pytest.fail(f"{said}: PALIMPSEST_REQUIRE_BROWSER asks for it")
        pytest.skip(said)
    made = Watched(tmp_path_factory.mktemp("browser") / "profile")
    yield made
    made.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    page = tmp_path_factory.mktemp("page") / "report.html"
    page.write_text(audit_page(audit_report()), encoding="utf-8")
    return page.as_uri()


@pytest.fixture
def opened(browser: Watched, address: str) -> Watched:
    """The page, freshly opened on a desk in daylight."""
    browser.window(DESK)
    browser.media()
    browser.asked.clear()
    browser.complaints.clear()
    browser.open("about:blank")
    browser.open(address)
    return browser


def test_it_opens_without_a_request_or_a_complaint_and_what_is_text_stays_text(opened: Watched, address: str) -> None:
    assert opened.ask("document.title") == f"Audit of world {EVIL}: made"
    assert EVIL in opened.ask("document.querySelector('h1').textContent")
    assert opened.ask("document.querySelectorAll('script').length") == 2
    assert opened.ask(
        "Array.from(document.querySelectorAll('.reading')).every((one) => one.textContent.includes('<script>'))"
    )
    assert set(opened.asked) <= {"about:blank", address}
    assert address in opened.asked
    assert opened.complaints == []
    assert opened.dialogs == 0


def test_a_complaint_would_be_noticed(opened: Watched) -> None:
    opened.ask("console.error('noticed')")
    opened.ask("void fetch('https://example.org/x').catch(() => 0)")
    opened.ask("1")
    assert any("noticed" in one for one in opened.complaints)
    assert any("Content Security Policy" in one for one in opened.complaints)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_in_daylight_and_in_the_dark(opened: Watched, scheme: str) -> None:
    opened.media(scheme=scheme)
    ground = opened.ask("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (max(ground) < 60) == (scheme == "dark")
    for selector in TEXTS:
        assert opened.ask(f"({CONTRAST})({selector!r})") >= 4.5, selector


@pytest.mark.parametrize("width", [320, 360, 768])
def test_nothing_sticks_out_of_a_narrow_window(opened: Watched, width: int) -> None:
    opened.window((width, 740), mobile=True)
    assert opened.ask(OUTSIDE) == []
    assert opened.ask("document.documentElement.scrollWidth") == width
    assert opened.ask("parseFloat(getComputedStyle(document.body).fontSize)") == 16
    tile = opened.ask("document.querySelector('.strip:not([hidden]) .tile').getBoundingClientRect().width")
    assert tile >= 24  # WCAG 2.2, the least size of a target
    assert opened.ask(
        "Array.from(document.querySelectorAll('.scroll')).some((one) => one.scrollWidth > one.clientWidth)"
    )


def test_one_strip_of_tiles_at_a_time_chosen_by_the_keyboard(opened: Watched) -> None:
    shown = (
        "Array.from(document.querySelectorAll('.strip')).filter((one) => !one.hidden).map((one) => one.dataset.reading)"
    )
    assert opened.ask(shown) == [READINGS[0]]
    opened.ask("document.querySelectorAll('.choose button')[3].focus()")
    opened.press("Enter")
    assert opened.ask(shown) == [EVIL]
    assert opened.ask("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert opened.ask("document.querySelectorAll('.strip:not([hidden]) .tile').length") == 27


def test_the_keyboard_reaches_skip_link_tiles_and_what_they_lead_to(opened: Watched) -> None:
    opened.press("Tab")
    assert opened.ask("document.activeElement.className") == "skip"
    assert opened.ask("document.activeElement.getBoundingClientRect().top >= 0")
    opened.press("Enter")
    assert opened.ask("location.hash") == "#verdicts"
    reached = []
    for _ in range(60):
        opened.press("Tab")
        if opened.ask("document.activeElement.classList.contains('tile')"):
            reached.append(opened.ask("document.activeElement.getAttribute('aria-label')"))
            if len(reached) == 6:
                break
    assert reached[0].startswith("C1 Falsifiability: pass")
    assert reached[5].startswith("I1 Necessity: pass (narrow)")
    assert opened.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    opened.press("Enter")
    assert opened.ask("location.hash") == "#criterion-i1"
    top = opened.ask("document.getElementById('criterion-i1').getBoundingClientRect().top")
    assert -5 <= top <= DESK[1]


def test_everything_that_is_reached_has_a_name(opened: Watched) -> None:
    nodes = opened.call("Accessibility.getFullAXTree")["nodes"]
    roles = {"link", "button", "image", "region", "img", "group"}
    nameless = [
        node
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in roles and not node.get("name", {}).get("value")
    ]
    named = [node for node in nodes if node.get("role", {}).get("value") == "link"]
    assert len(named) > 100
    assert [node for node in nameless if node["role"]["value"] != "group"] == []
    assert opened.ask("document.documentElement.lang") == "en"
    levels = opened.ask("Array.from(document.querySelectorAll('h1, h2'), (one) => Number(one.tagName[1]))")
    assert levels.count(1) == 1


def test_tables_sort_by_number_and_keep_the_unknown_last(opened: Watched) -> None:
    column = "Array.from(document.querySelectorAll('#evidence tbody tr'), (row) => row.cells[1].dataset.sort)"
    before = opened.ask(column)
    assert "" in before
    opened.ask("document.querySelectorAll('#evidence thead button')[1].focus()")
    known = sorted((value for value in before if value), key=float)
    for order, said in ((known, "ascending"), (known[::-1], "descending")):
        opened.press("Enter")
        assert [float(value) for value in opened.ask(column) if value] == [float(value) for value in order]
        assert opened.ask(column)[-1] == ""
        assert opened.ask("document.querySelectorAll('#evidence thead th')[1].getAttribute('aria-sort')") == said


def test_paper_shows_every_strip_and_no_controls(opened: Watched) -> None:
    opened.media("print", "dark")
    opened.window((794, 1123))  # A4 at 96 dots an inch
    seen = (
        "(s) => Array.from(document.querySelectorAll(s)).filter((one) => one.getBoundingClientRect().height > 0).length"
    )
    assert opened.ask(f"({seen})('.strip')") == len(READINGS)
    assert opened.ask(f"({seen})('.skip, .choose, .save, nav.contents')") == 0
    assert opened.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.ask("getComputedStyle(document.querySelector('.tile.pass')).printColorAdjust") == "exact"
    assert opened.ask(
        "Array.from(document.querySelectorAll('.scroll > svg')).every((one) => one.getBoundingClientRect().right <= 794)"
    )
    printed = base64.b64decode(opened.call("Page.printToPDF", printBackground=True)["data"])
    assert printed.startswith(b"%PDF")


def test_without_its_script_the_page_loses_no_word(browser: Watched, opened: Watched, address: str) -> None:
    with_script = opened.ask("document.querySelector('main').textContent.length")
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open("about:blank")
        browser.open(address)
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
        assert browser.ask("document.querySelectorAll('thead button').length") == 0  # it did not run
        assert browser.ask("Array.from(document.querySelectorAll('.strip')).every((one) => !one.hidden)")
        assert browser.ask("document.querySelector('main').textContent.length") == with_script
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_the_evidence_is_saved_as_json(opened: Watched, tmp_path: Path) -> None:
    saved = opened.ask("JSON.parse(document.getElementById('data').textContent).evidence.map((one) => one.id)")
    assert "some/lesion-mean" in saved
    assert f"some/task-ratio/{EVIL}" in saved
