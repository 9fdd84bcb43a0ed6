"""An edit with its consequences: rules over relations, what they entail, and one edit that writes it all."""

from palimpsest.erase.propagate.ask import ask, plan
from palimpsest.erase.propagate.derive import derive
from palimpsest.erase.propagate.guard import Bystander, Guard, bystanders
from palimpsest.erase.propagate.plan import Hop, Plan, Step
from palimpsest.erase.propagate.propagate import Propagated, propagate
from palimpsest.erase.propagate.rule_file import read_rules, rules_from, rules_to_json, write_rules
from palimpsest.erase.propagate.rules import Composition, Inverse, Relation, Rules, Statement

__all__ = [
    "Bystander",
    "Composition",
    "Guard",
    "Hop",
    "Inverse",
    "Plan",
    "Propagated",
    "Relation",
    "Rules",
    "Statement",
    "Step",
    "ask",
    "bystanders",
    "derive",
    "plan",
    "propagate",
    "read_rules",
    "rules_from",
    "rules_to_json",
    "write_rules",
]
