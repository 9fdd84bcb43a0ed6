"""docs/certificate.md and its figure, from results/certificate/ alone; `python experiments/certify_world.py page` runs it."""

from collections import Counter
from collections.abc import Sequence
from math import comb
from pathlib import Path

from pages import table  # beside this file
from palimpsest.errors import PalimpsestError
from palimpsest.runs import atomic_write
from palimpsest.world.certificate import Certificate
from palimpsest.world.certificate.certificate import short
from palimpsest.world.certificate.measures import MEASURES, Finding

ROOT = Path(__file__).parents[1]
RESULTS, PAGE, FIGURES = ROOT / "results" / "certificate", ROOT / "docs" / "certificate.md", ROOT / "docs" / "figures"
COMMAND = "python experiments/certify_world.py run\n    python experiments/certify_world.py page"
HEADER = ["instrument", "read at", "AUROC", "AUPRC", "hit", "within 1", "slope", "hit, single facts"]
TITLES = {
    "mlp": "Facts planted in an MLP",
    "attention": "Facts planted in an attention module",
    "rank-one": "Facts written by ROME",
    "alias": "New names for known entities, planted in an MLP",
}


# written by hand from the tables of 21 November 2026; read it again when they change
IN_SHORT = """## In short

* The controls are as they must be: grafting finds every planted layer, the random scorer none; and where only the relation is corrupted, the last subject token says exactly nothing
  (0.50), because in a prompt that begins with its subject it cannot.
* **At the last subject token no instrument follows facts planted in an MLP.** Traces, lesions and the lens name layer 0 for nearly every organism there, wherever the facts
  are (no interval of a slope lies above 0.2). Some of these readings have an AUROC of 0.8, because early layers were planted more often and the planted
  layer ranks high without being first; a map that looks at nothing reaches 0.60.
* **At the last token of the prompt it depends on the depth.** Facts in layers 4 to 7 are found there by traces and mean lesions of MLP outputs and by neurons; those in layers 0 to 3 are not:
  for those the same readings name layer 0, or the last two. Two readings reliably follow the planted layer over all depths: what is lost when a layer's ten
  neurons of largest integrated gradient are silenced (AUROC 0.90, hit 0.64, slope 1.09), and lesions by noise (0.86, 0.45, 1.01). They too say layer 0 for
  facts in layers 1 and 2, and the lesions for facts in 3 and 4 as well.
* **States restored at the last token name the last layer**, where everything has been written.
* **Facts planted in an attention module are found** at the last token by traces and lesions of attention outputs in each of four organisms (corrupting the relation and setting
  outputs to zero are the exceptions); with four, a perfect record is compatible with a true rate of 0.25. At the last subject token the same readings do no better than a constant.
* **Crossed organisms** are told apart at the last token in all three by every lesion of MLP outputs, by neurons, and by traces of MLP outputs with other subjects or the mean in place of the subject (with
  noise in one of three); at the last subject token the contrasts are a tenth as large, and states show none.
* Whether an instrument tells stored attributes from a processed entity cannot be said from three organisms a side.
"""


def findings(stored: Certificate, kind: str) -> str:
    """One row a reading, the best AUROC first; chance and the best constant below."""
    some = stored.of_kind(kind)
    rows = [[one.reading.name, one.reading.position, *map(short, one.measures)] for one in some]
    one = some[0]
    rows.append(["*chance*", "", *(f"{one.chance[m]:.2f}" for m in MEASURES)])
    constant = (f"{one.constant[name]:.2f}" for name in ("auroc", "auprc", "hit", "near"))
    rows.append(["*best constant*", "", *constant, "0", ""])
    counted = ", ".join(f"{count} x layer {layer}" for layer, count in sorted(Counter(one.planted).items()))
    return f"{len(one.organisms)} organisms: {counted}.\n\n{table(HEADER, rows)}"


def profiles(stored: Certificate, kind: str) -> str:
    """Mean profile of each reading, for the organisms of each planted layer."""
    rows = []
    for one in (found for found in stored.findings if found.kind == kind):
        for layer in sorted(set(one.planted)):
            mean = one.profiles[[p == layer for p in one.planted]].mean(axis=0)
            cells = [f"**{x:.3f}**" if l == layer else f"{x:.3f}" for l, x in enumerate(mean)]
            rows.append([one.reading.label, str(layer), *cells])
    layers = stored.findings[0].profiles.shape[1]
    return table(["instrument", "planted in", *(f"layer {l}" for l in range(layers))], rows)


def entity(stored: Certificate) -> str:
    by_reading = {one.reading: one for one in stored.entity}
    rows = []
    for reading in by_reading:
        two = {one.statistic: one for one in stored.entity if one.reading == reading}
        cells = [cell for name in ("peak", "share") for cell in (short(two[name].auroc), f"{two[name].p:.3f}")]
        rows.append([reading.name, reading.position, *cells])
    first = stored.entity[0]
    return (
        f"{len(first.storage)} attribute organisms against {len(first.entity)} alias organisms, at layers "
        f"{', '.join(map(str, first.layers))}.\n\n"
        + table(["instrument", "read at", "AUROC of the peak", "p", "AUROC of the share", "p"], rows)
    )


def comb_of(stored: Certificate) -> int:
    """In how many ways the organisms of the largest comparison can be relabelled."""
    return max((comb(len(one.storage) + len(one.entity), len(one.entity)) for one in stored.entity), default=1)


def crossed(stored: Certificate) -> str:
    rows = [
        [
            one.reading.name,
            one.reading.position,
            one.organism,
            f"{one.relations[0]} in {one.layers[0]}, {one.relations[1]} in {one.layers[1]}",
            short(one.contrast, 3),
            "-" if one.size != one.size else f"{one.size:.2f}",
        ]
        for one in stored.crossed
    ]
    return table(["instrument", "read at", "organism", "relations and layers", "DD", "DD / SD"], rows)


def verdicts(some: Sequence[Finding]) -> str:
    """What the intervals say, in sentences that follow from the numbers alone."""
    follows = [one.reading.label for one in some if one.auroc.low >= 0.7 and one.slope.low >= 0.2]
    blind = [one.reading.label for one in some if one.slope.high < 0.2]
    unclear = [one.reading.label for one in some if one.reading.label not in (*follows, *blind)]
    return "\n".join(
        f"* {said}: {', '.join(names) or 'none'}."
        for said, names in (
            ("AUROC reliably 0.7 or more, and slope reliably 0.2 or more", follows),
            ("slope reliably below 0.2", blind),
            ("neither", unclear),
        )
    )


def listed(reasons: dict[str, str]) -> str:
    return "\n".join(f"* {name}: {reason}" for name, reason in reasons.items()) or "none"


def figure(stored: Certificate) -> str:
    try:
        FIGURES.mkdir(parents=True, exist_ok=True)
        stored.plot().savefig(FIGURES / "certificate.png", dpi=110)
    except PalimpsestError as error:  # the page is complete without it
        print(f"no figure: {error}")
    there = (FIGURES / "certificate.png").is_file()
    return "![reported against planted layer, a panel for each instrument](figures/certificate.png)" if there else ""


def write() -> None:
    """The page."""
    stored = Certificate.load(RESULTS / "certificate.json")
    kinds = "\n\n".join(
        f"## {TITLES[kind]}\n\n{findings(stored, kind)}\n\n{verdicts(stored.of_kind(kind))}" for kind in stored.kinds
    )
    organisms = Counter(str(card["kind"]) for card in stored.organisms.values())
    bases = sorted({str(card["base"]) for card in stored.organisms.values()})
    atomic_write(
        PAGE,
        f"""# What the instruments can see

Made by

    palimpsest world organisms --out run/organisms/all
    {COMMAND}

Each [organism](organisms.md) is a model of the made world in which new facts were planted in a place we chose, and which passed its acceptance tests; so for
once the right answer is known. An instrument gives a score to every layer, and the question is whether the planted layer scores most.
{len(stored.organisms)} organisms ({", ".join(f"{count} {kind}" for kind, count in organisms.items())}) made from {", ".join(bases)}; at most {stored.settings["facts"]} facts of each.
In brackets: 95 % intervals, bootstrap over organisms and, within them, subjects.

| | |
|---|---|
| AUROC, AUPRC | planted against all other layers, by rank within the organism |
| hit, within 1 | the layer with the largest mean score is the planted one, or at most one beside it |
| slope | of the reported layer on the planted one: 1 follows it, 0 is blind to it |
| hit, single facts | as hit, for the map of every fact by itself |

`graft` is the positive control: it puts the base's weights back, and is right by construction. `random` is the negative one. The best constant is
what an instrument can reach that gives every organism the same map: it knows which layers were planted often and nothing else. An AUROC has to be read beside it, above
all where few layers were planted; the slope cannot be had that way. All instruments act on single layers.

{IN_SHORT}

{figure(stored)}

{kinds}

## Storage against entity processing

An attribute organism stores new attributes in a layer; an alias organism maps a new name to a known entity there, and stores no attribute. The
statistics were fixed beforehand: the largest value of the mean profile, and the planted layer's share of it. An AUROC of 0.5 cannot tell; below,
the two are told apart the wrong way round. p: by relabelling the organisms, two-sided; it is the number to read where few organisms separate
perfectly, because their interval has no width then. Only organisms of the bases that have both kinds are compared, on the relations that both plant; so few that no p
can fall below {2 / comb_of(stored):.2f}. The two kinds differ in more than storage: facts of newcomers against facts of entities that the base knows; and the alias organisms' facts
that are read here are those they were taught (what shows that they process the entity is their transfer to facts they were never taught). So telling
them apart shows less than failing to. Readings of one organism are not independent, and no p is corrected for their number.

{entity(stored) if stored.entity else "No reading saw organisms of both kinds."}

## Double dissociation

Crossed organisms hold one relation in one layer and another relation of the same subjects in another. DD = (A at i - A at j) - (B at i - B at j), in the
unit of each instrument's scores; DD / SD is without a unit. Intervals resample subjects.

{crossed(stored) if stored.crossed else "No crossed organism was read."}

## Mean profiles

The planted layer in bold.

{chr(10).join(f"### {TITLES[kind]}{chr(10)}{chr(10)}{profiles(stored, kind)}{chr(10)}" for kind in stored.kinds)}

## Left out, and what could not be had

Instruments: probes give one accuracy over many facts that share their answers, so they have no score of a fact, and organisms plant too few facts for
their held-out designs. Severed paths say through what a restored state acts, and name no layer of their own. A kind with a single accepted organism (rank-one) is too
few for a row.

Organisms:

{listed(dict(stored.left_out))}

{listed(dict(stored.failures))}

## What may not be concluded

* Toy models of a few million parameters, short prompts, facts planted by gradients: what an instrument misses here it may miss in a large model, and what
  it finds here it need not find there. Numbers do not transfer; that an instrument can be blind does.
* Organisms of one base share its weights, though no name and no fact that they plant: the intervals are for other organisms from the same bases.
* A fact planted by gradients into one module is stored there in the sense that its weights are needed (grafting says so). It is read through
  the rest of the model, and an instrument that points at another layer may be right about what the reading needs.
* In a prompt that begins with its subject, the state at the subject's last token cannot depend on the relation: what is read there is about the subject.
* A rate or an area of 1 has an interval no narrower than that of the rule of three over organisms; a slope of 1 [1, 1] is no certainty either.
* No correction for the number of instruments; each row answers its own question.
""",
    )
