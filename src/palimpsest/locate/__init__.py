"""Instruments that say where a fact is read from, and the gate that says whether it is known at all."""

from palimpsest.locate.known import Knowledge, eligible, knowledge
from palimpsest.locate.trace import Trace, trace

__all__ = ["Knowledge", "Trace", "eligible", "knowledge", "trace"]
