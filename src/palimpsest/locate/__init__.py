"""Instruments that say where a fact is read from, and the gate that says whether it is known at all."""

from palimpsest.locate.known import Knowledge, ask_each, eligible, knowledge, passing
from palimpsest.locate.trace import Trace, trace

__all__ = ["Knowledge", "Trace", "ask_each", "eligible", "knowledge", "passing", "trace"]
