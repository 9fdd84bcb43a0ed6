"""Fixtures shared by all tests. Real benchmark records are found through PALIMPSEST_RECORDS and never copied here."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may ask the network
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in networks this small a second thread only waits: ten times slower


@pytest.fixture(scope="session")
def records() -> Path:
    """The folder of real benchmark records; the test is skipped, and says so, without it."""
    named = os.environ.get("PALIMPSEST_RECORDS")
    if not named or not Path(named).is_dir():
        pytest.skip("set PALIMPSEST_RECORDS to the folder with the real benchmark records to run this test")
    return Path(named)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A tiny byte-level BPE without special tokens before the text."""
    import families  # here, because tests without a model need not wait for torch

    return families.byte_tokenizer()


@pytest.fixture(scope="session")
def tiny(tokenizer: Any) -> Callable[[str], Any]:
    """`tiny("gpt2")`: the tiny model of a family, built once and shared, so leave its weights as they are."""
    import families
    from palimpsest.model import load

    @cache
    def of(family: str) -> Any:
        return load(families.build(family), tokenizer=tokenizer, check=False)

    return of
