"""The page in a real browser, cut off from every network: it opens, draws its map, and runs no script."""

import shutil
import subprocess
from pathlib import Path

import pytest
from test_page import EVIL, _report

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


@pytest.mark.skipif(BROWSER is None, reason="install chromium to open the page in a real browser")
def test_the_page_opens_offline(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    _report().to_html(page)
    arguments = [
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-quic", "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run([str(BROWSER), *arguments], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.count("<rect") >= 20
    assert "<script" not in done.stdout
    assert EVIL.replace("<", "&lt;").replace(">", "&gt;") in done.stdout
