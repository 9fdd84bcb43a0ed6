"""What an audit needs of the instruments' certificate, as a small file of the package.

    python experiments/certificate_summary.py

Reads results/certificate/certificate.json (`experiments/certify_world.py` makes it) and writes
src/palimpsest/audit/data/certificate.json: for the readings that claims rest on, and for the two controls, each organism's
planted layer, reported layer and mean score by layer; the verdicts on storage against entity and on crossed organisms; and the
fingerprints of the models that the organisms were made from. `palimpsest.audit.experiments.instruments` computes the rest.
"""

import json
from pathlib import Path

import palimpsest as pal
from palimpsest.runs import atomic_write
from palimpsest.world.certificate import Certificate

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "results" / "certificate" / "certificate.json"
TARGET = ROOT / "src" / "palimpsest" / "audit" / "data" / "certificate.json"
READINGS = (
    "trace mlp, noise",
    "trace mlp, swap",
    "trace attn, noise",
    "trace state, noise",
    "lesion mlp, interchange",
    "lesion mlp, mean",
    "lesion attn, mean",
    "logit lens",
    "neurons, cut",
    "graft mlp",
    "graft attn",
    "random",
)
KINDS = ("mlp", "attention")


def short(number: float) -> float:
    return float(f"{number:.5g}")


def summary(certificate: Certificate) -> dict[str, object]:
    """The parts that are shipped."""
    bases = sorted({str(card["base"]) for card in certificate.organisms.values()})
    return {
        "format": "palimpsest-audit-certificate/1",
        "made_by": "python experiments/certificate_summary.py",
        "settings": {name: certificate.settings[name] for name in ("facts", "seed")},
        "bases": {base: pal.load(base).fingerprint() for base in bases},
        "findings": [
            {
                "reading": [one.reading.name, one.reading.module, one.reading.position],
                "kind": one.kind,
                "organisms": list(one.organisms),
                "planted": list(one.planted),
                "reported": [short(layer) for layer in one.reported],
                "profiles": [[short(score) for score in row] for row in one.profiles.tolist()],
            }
            for one in certificate.findings
            if one.reading.name in READINGS and one.kind in KINDS
        ],
        "entity": [
            {
                "reading": [one.reading.name, one.reading.module, one.reading.position],
                "statistic": one.statistic,
                "auroc": one.auroc.to_json(),
                "p": one.p,
                "organisms": len(one.storage) + len(one.entity),
            }
            for one in certificate.entity
            if one.reading.name in READINGS
        ],
        "crossed": [
            {
                "reading": [one.reading.name, one.reading.module, one.reading.position],
                "organism": one.organism,
                "layers": list(one.layers),
                "relations": list(one.relations),
                "contrast": one.contrast.to_json(),
            }
            for one in certificate.crossed
            if one.reading.name in READINGS
        ],
    }


def main() -> None:
    """Write the file."""
    found = summary(Certificate.load(SOURCE))
    lines = json.dumps(found, ensure_ascii=False, separators=(",", ":")).replace('{"reading"', '\n{"reading"')
    atomic_write(TARGET, lines + "\n")
    print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
