"""docs/locate-on-smollm2.md and its figures, from results/locate/ alone; `python experiments/locate_smollm2.py page` runs it."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from palimpsest.locate.tracing.plot import plot_profiles, plot_role_maps
from palimpsest.locate.tracing.roles import ROLES, RoleProfile
from palimpsest.runs import atomic_write

ROOT = Path(__file__).parents[1]
RESULTS, PAGE, FIGURES = ROOT / "results" / "locate", ROOT / "docs" / "locate-on-smollm2.md", ROOT / "docs" / "figures"
KINDS = ("state", "mlp", "attn")
NAMES = {"state": "states", "mlp": "MLP outputs, window 10", "attn": "attention outputs, window 10"}
P, LOG, LOGIT = "probability", "log-probability", "logit-difference"


def load(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def est(e: Any, digits: int = 3) -> str:
    """value [low, high]."""
    if e is None or e.get("value") is None:
        return "-"
    ends = "" if e["low"] is None else f" [{e['low']:.{digits}f}, {e['high']:.{digits}f}]"
    return f"{e['value']:.{digits}f}{ends}"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def profile(part: str, label: str, score: str, title: str) -> RoleProfile:
    stored = load(part)["maps"][label][score]["average"]
    return RoleProfile.from_json(stored | {"label": title})


def best(part: str, label: str, score: str, role: str) -> tuple[int, dict[str, float]]:
    """The layer where the average of a role is largest, and its estimate (too narrow: it was chosen)."""
    lines = load(part)["maps"][label][score]["average"]
    own = lines["roles"][role]
    i = max(range(len(own["mean"])), key=lambda i: own["mean"][i])
    return lines["layers"][i], {"value": own["mean"][i], "low": own["low"][i], "high": own["high"][i]}


def figures() -> None:
    FIGURES.mkdir(parents=True, exist_ok=True)

    def save(figure: Any, name: str) -> None:
        figure.savefig(FIGURES / f"{name}.png", dpi=110)

    for part, title in (("noise", "noise"), ("swap", "swap"), ("lesion", "lesion by interchange")):
        profiles = [profile(part, kind, P, f"{NAMES[kind]}, {title}") for kind in KINDS]
        save(plot_role_maps(profiles), f"locate-{part}-maps")
        save(plot_profiles(profiles), f"locate-{part}-roles")
    severed = [
        profile("noise", label, P, f"states{title}")
        for label, title in (
            ("state", ""),
            ("state, mlp severed", ", MLPs severed"),
            ("state, attn severed", ", attention severed"),
        )
    ]
    save(plot_profiles(severed), "locate-severed-roles")
    kinds = [
        profile("noise", "state", LOGIT, "facts, states"),
        profile("syntax", "state", LOGIT, "determiner-noun pairs, states"),
        profile("reasoning", "state", LOGIT, "reasoning, states"),
    ]
    save(plot_profiles(kinds), "locate-facts-and-syntax")


def totals() -> str:
    rows = []
    for part, label in (
        ("noise", "state"),
        ("swap", "state"),
        ("untrained", "state"),
        ("syntax", "state"),
        ("syntax", "state, swap"),
        ("reasoning", "state"),
    ):
        entry = load(part)["maps"][label]
        known = sum(fact["known"] for fact in entry["facts"])
        averaged = sum(fact["averaged"] for fact in entry["facts"])
        cells = [est(entry[score]["average"]["total_effect"]) if score in entry else "-" for score in (P, LOG, LOGIT)]
        rows.append([f"{part}, {label}", str(len(entry["facts"])), str(known), str(averaged), *cells])
    return table(
        ["part", "mapped", "known", "averaged", "TE, probability", "TE, log-probability", "TE, logit difference"], rows
    )


def sites(part: str, labels: tuple[str, ...], score: str = P) -> str:
    rows = []
    for label in labels:
        for role in ROLES:
            if role in load(part)["maps"][label][score]["average"]["roles"]:
                l, e = best(part, label, score, role)
                n = load(part)["maps"][label][score]["average"]["facts_with_role"][role]
                rows.append([label, role, str(l), est(e), str(n)])
    return table(["kind", "role", "best layer", "average effect there", "facts"], rows)


def controls() -> str:
    rows = []
    for part, labels in (("noise", KINDS), ("swap", KINDS), ("shuffled", ("state", "mlp")), ("lesion", KINDS)):
        for label in labels:
            for role, found in load(part)["maps"][label][P]["controls"].items():
                ends = f"{found['layers'][0]}-{found['layers'][-1]}"
                rows.append(
                    [
                        part,
                        label,
                        f"{role}, layers {ends}",
                        est(found["minus other layers"]),
                        est(found["minus random sites"]),
                        f"{found['p']:.3f}",
                    ]
                )
    return table(["part", "kind", "named site", "minus other layers", "minus random sites", "p (random)"], rows)


def named_sites() -> str:
    """Restoration, swap, shuffled subject and lesion at the named early and late site: averages over its layers."""
    rows = []
    for role, low, high in (("last subject", 0, 9), ("last", 20, 29)):
        for kind in KINDS:
            row = [f"{kind}, {role}, layers {low}-{high}"]
            for part in ("noise", "swap", "shuffled", "lesion"):
                maps = load(part)["maps"]
                if kind not in maps:
                    row.append("-")
                    continue
                average = maps[kind][P]["average"]
                own = [
                    m
                    for l, m in zip(average["layers"], average["roles"][role]["mean"], strict=True)
                    if low <= l <= high
                ]
                row.append(f"{sum(own) / len(own):.3f}")
            rows.append(row)
    return table(["site", "noise, restored", "swap, restored", "shuffled subject", "lesion (interchange)"], rows)


def decisive() -> str:
    rows, shown = [], [role for role in ROLES if role not in ("before", "last")]
    for part in ("noise", "swap"):
        for kind in KINDS:
            entry = load(part)["maps"][kind][P]
            for name, shares in (("all", entry["decisive"]), *entry["decisive_by_length"].items()):
                n = next(iter(shares.values()))["n"]
                rows.append([part, kind, name, str(n), *(est(shares[role], 2) for role in shown)])
    return table(["part", "kind", "subject tokens", "n", *shown], rows)


def by_length() -> str:
    """Early effects as shares of the total effect, by subject length and kind."""
    rows, roles = [], ("first subject", "middle subject", "last subject")
    for part in ("noise", "swap", "lesion"):
        for kind in KINDS:
            for name, shares in load(part)["maps"][kind][P]["early_share_by_length"].items():
                rows.append(
                    [part, kind, name, *(est(shares.get(role), 2) for role in roles), str(shares["last subject"]["n"])]
                )
    return table(["part", "kind", "subject tokens", *roles, "n"], rows)


def reliability() -> str:
    rows = []
    for kind in ("state", "mlp"):
        for score in (P, LOG):
            own = [f for f in load("reliability")["facts"] if f["kind"] == kind and f["score"] == score]
            for label, pick in (("median", median), ("worst", min)):
                rows.append(
                    [
                        kind,
                        score,
                        label,
                        *(f"{pick([f['icc_k'][k] for f in own]):.2f}" for k in ("1", "2", "3", "5", "10", "20")),
                    ]
                )
            above = [sum(f["icc_k"][k] >= 0.75 for f in own) for k in ("1", "2", "3", "5", "10", "20")]
            rows.append([kind, score, f"at least 0.75, of {len(own)}", *map(str, above)])
    return table(["kind", "score", "over facts", "S = 1", "2", "3", "5", "10", "20"], rows)


def separable() -> str:
    rows = []
    for part in ("noise", "swap", "syntax", "reasoning"):
        for label in load(part)["maps"]:
            if "severed" in label:
                continue
            for score in (P, LOGIT):
                entry = load(part)["maps"][label].get(score, {}).get("separability", {})
                if "overlap" in entry:
                    rows.append(
                        [
                            part,
                            label,
                            score,
                            str(entry["overlap"]["n"]),
                            est(entry["depth difference"], 2),
                            est(entry["overlap"], 2),
                        ]
                    )
    return table(["part", "kind", "score", "n", "depth difference", "overlap"], rows)


def neurons() -> str:
    rows = []
    for part in ("neurons", "neurons-heldout", "neurons-pairs", "neurons-reasoning", "neurons-untrained"):
        for row in load(part)["summary"]:
            n = f"{row['drift']['n']} ({row['drift']['clusters']})"
            order = est(row.get("order"), 2)
            rows.append(
                [part, n, row["factor"], row["neurons"], row["place"], est(row["drift"], 3), est(row["flip"], 2), order]
            )
    return table(
        [
            "part",
            "n (clusters)",
            "factor",
            "neurons",
            "where",
            "drift (relative)",
            "flips",
            "answer and foil change places",
        ],
        rows,
    )


def recurring() -> str:
    """Which neurons are kept for many facts."""
    from collections import Counter

    facts = load("neurons")["facts"]
    counts = Counter((place["layer"], place["neuron"]) for fact in facts for place in fact["neurons"])
    sizes = sorted(len(fact["neurons"]) for fact in facts)
    most = ", ".join(f"neuron {i} of layer {l} in {n}" for (l, i), n in counts.most_common(3))
    worst, complete = max(fact["completeness"] for fact in facts), sum(fact["complete"] for fact in facts)
    return (
        f"{len(facts)} facts have {sizes[0]} to {sizes[-1]} neurons each (median {median(sizes):.0f}). Of {len(counts)} different ones, "
        f"{sum(n >= 4 for n in counts.values())} are kept for four facts or more: {most}. Attributions add up to what they "
        f"must, within 2 % or 0.002, in every layer and wording of {complete} facts; the largest error is {worst:.4f}."
    )


def writing() -> str:
    """How often a fact's answer is among what its neurons promote, beside another fact's answer."""
    rows = load("neurons")["writing"]
    own = [rank for row in rows for rank in row["rank"]]
    other = [rank for row in rows for rank in row["rank_other"]]
    lines = [
        [name, *(f"{sum(r < k for r in ranks) / len(ranks):.2f}" for k in (10, 100, 1000)), f"{median(ranks):.0f}"]
        for name, ranks in (("its own answer", own), ("the next fact's answer", other))
    ]
    shown = [
        [
            row["fact"],
            f"{where[0]}, {where[1]}",
            " ".join(f"`{token.strip()}`" for token in tokens if token.strip().isprintable() and "`" not in token),
            str(rank),
        ]
        for row in rows[:8]
        for where, tokens, rank in list(zip(row["neurons"], row["promoted"], row["rank"], strict=True))[:1]
    ]
    return (
        f"What the neurons write, read through the unembedding: the share of {len(own)} neurons of {len(rows)} facts that have an answer "
        "among the first k of 49,152 tokens they promote.\n\n"
        + table(["answer", "k = 10", "100", "1000", "median rank"], lines)
        + "\n\nThe strongest neuron of the first facts:\n\n"
        + table(["fact", "layer, neuron", "promotes", "rank of the answer"], shown)
    )


def regression() -> str:
    """The regression of attribution on frequency and co-occurrence."""
    found = load("neurons")["facts_or_token_patterns"]
    parts = []
    for outcome, what in (("total", "the total attribution"), ("largest", "the strongest neuron's attribution")):
        parts.append(
            f"log of {what}: {json.dumps(found[outcome])}"
            if isinstance(found[outcome], str)
            else fit(what, found[outcome])
        )
    return "Facts or token patterns? Least squares over the known facts, counts in the shipped text.\n\n" + "\n\n".join(
        parts
    )


def fit(what: str, found: dict[str, Any]) -> str:
    terms = "; ".join(f"{name} {est(e, 2)}" for name, e in found["coefficients"].items() if name != "intercept")
    dropped = f"; no coefficient for {', '.join(found['constant'])}, the same for all" if found["constant"] else ""
    return (
        f"* log of {what}: {terms}{dropped}; R squared {est(found['r_squared'], 2)}; n = {found['n']}, of which "
        f"{found['never_together']} never have subject and answer in one paragraph."
    )


def reading() -> str:
    """The lens at the last token, beside its control and an untrained model."""
    found, fresh = load("reading")["lens"]["curves"], load("reading-untrained")["lens"]
    at = (0, 12, 18, 22, 23, 24, 26, 28, 29)
    curves = {
        "probability, last token": found["probability/last"],
        "its control": found["probability/last/control"],
        "reciprocal rank, last token": found["reciprocal_rank/last"],
        "that rank's control": found["reciprocal_rank/last/control"],
        "reciprocal rank, last subject token": found["reciprocal_rank/subject_last"],
        "reciprocal rank, last token, re-initialised (20 facts)": fresh,
    }
    rows = [[name, *(est(estimates[l], 2) for l in at)] for name, estimates in curves.items()]
    return table(["", *(f"layer {l}" for l in at)], rows)


def edges() -> str:
    """Knock-outs by window, sources and place of the subject."""
    at = (12, 15, 18, 19, 21, 23, 24, 27, 28)
    rows = []
    for name, found in load("knockout").items():
        for source in ("subject", "other", "first"):
            rows.append(
                [f"{name}, {source}", str(found["n"]), *(f"{found['curves'][source][l]['value']:.2f}" for l in at)]
            )
        n = found["contrast"][at[0]]["n"]
        rows.append([f"{name}, subject minus random", str(n), *(est(found["contrast"][l], 2) for l in at)])
    fresh = load("reading-untrained")["knockout"]
    rows.append(["window 9, subject, re-initialised", "20", *(f"{fresh[l]['value']:.2f}" for l in at)])
    return table(["window and sources", "n", *(f"centre {l}" for l in at)], rows)


def probes() -> str:
    """Probes of the last subject token's state, beside their controls."""
    rows = []
    parts = [*load("reading")["probes"].items(), ("continent, re-initialised", load("reading-untrained")["probe"])]
    for relation, found in parts:
        for i, l in enumerate(found["layers"]):
            new, same = found["new_subjects"], found["new_wordings"]
            cells = [
                new["accuracy"][i],
                new["majority"],
                same["accuracy"][i],
                same["control"][i],
                same["selectivity"][i],
            ]
            rows.append([relation, str(l), str(found["subjects"]), *(est(cell, 2) for cell in cells)])
    header = [
        "relation",
        "layer",
        "subjects",
        "new subjects",
        "majority",
        "new wordings",
        "control task",
        "selectivity",
    ]
    return table(header, rows)


def write() -> None:
    """The page and its figures."""
    figures()
    from locate_smollm2_text import text

    atomic_write(PAGE, text())
