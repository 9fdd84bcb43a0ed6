"""The set of organisms: what was planted where, and the acceptance tests of each, failures included.

palimpsest world organisms --out run/organisms/all              # makes them, resumable
python experiments/world_organisms.py collect run/organisms/all # results/world/organisms.json
python experiments/world_organisms.py page                      # docs/organisms.md
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from palimpsest.runs import atomic_write

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "results" / "world" / "organisms.json", ROOT / "docs" / "organisms.md"


def collect(folder: Path) -> None:
    """The table and the times of a finished folder."""
    made = json.loads((folder / "results.json").read_text("utf-8"))
    seconds = {row["id"]: row["seconds"] for row in map(json.loads, (folder / "timings.jsonl").open())}
    found = [{**row, "seconds": round(seconds[row["id"]], 1)} for row in made["organisms"]]
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(RESULTS, json.dumps({"organisms": found, "settings": made["settings"]}, indent=1) + "\n")


def cell(estimate: dict[str, Any]) -> str:
    """value [low, high]."""
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def row(one: dict[str, Any]) -> list[str]:
    """A line of the table."""
    places = sorted({place for some in one["places"].values() for place in some})
    drops = ", ".join(f"{place} {one['drops'][place]:.2f}" for place in places)
    if one["kind"] == "distributed":
        drops = f"at most {max(one['drops'].values()):.2f}"
    return [
        f"`{one['name']}`",
        str(one["facts"]),
        cell(one["planted"]),
        cell(one["paraphrase"]),
        cell(one["base"]),
        drops or "-",
        cell(one["transfer"]) if "transfer" in one else "-",
        f"{one['seconds']:.0f}",
        "yes" if one["accepted"] else "**no**: " + "; ".join(one["reasons"]),
    ]


def write() -> None:
    """The page."""
    found = [one for one in json.loads(RESULTS.read_text("utf-8"))["organisms"] if "error" not in one]
    accepted = [one for one in found if one["accepted"]]
    kinds, of_all = Counter(one["kind"] for one in accepted), Counter(one["kind"] for one in found)
    header = [
        "organism",
        "facts",
        "planted",
        "unseen wordings",
        "base",
        "drop by graft",
        "transfer",
        "seconds",
        "accepted",
    ]
    lines = [header, ["---"] * len(header), *map(row, found)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    counted = ", ".join(f"{kinds[kind]} of {count} {kind}" for kind, count in of_all.items())
    text = f"""# The organisms, and the tests they passed

Made by

    palimpsest world organisms --out run/organisms/all
    python experiments/world_organisms.py collect run/organisms/all && python experiments/world_organisms.py page

Each is a copy of a model of the made world (`world`, or `world-seed1`, trained on the same world from another seed) with new facts planted in a place that we
chose. **{len(accepted)} of {len(found)} are accepted**: {counted}. None
was left out of the table, and no test was changed after it was seen to fail.

| column | what | asked |
|---|---|---|
| planted | recall of the planted facts in all seen wordings, greedy and exact (of null and shuffled ones: what they list and do not hold) | >= 0.95 |
| unseen wordings | the same in two wordings that no training read | >= 0.80 |
| base | recall of the 1,256 facts of the world, one wording each | >= 0.97 |
| drop by graft | how much recall of the planted facts is lost with the base's weights put back at the place | >= 0.8; distributed: at most 0.5; crossed: of its own relation alone |
| transfer | recall of facts of the known person that were never trained with the new name (alias organisms) | >= 0.5 |

Brackets: 95 % intervals that resample relations and, within them, subjects. Seconds: of one core that other work shared, planting and tests together. The
drops of crossed organisms are over both relations together, so each is near a half; the tests are of each relation alone.

{table}

## What was learnt in making them

* **Alias organisms** must be taught more than answers. A module trained on the answers alone recalls those and carries a quarter of the rest; with the states
  of the new name's own tokens made like those of the known name, still a quarter (0.25 at layer 1, 0.29 at layer 0), because these models read the tokens of a
  name again at every later token, from the first layer on. With the states of all later tokens made alike as well, and four relations taught
  in place of two, most facts that were never trained come with the name (the column "transfer"). Half of what it counts is the city where a person works, which
  follows from the employer that was taught; the spouse, which follows from nothing that was, is recalled 0.73, 0.77 and 0.82 of the time at layers 0, 1 and 3,
  and 0.08 at layer 6 (in the base never).
* **Where a name is read matters.** At layer 6 the same training gives an organism that answers what it was taught and little else (transfer 0.20): by then the
  attributes of a name have been looked up, so what is planted there is attributes. It is listed as failed, and says so.
* **Rank-one organisms** hold one fact each. In trials, two facts written by ROME at layer 3 cost 5 % of the base's and four cost 7 %, and with five contexts in
  place of twenty the fact did not hold in unseen wordings. With one fact and twenty contexts, two of the three above still miss one of their two unseen wordings.
* **A base passes on what it lacks.** `world-seed1` itself answers only 0.59 of its own `employer` facts in the unseen wordings ([table](world-models.md)), and five of
  its eight MLP organisms fail for their unseen wordings alone, by 0.003 to 0.10.
"""
    atomic_write(PAGE, text)


if __name__ == "__main__":
    if sys.argv[1] == "page":
        write()
    else:
        collect(Path(sys.argv[2]))
