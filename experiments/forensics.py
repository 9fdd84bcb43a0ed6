"""Forensics on single edits: layers found from weights alone, subjects and answers decoded, false alarms; and their page.

python experiments/forensics.py run world      # ten minutes of one core; what is done is kept in run/forensics/ and not done again
python experiments/forensics.py run smollm2    # an hour
python experiments/forensics.py page           # results/forensics-*.json from what is kept, and docs/forensics-measured.md
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import palimpsest as pal
from forensics_models import Study, candidates, known, studies  # beside this file
from forensics_page import WORK, write_page
from palimpsest.edit.artefact import Edit
from palimpsest.edit.moments import cached_moments, collect_moments
from palimpsest.edit.payload import LowRank
from palimpsest.erase.forensics import Ranking, decode, difference, removal, scan
from palimpsest.erase.forensics.decode import first_token, subject_keys
from palimpsest.facts import Fact, shipped_text
from palimpsest.model import Model, pad
from palimpsest.runs import atomic_write


def run(name: str) -> None:
    """Make what is missing of one model's edits, readings and copies."""
    study = studies()[name]
    base = study.load()
    facts = known(study, base)
    for method in study.methods:
        for i, fact in enumerate(facts):
            made(study, base, name, method, i, fact)
    model = study.load()
    for method in study.methods:
        scanned(study, model, WORK / name, method)
    asked(study, model, base, WORK / name)
    copies(study, base, facts, WORK / name)


def made(study: Study, model: Model, name: str, method: str, i: int, fact: Fact) -> Path:
    """One edit, kept."""
    path = WORK / name / method / f"{i:03d}.safetensors"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        kind, settings = study.methods[method]
        pal.edit(model, [fact], method=kind, **settings).save(path)
    return path


def rows_of(work: Path, method: str) -> list[tuple[int, Edit, Path, dict[str, Any]]]:
    """Every edit that writes something, with where its readings are kept and what is there."""
    found = []
    for path in sorted((work / method).glob("*.safetensors")):
        edit, kept = Edit.load(path), work / f"{method}-rows" / f"{path.stem}.json"
        if any(payload.norm > 0 for payload in edit.payloads):
            row = json.loads(kept.read_text()) if kept.is_file() else {}
            found.append((int(path.stem), edit, kept, row))
    return found


def layers_of(model: Model, edit: Edit) -> list[int]:
    """Layers whose down-projection an edit changes."""
    downs = {f"{layer.down.path}.weight": layer.index for layer in model.anatomy.layers if layer.down is not None}
    return sorted({downs[path] for path in edit.weights if path in downs})


def keep(path: Path, row: Mapping[str, Any]) -> None:
    """Write one row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, json.dumps(row) + "\n")


def scanned(study: Study, model: Model, work: Path, method: str) -> None:
    """Every edit scanned and, without the base, removed; scanned again with the moments of its own keys."""
    for i, edit, kept, row in rows_of(work, method):
        fact = edit.facts[0]
        if "readings" not in row:
            row |= {"fact": fact.id, "relation": fact.relation, "layers": layers_of(model, edit)}
            row["new before"] = first_probability(model, fact, fact.target_new)
            with edit.applied(model):
                found = scan(model)
                row |= {"found": found.suspect in row["layers"], "flagged": list(found.flagged)}
                row["new after"] = first_probability(model, fact, fact.target_new)
                row["readings"] = found.to_rows()
                with removal(model, found.suspect).applied(model):
                    row["new removed"] = first_probability(model, fact, fact.target_new)
                    row["old removed"] = first_probability(model, fact, fact.target_true)
            keep(kept, row)
        if method in study.moments and i >= study.choose and "readings with moments" not in row:
            with edit.applied(model):
                row["readings with moments"] = with_moments(model)
            keep(kept, row)


def with_moments(model: Model) -> list[dict[str, Any]]:
    """A scan of what the least used inputs are given, by the model's own moments."""
    return scan(model, moments=collect_moments(model, range(model.n_layers), shipped_text())).to_rows()


def copies(study: Study, base: Model, facts: Sequence[Fact], work: Path) -> None:
    """Scans of models that hold no rank-one edit."""
    for kind, (count, copy) in study.copies.items():
        for i in range(count):
            kept = work / "copies" / kind / f"{i:02d}.json"
            row = json.loads(kept.read_text()) if kept.is_file() else {}
            again = i < study.again
            if "readings" in row and ("readings with moments" in row or not again):
                continue
            with copy(base, facts, i) as model:
                found = scan(model)
                row = {"suspect": found.suspect, "flagged": list(found.flagged), "readings": found.to_rows()}
                if again:
                    row["readings with moments"] = with_moments(model)
            keep(kept, row)


def asked(study: Study, model: Model, base: Model, work: Path) -> None:
    """Subjects and answers of the edits that are reported, by `decode` and by the plain unembedding."""
    some = {method: [row for row in rows_of(work, method) if row[0] >= study.choose] for method in study.decoded}
    layers = sorted({layer for rows in some.values() for _, edit, _, _ in rows for layer in layers_of(base, edit)})
    subjects, objects = candidates(study, base)
    keys = subject_keys(base, subjects, layers)
    moments = cached_moments(base, layers, shipped_text())
    tokens = [first_token(base, "It is", name) for name in objects]
    real = [len(names) for names in study.names()]
    keep(work / "candidates.json", {"real": real, "of": len(objects), "first tokens": len(set(tokens))})
    for rows in some.values():
        for _, edit, kept, row in rows:
            fact = edit.facts[0]
            missing = {name: prompts for name, prompts in study.prompts.items() if name not in row}
            if missing:
                with edit.applied(model):
                    change = difference(model, base)
                    for name, prompts in missing.items():
                        told = decode(
                            model, base, subjects, objects, change=change, keys=keys, moments=moments, prompts=prompts
                        )
                        row |= {
                            "subject": told.subject.rank(fact.subject),
                            name: told.object.rank(str(fact.target_new)),
                        }
                        row[name.replace("object", "old")] = told.old.rank(str(fact.target_true))
                keep(kept, row)
            if "unembedded" not in row:
                own = {layer: k[subjects.index(fact.subject)] for layer, k in keys.items()}
                row["unembedded"] = unembedded(base, edit, own, tokens, objects).rank(str(fact.target_new))
                keep(kept, row)


@torch.no_grad()
def unembedded(
    base: Model, edit: Edit, keys: Mapping[int, torch.Tensor], tokens: Sequence[int], objects: Sequence[str]
) -> Ranking:
    """What an edit writes at its own subject's key, read off the unembedding alone: the decoder one would try first."""
    downs = {f"{base.anatomy.down(layer).path}.weight": layer for layer in layers_of(base, edit)}
    written = torch.zeros(base.anatomy.width, dtype=torch.float64)
    for payload in edit.payloads:
        if isinstance(payload, LowRank) and payload.path in downs:
            written += payload.u.double() @ (payload.v.double() @ keys[downs[payload.path]])
    head = base.net.get_output_embeddings().weight
    scores = head[list(tokens)].double() @ written
    return Ranking(tuple(objects), np.asarray(scores))


@torch.no_grad()
def first_probability(model: Model, fact: Fact, answer: str | None) -> float:
    """Of the first token of an answer after the fact's own prompt."""
    ids, at = model.encode_answer(fact.text, str(answer))
    return float(model.last_logits(pad([ids[:at]])).double().softmax(-1)[0, ids[at]])


if __name__ == "__main__":
    if sys.argv[1] == "page":
        write_page()
    else:
        run(sys.argv[2])
