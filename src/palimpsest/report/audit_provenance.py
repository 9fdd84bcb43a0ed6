"""The end of an audit's page: null audit, gates, plan, hashes, methods and references, as rows and sentences."""

from collections.abc import Mapping
from typing import Any

from palimpsest.report.audit_records import Plain, estimate_of, written
from palimpsest.report.svg import number

REFERENCES = (
    "Campbell and Fiske (1959). Convergent and discriminant validation by the multitrait-multimethod matrix.",
    "Cohen, R. et al. (2023). Evaluating the ripple effects of knowledge editing in language models. arXiv:2307.12976.",
    "Cronbach and Meehl (1955). Construct validity in psychological tests.",
    "Dai et al. (2021). Knowledge neurons in pretrained transformers. arXiv:2104.08696.",
    "Hase et al. (2023). Does localization inform editing? arXiv:2301.04213.",
    "Hill (1910). The possible effects of the aggregation of the molecules of haemoglobin on its dissociation curves.",
    "Holm (1979). A simple sequentially rejective multiple test procedure.",
    "Meng et al. (2022). Locating and editing factual associations in GPT. arXiv:2202.05262.",
    "Meng et al. (2022). Mass-editing memory in a transformer. arXiv:2210.07229.",
    "Shallice (1988). From neuropsychology to mental structure.",
    "Shrout and Fleiss (1979). Intraclass correlations: uses in assessing rater reliability.",
    "Tower. Mechanistic Validity: the framework of criteria, and its case study of knowledge neurons and ROME.",
    "Zhang and Nanda (2023). Towards best practices of activation patching in language models. arXiv:2309.16042.",
)


def gates(report: Plain) -> list[dict[str, Any]]:
    """Each gate: it passed, or the sentence that says why not."""
    return [
        {
            "name": str(name),
            "passed": str(said).lower() in ("", "passed"),
            "says": "passed" if str(said).lower() in ("", "passed") else str(said),
        }
        for name, said in (report.get("gates") or {}).items()
    ]


def provenance(report: Plain) -> list[list[str]]:
    """Hashes and versions."""
    readings = list(report.get("readings") or ())
    rows = [
        ["claim, SHA-256 before any evidence", report.get("claim_sha256") or report.get("claim_hash") or ""],
        ["rules, SHA-256", ", ".join(dict.fromkeys(str(one.get("rules_sha256", "")) for one in readings))],
        ["weights", report.get("weights", "")],
        *([name, version] for name, version in (report.get("versions") or {}).items()),
        ["seed", (report.get("setting") or {}).get("seed", "")],
    ]
    return [[str(name), str(value)] for name, value in rows if value != ""]


def methods(report: Plain) -> list[str]:
    """How it was done, in sentences made from the setting."""
    setting = report.get("setting") or {}
    place = setting.get("place") or {}
    experiments = list(dict.fromkeys(str(one.get("experiment")) for one in report.get("evidence") or ()))
    confirmation, discovery = (len(setting.get(name) or ()) for name in ("confirmation", "discovery"))
    found = []
    if place:
        found.append(
            f"The place is the {place.get('module')} at the {place.get('position')}, {place.get('window')} layers around layer "
            f"{place.get('centre')} of {setting.get('n_layers')}; its centre was chosen on {discovery} discovery facts, and every "
            f"number comes from {confirmation} confirmation facts, whose subjects took no part in the choice."
        )
    if setting.get("layers"):
        found.append(
            f"Windows around the layers {', '.join(map(str, setting['layers']))} were measured, with {setting.get('samples')} "
            f"noise draws of each trace and seed {setting.get('seed')}."
        )
    if cuts := setting.get("cuts"):
        found.append("Fewer facts were used by " + ", ".join(f"{name} ({n})" for name, n in cuts.items()) + ".")
    if experiments:
        found.append(f"Experiments: {', '.join(experiments)}.")
    found.append(
        "Intervals are 95 % and resample relations and the subjects in them unless a record says otherwise. A criterion passes "
        "where the interval's lower end reaches the bar, is partial where it reaches the floor, weak where the interval holds the "
        "floor, and fails where it lies below; p-values of primary endpoints are adjusted after Holm; a null that does not behave "
        "as a null takes one step from the status."
    )
    return found


# kind of empty claim to what it is
EMPTY = {"layers": "another layer", "untrained": "an untrained model", "facts": "numbers dealt anew among the facts"}


def null_tables(nulls: Plain) -> dict[str, Any]:
    """How often each criterion passed claims known to be empty, as tables and sentences; see `palimpsest.audit.nulls`."""
    tables, said = [], []
    rates = list(nulls.get("criteria") or ())
    counts = {str(kind): count for kind, count in (nulls.get("claims") or {}).items() if count}
    if counts:
        said.append(
            "Empty claims: "
            + ", ".join(f"{count} about {EMPTY.get(kind, kind)}" for kind, count in counts.items())
            + "."
        )
    for name, words in (
        ("rate", "Share of (claim, criterion) pairs that passed"),
        ("severity", "Severity, one minus that"),
    ):
        if estimate_of(nulls.get(name)) is not None:
            said.append(f"{words}: {estimate_of(nulls[name])}.")
    if rates:
        rows = [
            [one["criterion"], EMPTY.get(one["kind"], one["kind"]), one["passed"], one["of"], _sortable(one["rate"])]
            for one in rates
        ]
        columns = ["criterion", "empty claim about", "passed", "of", "false-pass rate"]
        tables.append({"title": "Criteria with a matched null", "columns": columns, "rows": rows})
    if kinds := nulls.get("kinds") or {}:
        rows = [[EMPTY.get(str(kind), kind), _sortable(rate)] for kind, rate in kinds.items()]
        tables.append(
            {"title": "By kind of empty claim", "columns": ["empty claim about", "share that passed"], "rows": rows}
        )
    for name, words in (
        ("procedural", "Procedural, computed from the claim, so that an empty claim can meet them"),
        ("unmatched", "Without a matched null in this audit"),
    ):
        if nulls.get(name):
            said.append(f"{words}: {', '.join(map(str, nulls[name]))}.")
    said += [str(sentence) for sentence in nulls.get("failed") or ()]
    return {
        "tables": tables,
        "said": said if tables else [],
        "reason": " ".join(said) or "No empty claims were put to this audit.",
    }


def _sortable(value: object) -> object:
    """A cell; an estimate sorts by its value."""
    found = estimate_of(value)
    if found is None:
        return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)
    return {"text": written(value), "sort": "" if number(found.value) is None else found.value, "class": "n"}


def plan_table(plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """Experiments of the plan, with how many units each was given."""
    steps = [step for step in plan.get("steps") or () if isinstance(step, Mapping)]
    columns = list(dict.fromkeys(str(key) for step in steps for key in step))
    if not steps:
        return None
    return {"columns": columns, "rows": [[_sortable(step.get(column)) for column in columns] for step in steps]}
