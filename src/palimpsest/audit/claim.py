"""`Claim`: a sentence about where something is, in the readings it may have, with predictions frozen before any evidence.

    claim = read_claim("rome-2022")
    claim.reading("storage").tag                    # "storage"
    claim.sha256                                    # recorded first; a prediction changed later is refused

One sentence of a paper says several things of different strength, and each gets its own verdict: that a place *mediates* recall,
that an edit there *changes* what is recalled, that the content is *stored* there, that the same *holds across models*. A reading
carries a tag, the level at which it speaks, and its predictions: an endpoint with a floor and a bar, larger always better, and
the rivals that predict the opposite. A prediction that no rival denies tests nothing but luck.

The hash is SHA-256 over the claim's JSON with sorted keys and no spaces, so that neither indentation nor the order in which
somebody wrote the fields changes it, and every word, number and name does.

A claim is a file like those in `audit/data/claims`; a path to one's own file works wherever a shipped name does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palimpsest.audit.setting import SUBJECT, Place
from palimpsest.errors import InputError, RecordError, SettingError, did_you_mean
from palimpsest.facts import Fact

if TYPE_CHECKING:
    from palimpsest.audit.rules import Rules

SCHEMA = "palimpsest-claim/1"
TAGS = (
    "functional",
    "representational",
    "causal-mechanistic",
    "structural-mechanistic",
    "storage",
    "transportable",
)
DIMENSIONS = ("models", "relations", "templates", "languages", "n_facts")
EVERY = "*"


@dataclass(frozen=True)
class Scope:
    """What something is claimed of, or was tested on.

    Each of `models`, `relations`, `templates` and `languages` is a tuple of names, or of the one word "*" for every one there
    is, or a number: at least so many different ones. `n_facts` is a number.
    """

    models: tuple[str, ...] | int = ()
    relations: tuple[str, ...] | int = ()
    templates: tuple[str, ...] | int = ()
    languages: tuple[str, ...] | int = ()
    n_facts: int = 0

    def coverage(self, tested: Scope) -> dict[str, float]:
        """Per claimed dimension, the share that was tested: of names those met, of a number how much of it, of "*" nothing."""
        shares = {}
        for name in DIMENSIONS:
            wanted, met = getattr(self, name), getattr(tested, name)
            count = met if isinstance(met, int) else len(set(met))
            if isinstance(wanted, int):
                if wanted:
                    shares[name] = min(1.0, count / wanted)
            elif wanted:
                known = set() if isinstance(met, int) else set(met)
                shares[name] = len(set(wanted) & known) / len(set(wanted)) if EVERY not in wanted else 0.0
        return shares

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        return {name: value if isinstance(value := getattr(self, name), int) else list(value) for name in DIMENSIONS}

    @classmethod
    def tested(cls, model: str, facts: Iterable[Fact]) -> Scope:
        """What measuring these facts on a model covers; wordings are those of the fact with the fewest."""
        measured = list(facts)
        return cls(
            models=(model,),
            relations=tuple(sorted({fact.relation for fact in measured})),
            templates=min((1 + len(fact.paraphrases) for fact in measured), default=0),
            languages=("English",) if measured else (),
            n_facts=len(measured),
        )

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Scope:
        """The scope `to_json` wrote; a lone name stands for a list of one."""
        given: dict[str, Any] = {}
        for name, value in record.items():
            if name not in DIMENSIONS:
                raise RecordError(f"A scope has no {name!r}.{did_you_mean(name, DIMENSIONS)}")
            given[name] = value if isinstance(value, int) else ((value,) if isinstance(value, str) else tuple(value))
        return cls(**given)


@dataclass(frozen=True)
class Prediction:
    """One endpoint, with where it must lie for the reading to stand.

    Attributes:
        id: unique in its reading.
        text: the prediction in words.
        criterion, endpoint: what it speaks to and how it is measured.
        floor, bar: below the floor it is contradicted, above the bar confirmed.
        rivals: those that predict the opposite.
        post_hoc: made after evidence was seen: it is shown and does not count.
    """

    id: str
    text: str
    criterion: str
    endpoint: str
    floor: float
    bar: float
    rivals: tuple[str, ...] = ()
    post_hoc: bool = False


@dataclass(frozen=True)
class Reading:
    """One of the things the claim may mean.

    Attributes:
        id, text: its name and its sentence.
        tag: the level it speaks at, one of `TAGS`; "" where the file does not say.
        predictions: see `Prediction`.
        rivals: name to what it says, for everything that would explain the same findings otherwise.
        decisive: criteria whose FAIL speaks against the reading itself, and makes it "Disconfirmed".
        scope: what it is claimed of.
        not_applicable: criterion to the reason in the claim's own structure; cost is no reason.
    """

    id: str
    text: str
    tag: str
    predictions: tuple[Prediction, ...]
    rivals: Mapping[str, str]
    decisive: tuple[str, ...]
    scope: Scope
    not_applicable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClaimedPlace:
    """Where a claim points: a module, a position, and a window of layers or None, to be chosen on the discovery facts.

    A claim's file says "layers": "discover", or lists layers; `centre` is then the one in the middle of them. What is to be
    discovered may be bounded by "depth": a claim about middle layers is not tested at the first one because that restores most.

    Attributes:
        module, position: see `palimpsest.audit.setting.Place`.
        centre, window: None where the file leaves them open.
        depth: least and greatest depth of the centre: 0 is the first layer, 1 the last.
    """

    module: str
    position: str
    centre: int | None
    window: int | None
    depth: tuple[float, float] = (0.0, 1.0)

    def within(self, layers: Sequence[int], n_layers: int) -> list[int]:
        """Those of `layers` that lie in the depths claimed; where none does, the one nearest to their middle."""
        low, high = self.depth
        found = [layer for layer in layers if low <= layer / max(1, n_layers - 1) <= high]
        return found or [min(layers, key=lambda layer: abs(layer / max(1, n_layers - 1) - (low + high) / 2))]


@dataclass(frozen=True)
class Claim:
    """A claim, as its file says it.

    Attributes:
        id, text, source: as in the file, where the id is called "name".
        place: where it points.
        readings: in the order of the file.
        record: the file's JSON, from which `sha256` is computed.
    """

    id: str
    text: str
    source: str
    place: ClaimedPlace
    readings: tuple[Reading, ...]
    record: Mapping[str, Any]

    @property
    def sha256(self) -> str:
        """Of the claim's JSON with sorted keys and no spaces."""
        return canonical_sha256(self.record)

    def reading(self, name: str) -> Reading:
        """A reading by its id."""
        for one in self.readings:
            if one.id == name:
                return one
        known = [one.id for one in self.readings]
        raise SettingError(f"The claim {self.id!r} has no reading {name!r}.{did_you_mean(name, known)}")

    def to_json(self) -> dict[str, Any]:
        """The file's JSON."""
        return dict(self.record)

    @classmethod
    def from_json(cls, record: Mapping[str, Any], where: str = "The claim") -> Claim:
        """A claim from the JSON of its file.

        Raises:
            RecordError: a field is missing, unknown or of the wrong kind; the sentence names it.
        """
        _fields(record, where, ("schema", "name", "text", "source", "place", "scope", "readings"), ())
        if record["schema"] != SCHEMA:
            raise RecordError(
                f'{where} has the schema {record["schema"]!r}, and this version reads {SCHEMA!r}; set "schema" to that '
                "and check the fields against a shipped claim."
            )
        place = record["place"]
        _fields(place, f"{where}: its place", ("module",), ("position", "layers", "window", "depth"))
        layers = place.get("layers", "discover")
        if layers != "discover" and not (
            isinstance(layers, list) and layers and all(isinstance(i, int) for i in layers)
        ):
            raise RecordError(f'{where} names its layers as "discover" or as a list of numbers, got {layers!r}.')
        depth = place.get("depth", [0.0, 1.0])
        if not (
            isinstance(depth, list)
            and len(depth) == 2
            and all(isinstance(end, int | float) for end in depth)
            and 0 <= depth[0] <= depth[1] <= 1
        ):
            raise RecordError(
                f"{where} gives its depth as two numbers between 0 and 1, the least first, got {depth!r}."
            )
        if "depth" in place and layers != "discover":
            raise RecordError(f'{where} lists its layers and gives a depth too; leave out one, or write "discover".')
        position = place.get("position", SUBJECT)
        Place(place["module"], 0, place.get("window") or 1, position)  # its own sentence where a name is wrong
        if not record["readings"]:
            raise RecordError(f"{where} has no reading; give at least one, with the sentence it stands for.")
        readings = tuple(_reading(one, record, f"{where}: reading {i}") for i, one in enumerate(record["readings"]))
        if len({one.id for one in readings}) < len(readings):
            raise RecordError(f"{where} has two readings of the same id; give each its own.")
        return cls(
            id=record["name"],
            text=record["text"],
            source=record["source"],
            place=_place(place["module"], position, layers, place.get("window"), (float(depth[0]), float(depth[1]))),
            readings=readings,
            record=json.loads(json.dumps(record)),
        )


def canonical_sha256(record: Mapping[str, Any]) -> str:
    """SHA-256 of JSON with sorted keys and no spaces."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()


def shipped_claims() -> list[str]:
    """Names of the claims that come with the package."""
    folder = resources.files("palimpsest.audit").joinpath("data/claims")
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def read_claim(name_or_path: str | Path, rules: Rules | None = None) -> Claim:
    """A shipped claim by its name, or one's own by its path, checked against rules.

    Args:
        name_or_path: "rome-2022", or a file that ends in .json.
        rules: whose criteria and endpoints predictions may name; those of the preset "mv27-formal" by default.

    Raises:
        SettingError: there is no shipped claim of this name.
        RecordError: the file cannot be read, or is not a claim, or names an unknown criterion or endpoint.
    """
    from palimpsest.audit.rules import read_rules

    text, where = read_text(name_or_path, "claims", shipped_claims())
    claim = Claim.from_json(parsed(text, where), where)
    check_names(claim, rules or read_rules("mv27-formal"), where)
    return claim


def check_names(claim: Claim, rules: Rules, where: str = "The claim") -> None:
    """Whether every criterion and endpoint the claim names exists.

    Raises:
        RecordError: one does not; it says which, where, and what was probably meant.
    """
    for reading in claim.readings:
        at = f"{where}: reading {reading.id!r}"
        named = [(one.criterion, f"prediction {one.id!r}") for one in reading.predictions]
        named += [(name, "decisive") for name in reading.decisive]
        named += [(name, "not_applicable") for name in reading.not_applicable]
        for name, which in named:
            if name not in rules.criteria:
                raise RecordError(f"{at}, {which}, names the criterion {name!r}.{did_you_mean(name, rules.criteria)}")
        for one in reading.predictions:
            if one.endpoint not in rules.endpoints:
                meant = did_you_mean(one.endpoint, rules.endpoints)
                raise RecordError(f"{at}, prediction {one.id!r}, names the endpoint {one.endpoint!r}.{meant}")


def require_unchanged(claim: Claim, stored: str) -> None:
    """Whether the claim is the one whose hash was stored before any evidence.

    Raises:
        InputError: it is not.
    """
    if claim.sha256 != stored:
        raise InputError(
            f"The claim {claim.id!r} was changed after evidence exists: its hash was {stored[:12]} and is "
            f"{claim.sha256[:12]}; restore the file, or audit the changed claim in a new folder."
        )


def read_text(name_or_path: str | Path, kind: str, shipped: Sequence[str]) -> tuple[str, str]:
    """The text of a shipped file of `data/{kind}` or of a path, and what to call it in a message."""
    name = str(name_or_path)
    if name in shipped:
        file = resources.files("palimpsest.audit").joinpath(f"data/{kind}/{name}.json")
        return file.read_text("utf-8"), f"{name}.json"
    path = Path(name_or_path)
    if not name.endswith(".json"):
        raise SettingError(
            f"There are no {kind} called {name!r}, and it is no file that ends in .json.{did_you_mean(name, shipped)}"
        )
    try:
        return path.read_text("utf-8"), path.name
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(
            f"The file {name!r} cannot be read as text ({error}); check its path and that it is UTF-8."
        ) from error


def parsed(text: str, where: str) -> dict[str, Any]:
    """The JSON object in `text`."""
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecordError(f"{where} is not JSON: line {error.lineno}, column {error.colno}: {error.msg}.") from error
    if not isinstance(record, dict):
        raise RecordError(f"{where} holds one JSON object, got a {type(record).__name__}.")
    return record


def _place(
    module: str, position: str, layers: list[int] | str, window: int | None, depth: tuple[float, float]
) -> ClaimedPlace:
    if isinstance(layers, str):
        return ClaimedPlace(module, position, None, window, depth)
    ascending = sorted(layers)
    return ClaimedPlace(module, position, ascending[len(ascending) // 2], window or len(ascending))


def _reading(record: Mapping[str, Any], claim: Mapping[str, Any], where: str) -> Reading:
    _fields(record, where, ("id", "text", "predictions", "rivals"), ("tag", "decisive", "scope", "not_applicable"))
    tag = record.get("tag", "")
    if tag and tag not in TAGS:
        raise RecordError(f"{where} has the tag {tag!r}.{did_you_mean(tag, TAGS)}")
    rivals = record["rivals"]
    if not isinstance(rivals, Mapping):
        raise RecordError(f"{where} gives its rivals as an object, name to what it says, got {rivals!r}.")
    predictions = tuple(_prediction(one, f"{where}: prediction {i}") for i, one in enumerate(record["predictions"]))
    if len({one.id for one in predictions}) < len(predictions):
        raise RecordError(f"{where} has two predictions of the same id; give each its own.")
    for one in predictions:
        for rival in one.rivals:
            if rival not in rivals:
                raise RecordError(
                    f"{where}, prediction {one.id!r}, is denied by {rival!r}, which is no rival.{did_you_mean(rival, rivals)}"
                )
    for name, reason in record.get("not_applicable", {}).items():
        if not str(reason).strip():
            raise RecordError(
                f"{where} calls {name} not applicable without a reason; argue it from the claim, not from cost."
            )
    return Reading(
        id=record["id"],
        text=record["text"],
        tag=tag,
        predictions=predictions,
        rivals=dict(rivals),
        decisive=tuple(record.get("decisive", ())),
        scope=Scope.from_json({**claim["scope"], **record.get("scope", {})}),
        not_applicable=dict(record.get("not_applicable", {})),
    )


def _prediction(record: Mapping[str, Any], where: str) -> Prediction:
    _fields(record, where, ("id", "text", "criterion", "endpoint", "floor", "bar"), ("rivals", "post_hoc"))
    if not all(isinstance(record[name], int | float) for name in ("floor", "bar")) or record["floor"] > record["bar"]:
        raise RecordError(
            f"{where} needs numbers with its floor at most its bar, got {record['floor']!r} and {record['bar']!r}; "
            "larger is always better, so turn the sign of what should be small."
        )
    return Prediction(**{**record, "rivals": tuple(record.get("rivals", ()))})


def _fields(record: Any, where: str, required: Sequence[str], optional: Sequence[str]) -> None:
    if not isinstance(record, Mapping):
        raise RecordError(f"{where} is a JSON object, got {record!r:.60}.")
    for name in required:
        if name not in record:
            raise RecordError(f"{where} lacks the field {name!r}; a shipped claim shows how it is written.")
    for name in record:
        if name not in (*required, *optional):
            raise RecordError(
                f"{where} has a field {name!r} that nothing reads.{did_you_mean(name, (*required, *optional))}"
            )
