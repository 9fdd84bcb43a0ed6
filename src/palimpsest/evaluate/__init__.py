"""Did the edit work, and what else did it change. `palimpsest.evaluate(...)` is the function of the same name here."""

from palimpsest.evaluate.answering import answer
from palimpsest.evaluate.evaluate import evaluate
from palimpsest.evaluate.scores import Scores
from palimpsest.evaluate.suite import Metric, Suite, suite_names, suite_of
from palimpsest.evaluate.suites.counterfact import counterfact_scores

__all__ = ["Metric", "Scores", "Suite", "answer", "counterfact_scores", "evaluate", "suite_names", "suite_of"]
