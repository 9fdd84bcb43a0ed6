"""Rules in a file.

    {
      "palimpsest_rules": 1,
      "relations": {
        "born_in":       {"wordings": ["{} was born in the city of", "The birthplace of {} is"]},
        "city_country":  {"wordings": ["{} is a city in the country of"]},
        "birth_country": {"wordings": ["{} was born in the country of"]},
        "capital":       {"wordings": ["The capital of {} is"]},
        "capital_of":    {"wordings": ["{} is the capital of"], "nothing": "no country"},
        "spouse":        {"wordings": ["{} is married to"], "functional": true, "subjects": ["Ann", "Bob"]}
      },
      "rules": [
        {"inverse": ["capital", "capital_of"]},
        {"symmetric": "spouse"},
        {"composition": ["born_in", "city_country"], "gives": "birth_country"},
        {"composition": ["capital_of"], "gives": "city_country"},
        {"alias": ["New York City", "NYC"]}
      ],
      "facts": [["Lyon", "city_country", "France"]]
    }

`palimpsest_rules` is the version of this format. Only `wordings` must be there of a relation; what each field means stands with
`Relation` and `Rules`. Unknown fields and kinds of rule are refused, so that a misspelt "functoinal" is noticed.
"""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.erase.propagate.rules import Composition, Inverse, Relation, Rule, Rules, Statement
from palimpsest.errors import RecordError, did_you_mean
from palimpsest.runs import atomic_write

VERSION = 1
KEY = "palimpsest_rules"
PARTS = (KEY, "relations", "rules", "facts")
FIELDS = ("wordings", "functional", "nothing", "subjects")
KINDS = ("inverse", "symmetric", "composition", "alias")


def read_rules(path: str | PathLike[str]) -> Rules:
    """The rules of a file.

    Raises:
        RecordError: it cannot be read, is no rule file of this version, or breaks a rule of `Rules`.
    """
    try:
        data = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise RecordError(f"The rules {path} cannot be read ({error.strerror}); name a rule file.") from None
    except UnicodeDecodeError as error:
        raise RecordError(f"The rules {path} are not UTF-8 (byte {error.start}); convert the file first.") from None
    except json.JSONDecodeError as error:
        raise RecordError(
            f"The rules {path} are not JSON (line {error.lineno}: {error.msg}); correct that line."
        ) from None
    try:
        return rules_from(data)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from None


def write_rules(rules: Rules, path: str | PathLike[str]) -> None:
    """Write a file that `read_rules` reads back unchanged."""
    atomic_write(Path(path), json.dumps(rules_to_json(rules), indent=1, ensure_ascii=False) + "\n")


def rules_from(data: Any) -> Rules:
    """Rules from what the file holds.

    Raises:
        RecordError: a part is missing, misspelt or of the wrong form, or the rules do not fit together.
    """
    if not isinstance(data, Mapping) or KEY not in data:
        raise RecordError(f"A rule file is an object with the field {KEY!r}, its version ({VERSION}); add it.")
    if data[KEY] != VERSION:
        raise RecordError(
            f"The version of a rule file must be {VERSION}, got {data[KEY]!r}; use the palimpsest it was written for."
        )
    _known(data, PARTS, "a rule file")
    relations = {
        name: _relation(name, record) for name, record in _typed(data, "relations", dict, "a rule file").items()
    }
    if not relations:
        raise RecordError("A rule file needs at least one relation, got none; add it under 'relations'.")
    records = _typed(data, "rules", list, "a rule file", ())
    rules = [_rule(record, number) for number, record in enumerate(records, start=1)]
    facts = _typed(data, "facts", list, "a rule file", ())
    return Rules(
        relations,
        tuple(rule for rule in rules if not isinstance(rule, tuple)),
        tuple(rule for rule in rules if isinstance(rule, tuple)),
        tuple(_statement(record, number) for number, record in enumerate(facts, start=1)),
    )


def rules_to_json(rules: Rules) -> dict[str, Any]:
    """What the file holds; fields with their usual values are left out."""
    return {
        KEY: VERSION,
        "relations": {name: _relation_to_json(relation) for name, relation in rules.relations.items()},
        "rules": [*map(_rule_to_json, rules.rules), *({"alias": list(names)} for names in rules.aliases)],
        "facts": [list(fact) for fact in rules.facts],
    }


def _relation(name: str, record: Any) -> Relation:
    where = f"the relation {name!r}"
    if not isinstance(record, Mapping):
        raise RecordError(f"A relation is an object with its wordings, got {record!r} for {name!r}.")
    _known(record, FIELDS, where)
    wordings = _texts(record, "wordings", where)
    if not wordings:
        raise RecordError(f"At least one of the wordings of {where} is needed, got none; add '... {{}} ...'.")
    for text in wordings:
        if text.count("{}") != 1 or text != text.strip():
            raise RecordError(
                f"A wording needs one '{{}}' for the subject and no space at its ends, got {text!r} in {where}."
            )
    nothing = record.get("nothing")
    if nothing is not None and (not isinstance(nothing, str) or not nothing.strip()):
        raise RecordError(f"The field 'nothing' of {where} must be text to say for no answer, got {nothing!r}.")
    functional = _typed(record, "functional", bool, where, True)
    return Relation(name, wordings, functional, nothing, _texts(record, "subjects", where))


def _relation_to_json(relation: Relation) -> dict[str, Any]:
    record: dict[str, Any] = {"wordings": list(relation.wordings)}
    if not relation.functional:
        record["functional"] = False
    if relation.nothing is not None:
        record["nothing"] = relation.nothing
    if relation.subjects:
        record["subjects"] = list(relation.subjects)
    return record


def _rule(record: Any, number: int) -> Rule | tuple[str, ...]:
    """A rule, or the names of one entity."""
    where = f"rule {number}"
    kinds = [key for key in record if key != "gives"] if isinstance(record, Mapping) else []
    if len(kinds) != 1:
        raise RecordError(f"A rule is an object with one of {', '.join(KINDS)}, got {record!r} as {where}.")
    kind = kinds[0]
    if kind not in KINDS:
        raise RecordError(f"There is no kind of rule {kind!r}, used by {where}.{did_you_mean(kind, KINDS)}")
    if ("gives" in record) != (kind == "composition"):
        raise RecordError(f"A composition, and no other rule, says what it 'gives', got {dict(record)!r} as {where}.")
    if kind == "symmetric":
        name = _typed(record, "symmetric", str, where)
        return Inverse(name, name)
    names = _texts(record, kind, where)
    if kind == "composition":
        if not names:
            raise RecordError(f"A composition follows at least one relation, got none in {where}.")
        return Composition(names, _typed(record, "gives", str, where))
    if kind == "inverse":
        if len(names) != 2 or names[0] == names[1]:
            raise RecordError(
                f"An inverse rule names two relations, got {list(names)} in {where}; of one relation write symmetric."
            )
        return Inverse(*names)
    if len(names) < 2 or len(set(names)) < len(names):
        raise RecordError(
            f"An alias rule lists two or more different names of one entity, got {list(names)} in {where}."
        )
    return names


def _rule_to_json(rule: Rule) -> dict[str, Any]:
    if isinstance(rule, Composition):
        return {"composition": list(rule.path), "gives": rule.gives}
    return {"symmetric": rule.one} if rule.one == rule.other else {"inverse": [rule.one, rule.other]}


def _statement(record: Any, number: int) -> Statement:
    if (
        not isinstance(record, list)
        or len(record) != 3
        or not all(isinstance(part, str) and part.strip() for part in record)
    ):
        raise RecordError(f"A fact is [subject, relation, object], got {record!r} as fact {number}.")
    return Statement(*record)


def _known(record: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    for name in record:
        if name not in names:
            raise RecordError(f"There is no field {name!r} in {where}.{did_you_mean(name, names)}")


def _typed(record: Mapping[str, Any], name: str, kind: type, where: str, default: Any = None) -> Any:
    value = record.get(name, default)
    if (name in record or default is None) and not isinstance(value, kind):
        called = {dict: "an object", list: "a list", str: "text", bool: "true or false"}[kind]
        raise RecordError(f"The field {name!r} of {where} must be {called}, got {value!r}.")
    return value


def _texts(record: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    values = _typed(record, name, list, where, ())
    for value in values:
        if not isinstance(value, str) or not value.strip():
            raise RecordError(f"The field {name!r} of {where} must hold texts, got {value!r}.")
    return tuple(values)
