"""Panels made from evidence alone: maps on one scale, planted truth, the residual of the old answer.

Shapes are those that the experiments keep in `Evidence.data`: a profile is {"layers", "value", "low", "high"}, by position in the
prompt. A shape that is not there leaves its figure out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from palimpsest.report.audit_blocks import Panel, data_of, figure, grid, heading, record_words, sortable, words
from palimpsest.report.audit_charts import Axes, Curve, Mark, bars, curves, heat, scatter
from palimpsest.report.audit_records import Plain, Records, estimate_of
from palimpsest.report.audit_view import why_not
from palimpsest.report.svg import number
from palimpsest.statistics import Estimate

# endpoint to the words of its rows; all of them are shares of the total effect and share one scale
SHARES = (
    ("restoration", "restored, MLP"),
    ("restoration-state", "restored, state"),
    ("lesion-interchange", "lesion: interchange"),
    ("lesion-mean", "lesion: mean"),
    ("lesion-resample", "lesion: resample"),
    ("lesion-weights", "lesion: weights"),
    ("lesion-zero", "lesion: zero"),
)
POSITIONS = (("last subject token", "S"), ("last token", "F"))


def maps(report: Plain, records: Records) -> Panel:
    """Restoration, lesions and the untrained model by layer, at the last subject token (S) and the last token (F)."""
    rows: list[Any] = []
    layers: list[Any] = []
    blocks: list[dict[str, Any]] = []
    for endpoint, name in SHARES:
        found = data_of(records, endpoint).get("profiles") or {}
        for position, letter in POSITIONS:
            profile = found.get(position)
            if profile and profile.get("value"):
                layers = layers or list(profile["layers"])
                rows.append(
                    (f"{name}, {letter}", dict(zip(profile["layers"], zip(*_ends(profile), strict=True), strict=True)))
                )
    if rows:
        largest = max((abs(v) for _, row in rows for v, _, _ in row.values() if v is not None), default=1.0)
        values = [[row.get(layer, (None,) * 3)[0] for layer in layers] for _, row in rows]
        titles = [[_cell_title(name, layer, row.get(layer)) for layer in layers] for name, row in rows]
        drawn = heat(
            "effects by layer and token, as shares of the total effect",
            [n for n, _ in rows],
            layers,
            values,
            largest,
            titles,
        )
        blocks.append(
            figure(
                drawn,
                f"Share of the total effect by layer (centre of the window): darkest is {largest:.2f}, white is "
                "nothing, the other colour is below nothing. S is the last subject token, F the last token.",
            )
        )
        blocks += _profile_lines(records, (report.get("setting") or {}).get("place") or {})
    blocks += _untrained(records)
    blocks += [
        block for endpoint, name in SHARES[:4] for block in record_words(records, endpoint, f"At the place, {name}")
    ]
    return Panel(
        "maps",
        "Where: maps and their controls",
        "Restoring and removing are two questions: what brings the answer back, and what it needs. All maps of one kind share one "
        "scale, and the untrained model stands beside the trained one in the unit of both.",
        blocks,
        why_not(report, "restoration", "lesion-mean"),
    )


def _profile_lines(records: Records, place: Plain) -> list[dict[str, Any]]:
    series = []
    for endpoint, name in (SHARES[0], SHARES[3], SHARES[2]):
        for position, letter in POSITIONS:
            profile = (data_of(records, endpoint).get("profiles") or {}).get(position)
            if profile and profile.get("value"):
                value, low, high = _ends(profile)
                series.append(Curve(f"{name}, {letter}", [float(x) for x in profile["layers"]], value, low, high))
    centre = number(place.get("centre"))
    marks = () if centre is None else (Mark(centre, "the place"),)
    drawn = curves("the same with intervals", series, Axes("layer", "share of the total effect", marks=marks))
    return [figure(drawn, "The same with 95 % intervals over facts.")] if series else []


def _untrained(records: Records) -> list[dict[str, Any]]:
    found = data_of(records, "baseline-gap").get("profiles") or {}
    rows: list[Any] = []
    layers: list[Any] = []
    series: list[Curve] = []
    for position, letter in POSITIONS:
        profile = found.get(position) or {}
        for name in ("trained", "untrained"):
            if profile.get(name):
                layers = layers or list(profile["layers"])
                rows.append((f"{name}, {letter}", [number(v) for v in profile[name]]))
                series.append(
                    Curve(rows[-1][0], [float(x) for x in profile["layers"]], profile[name], quiet=name == "untrained")
                )
    if not rows:
        return []
    largest = max((abs(v) for _, row in rows for v in row if v is not None), default=1.0)
    drawn = heat("trained and untrained, in logits", [n for n, _ in rows], layers, [row for _, row in rows], largest)
    said = (
        f"The same trace in the trained and in an untrained model, in logits, on one scale: darkest is {largest:.3g}."
    )
    return [figure(drawn, said), *record_words(records, "baseline-gap", "Above the highest of the baselines")]


def _ends(profile: Plain) -> tuple[list[float | None], list[float | None], list[float | None]]:
    value = [number(v) for v in profile.get("value") or ()]
    none = [None] * len(value)
    low, high = ([number(v) for v in profile.get(end) or none] for end in ("low", "high"))
    return value, low, high


def _cell_title(name: str, layer: object, ends: Sequence[float | None] | None) -> str:
    if ends is None or ends[0] is None:
        return f"{name}, layer {layer}: not measured"
    inside = "" if ends[1] is None or ends[2] is None else f" [{ends[1]:.3f}, {ends[2]:.3f}]"
    return f"{name}, layer {layer}: {ends[0]:.3f}{inside}"


def planted(report: Plain, records: Records) -> Panel:
    """What the instrument reports where the truth was planted."""
    blocks: list[dict[str, Any]] = []
    found = data_of(records, "sensitivity")
    slope = estimate_of((records.first("sensitivity-slope") or {}).get("estimate"))
    if found.get("planted"):
        blocks.append(_reported(found, slope))
    rows = [
        {
            "name": f"{record.get('endpoint')}{f', {about}' if (about := record.get('about')) else ''}",
            **record["estimate"],
        }
        for endpoint in ("sensitivity", "storage-or-entity")
        for record in records.of(endpoint)
    ]
    positive = found.get("positive_control")
    if isinstance(positive, Mapping):
        rows.append({"name": "oracle (weight graft)", **positive})
    drawn = bars("AUROC by instrument", rows, include=(0.0, 0.5, 1.0), axis="AUROC; 0.5 is chance")
    if drawn:
        blocks.append(
            figure(
                drawn, "Whether a planted layer is told from the others, and stored attributes from processed names."
            )
        )
    for endpoint, name in (
        ("sensitivity", "Sensitivity"),
        ("sensitivity-slope", "Slope of reported on planted layer"),
        ("storage-or-entity", "Storage told from entity processing"),
        ("calibration", "Calibration"),
        ("reference", "Published reference"),
    ):
        blocks += record_words(records, endpoint, name)
    return Panel(
        "planted",
        "Planted truth: can this instrument see it?",
        "Models into which facts were planted at a known place certify the instrument, not the model that is audited: what is "
        "known of an instrument caps at partial for a claim about another model.",
        blocks,
        why_not(report, "sensitivity"),
    )


def _reported(found: Plain, slope: Estimate | None) -> dict[str, Any]:
    """Reported against planted layer, one dot an organism."""
    dots = [
        (a, b, str(name))
        for a, b, name in zip(
            found["planted"],
            found["reported"],
            found.get("organisms") or [""] * len(found["planted"]),
            strict=False,
        )
    ]
    drawn = scatter(
        "reported against planted layer",
        dots,
        "planted layer",
        "reported layer",
        None if slope is None else slope.value,
    )
    return figure(
        drawn,
        "Each dot is a model whose facts were put into one known layer; on the dotted line the "
        "instrument reports it; a level line is an instrument that does not see it.",
    )


def residual(report: Plain, records: Records) -> Panel:
    """What is left of the old answer after the edit."""
    blocks: list[dict[str, Any]] = []
    for record in records.of("residue"):
        data = record.get("data") or {}
        for name, profile in data.items():
            if isinstance(profile, Mapping) and profile.get("layers") and profile.get("value"):
                value, low, high = _ends(profile)
                drawn = curves(
                    f"old answer by layer: {name}",
                    [Curve(str(name), [float(x) for x in profile["layers"]], value, low, high)],
                    Axes("layer", str(name)),
                )
                blocks += [
                    heading(str(name).replace("_", " ")),
                    figure(drawn, "By layer, with 95 % intervals where they were made."),
                ]
        rows = [
            [str(name).replace("_", " "), sortable(one)] for name, one in data.items() if estimate_of(one) is not None
        ]
        if rows:
            blocks.append(grid("Readouts of the old answer", ["readout", "AUC against controls"], rows))
    blocks += record_words(records, "residue", "1 - AUC by which the old answer still shows (0.5 is clean)")
    for endpoint, name in (
        ("edit-free", "Freely written"),
        ("edit-success", "By comparison of probabilities"),
        ("facets", "Facets measured"),
        ("nominal-coherence", "Nominal score against coherence"),
    ):
        blocks += record_words(records, endpoint, name)
    facets = data_of(records, "facets").get("facets") or {}
    if facets:
        rows = [[str(name), sortable(one, records.href("facets"))] for name, one in facets.items()]
        blocks.append(grid("Facets of the edit", ["facet", "success, or what is kept"], rows))
    if blocks and not records.of("residue"):
        blocks.insert(0, words(f"The residue itself was not measured: {why_not(report, 'residue')}"))
    return Panel(
        "residual",
        "What is left of the old answer",
        "An edit that makes the new answer likelier need not remove the old one; edited facts are compared with facts that have "
        "the same answer and were never edited.",
        blocks,
        why_not(report, "residue", "facets"),
    )
