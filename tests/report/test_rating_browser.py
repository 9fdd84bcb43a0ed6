"""The rating page in a real browser, cut off from every network: answered with the keyboard, reloaded, saved, scored."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from palimpsest.evaluate.rating import Text, make_study, read_choices, score
from palimpsest.report.rating_page import rating_page

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
EVIL = "<script>document.title='broken'; alert(1)</script>"
KEYS = {
    "Tab": ("Tab", 9, ""),
    " ": ("Space", 32, " "),
    "Enter": ("Enter", 13, "\r"),
    "ArrowRight": ("ArrowRight", 39, ""),
}


class Browser:
    """A page of a headless browser, spoken to over two pipes (the DevTools protocol, messages ended by a zero byte)."""

    def __init__(self, profile: Path) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        arguments = [
            "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-quic", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank",
        ]  # fmt: skip
        # the browser reads from its descriptor 3 and writes to 4; a shell puts the pipes there
        command = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", command, str(BROWSER), *arguments],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.reader, self.writer = os.fdopen(ours_in, "rb"), os.fdopen(ours_out, "wb", buffering=0)
        self.count, self.session = 0, ""
        self.dialogs = 0
        target = self.call("Target.getTargets")["targetInfos"][0]["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.writer.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]

    def receive(self) -> dict[str, Any]:
        """The next message; dialogs are counted."""
        data = b""
        while not data.endswith(b"\0"):
            byte = self.reader.read(1)
            assert byte, "the browser ended"
            data += byte
        message = json.loads(data[:-1])
        self.dialogs += message.get("method") == "Page.javascriptDialogOpening"
        return message

    def open(self, address: str) -> None:
        """Load a page and wait for it."""
        self.call("Page.navigate", url=address)
        while self.receive().get("method") != "Page.loadEventFired":
            pass

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str) -> None:
        """One key, down and up."""
        code, number, text = KEYS[key] if key in KEYS else (f"Key{key.upper()}", ord(key.upper()), key)
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            extra = {"text": text} if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number, **extra)

    def close(self) -> None:
        """End the browser."""
        self.session = ""
        self.call("Browser.close")
        self.process.wait(timeout=20)
        self.reader.close()
        self.writer.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if BROWSER is None:
        pytest.skip("install chromium to open the page in a real browser")
    made = Browser(tmp_path / "profile")
    yield made
    made.close()


def test_answered_with_the_keyboard_reloaded_saved_and_scored(tmp_path: Path, browser: Browser) -> None:
    texts = {
        editor: [Text(f, f, f"{f} {EVIL} is in Rome.", f"About {f} {EVIL}", f" {editor} {f} {EVIL}") for f in "abc"]
        for editor in ("one", "two")
    }
    study = make_study(texts["one"], texts["two"], names=("one", "two"))
    page = tmp_path / "page.html"
    page.write_text(rating_page(study), encoding="utf-8")
    browser.open(page.as_uri())
    assert browser.ask("document.title") == "Which text is better?"
    assert EVIL in browser.ask("document.querySelector('.statement').textContent")
    shown = "Array.from(document.querySelectorAll('section.pair')).filter(s => !s.hidden).map(s => s.dataset.pair)"
    assert browser.ask(shown) == ["1"]

    browser.press("Tab")  # the rater's name
    for letter in "ann":
        browser.press(letter)
    browser.press("Tab")
    browser.press(" ")  # left is more consistent
    browser.press("Tab")
    browser.press(" ")
    browser.press("ArrowRight")  # neither is more fluent
    assert browser.ask("document.getElementById('progress').textContent") == "1 of 3 pairs answered"
    browser.press("Tab")  # Back is disabled on the first pair
    browser.press("Enter")
    assert browser.ask(shown) == ["2"]
    browser.press("Tab")
    browser.press("ArrowRight")
    browser.press("ArrowRight")  # from left over neither to right

    browser.open("about:blank")  # closed: what the page stored leaves its process before another reads it
    browser.open(page.as_uri())  # and opened again
    assert browser.ask(shown) == ["2"]
    assert browser.ask("document.getElementById('rater').value") == "ann"
    assert browser.ask("document.querySelector('input[data-pair=\"1\"]:checked').value") == "left"

    folder = tmp_path / "downloads"
    folder.mkdir()
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.call(
        "Runtime.evaluate", expression="document.getElementById('save').focus()", returnByValue=True, userGesture=True
    )
    browser.press("Enter")
    saved = folder / "choices-ann.json"
    deadline = time.monotonic() + 20
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    judged = read_choices(saved)
    assert judged.rater == "ann"
    assert judged.choices["1"] == {"consistent": "left", "fluent": "tie"}
    first = score(study, [judged])[0]
    assert first.first + first.second + first.ties == len(judged.choices)
    assert browser.dialogs == 0


def test_no_other_script_runs_and_no_address_is_asked(tmp_path: Path, browser: Browser) -> None:
    study = make_study([Text("f", "s", "S.", "P", " a")], [Text("f", "s", "S.", "P", " b")])
    html = rating_page(study).replace("<main>", f"<main>{EVIL}<img src='https://example.org/x.png'>")
    page = tmp_path / "page.html"
    page.write_text(html, encoding="utf-8")
    browser.open(page.as_uri())
    assert browser.ask("document.title") == "Which text is better?"
    assert browser.ask("document.querySelector('img').naturalWidth") == 0
    assert browser.ask("performance.getEntriesByType('resource').filter(e => e.responseStatus > 0).length") == 0
    assert browser.dialogs == 0
    assert "1 pairs answered" in browser.ask("document.getElementById('progress').textContent")  # its own script ran
