"""Did the edit work, and what else did it change. `palimpsest.evaluate(...)` is the function of the same name here."""

from palimpsest.evaluate.counterfact import CounterFact
from palimpsest.evaluate.evaluate import SUITES, evaluate
from palimpsest.evaluate.scores import Scores

__all__ = ["SUITES", "CounterFact", "Scores", "evaluate"]
