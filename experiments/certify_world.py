"""Which instruments find the layer a fact was planted in, on the organisms of the made world.

    palimpsest world organisms --out run/organisms/all                       # makes the organisms, once
    python experiments/certify_world.py run [--organisms FOLDER]         # resumable; into run/certificate/ and results/certificate/
    python experiments/certify_world.py page                             # docs/certificate.md
    python experiments/certify_world.py trial [--organisms FOLDER]       # 6 facts of each, 1 sample, into run/certificate-trial/

Every instrument of `palimpsest.world.certificate.instruments` reads up to 40 facts of each accepted organism that has a place to
find; results/certificate/certificate.json holds the profiles and all that is computed from them, run/certificate/samples.jsonl
the score of every fact.
"""

import sys
from pathlib import Path

from palimpsest.world.certificate import Certificate, certify, instruments
from palimpsest.world.organisms import load_organisms

ROOT = Path(__file__).parents[1]
RUNS, RESULTS, ORGANISMS = (
    ROOT / "run" / "certificate",
    ROOT / "results" / "certificate",
    ROOT / "run" / "organisms" / "all",
)
FACTS, SAMPLES, STEPS, SEED = 40, 5, 20, 1


def show(done: int, total: int, label: str) -> None:
    print(f"{done}/{total} {label}", flush=True)


def run(folder: Path, *, trial: bool = False) -> Certificate:
    """All instruments on all organisms."""
    organisms = load_organisms(folder)
    runs = RUNS.with_name("certificate-trial") if trial else RUNS
    tools = (
        instruments(samples=1, steps=4, seed=SEED) if trial else instruments(samples=SAMPLES, steps=STEPS, seed=SEED)
    )
    found = certify(
        tools,
        organisms,
        facts=6 if trial else FACTS,
        resamples=200 if trial else 2000,
        seed=SEED,
        out=runs,
        progress=show,
    )
    results = runs if trial else RESULTS
    results.mkdir(parents=True, exist_ok=True)
    found.save(results / "certificate.json")
    print(found.table())
    return found


def main() -> None:
    """`run`, `trial` or `page`."""
    if sys.argv[1:2] == ["page"]:
        from certify_world_page import write  # beside this file

        return write()
    folder = Path(sys.argv[3]) if sys.argv[2:3] == ["--organisms"] else ORGANISMS
    run(folder, trial=sys.argv[1:2] == ["trial"])
    return None


if __name__ == "__main__":
    main()
