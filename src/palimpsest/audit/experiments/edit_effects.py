"""What an edit does at dose 1: whether it reaches its target in contexts it was not made for, and whether the model then says so.

    rho(x) = |W' k(x) - v*| / |v* - W k(x)|                reached where rho < 1/2; 1 is untouched, 0 is met exactly

An edit is made for one key k*: there W' k* = v* holds by construction, which the row keeps as `identity`. In another context x the
key is another, and the change dW k(x) = u (v . k(x)) falls short or overshoots. Contexts are unseen prefixes (other facts as
sentences) and the paraphrases that hold the subject. The same is read at the keys of other subjects, where nothing should happen:

    reach-ratio = |u (v . k)| in contexts of the subject / the same at other subjects                 (target over adjacent)

In a prompt that begins with its subject, the change at the subject's last token is the same for every relation asked: the edit
cannot know what follows.

A wording of the fact (paraphrase, unseen prefix, question) tests an edit only where the unedited model gives the old answer in it;
others are left out and counted.

What the model then says is scored three ways, which the literature shows to lie far apart (Yang et al. 2025, arXiv 2502.11177):
by comparing the two answers (ES of Meng et al. 2022), by teacher forcing, and by letting it write.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.edit_reading import payload_of, random_value, search_passes
from palimpsest.audit.experiments.over_facts import clusters_of_rows, column
from palimpsest.audit.experiments.roles import rounded
from palimpsest.audit.setting import Setting
from palimpsest.edit.artefact import Edit
from palimpsest.edit.contexts import BARE
from palimpsest.edit.keys import combine, keys_and_values
from palimpsest.edit.payload import module_of
from palimpsest.errors import FactError, InputError, PalimpsestError
from palimpsest.evaluate.answering import answer
from palimpsest.evaluate.asks import Ask, Likelihood, Written
from palimpsest.evaluate.suite import Answers
from palimpsest.evaluate.words import begins, contains
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.model.anatomy import in_out_features
from palimpsest.statistics import Estimate, cluster_bootstrap, clustered_proportion, ratio_estimate, sign_flip_p

REACHED = 0.5
PREFIXES, NEIGHBOURS, MOST = 3, 8, 5  # unseen prefixes, other subjects and paraphrases of a fact
VARIANTS = ("paraphrase", "prefix", "question")
PROMPT = "prompt"
HAVE = 0.25  # share of the facts that a wording must be known for to count
MORE_TOKENS = 4  # that the model may write beyond the tokens of the new answer


class EditEffects:
    """Reach and answers of the rank-one edit at the place."""

    name = "edit-effects"
    criteria: tuple[str, ...] = ("E1", "E4", "E5")
    needs: tuple[str, ...] = ()

    def units(self, setting: Setting) -> Sequence[str]:
        """One a confirmation fact."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """Keys of some 16 contexts, and three times the answers to some 10 prompts; the edit is that of the doses."""
        return bench.seconds_a_pass * (search_passes(bench) + 24)

    def measure(self, bench: Bench, unit: str) -> Row:
        """How far the edit reaches, and what is answered without it, with it, and with a random value in its place."""
        fact, model = bench[unit], bench.model
        if fact.target_true is None or fact.target_new is None:
            raise FactError(
                f"The fact {fact.id} needs target_true and target_new to be edited and read; add what lacks."
            )
        edit = bench.edit_at([fact], bench.setting.place.centre)
        prefixes = _prefixes(bench, fact)
        texts = _texts(fact, prefixes)
        row: dict[str, Any] = {"layer": bench.setting.place.centre, **_reach(bench, fact, edit, prefixes)}
        changes = {"before": None, "after": edit, "random": random_value(model, edit, seed=bench.setting.seed)}
        for name, one in changes.items():
            if one is None:
                row[name] = _answers(model, fact, texts)
            else:
                with one.applied(model):
                    row[name] = _answers(model, fact, texts)
        return row

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """Reach, success in three senses, and what is kept of it in other wordings."""
        own = [row for row in rows.get(self.name, ()) if row["layer"] == setting.place.centre]
        if not own:
            return []
        return [*self._reached(facts, own), *self._said(facts, own), *self._robust(facts, own)]

    def _reached(self, facts: Mapping[str, Fact], rows: Sequence[Row]) -> list[Evidence]:
        found: list[Evidence] = []
        unseen = [row for row in rows if row["rho"]["prefix"] or row["rho"]["paraphrase"]]
        if unseen:
            clusters = clusters_of_rows(unseen, facts)
            reached = [_within([*row["rho"]["prefix"], *row["rho"]["paraphrase"]]) for row in unseen]
            leak = [_within(row["rho"]["others"]) for row in unseen if row["rho"]["others"]]
            leaking = clusters_of_rows([row for row in unseen if row["rho"]["others"]], facts)
            found.append(
                Evidence(
                    self.name,
                    "reach",
                    ("E1",),
                    "weights",
                    "interventional",
                    clustered_proportion(reached, clusters, unit="share of unseen contexts that the edit reaches"),
                    controls=(
                        Control(
                            "N4", clustered_proportion(leak, leaking), "the same at other subjects of the relation"
                        ),
                    )
                    if leak
                    else (),
                    note="Reached: |W'k - v*| below half of |v* - Wk|, in unseen prefixes and paraphrases that hold the subject.",
                    data={
                        "by kind": {
                            kind: [value for row in rows for value in row["rho"][kind]]
                            for kind in ("prefix", "paraphrase")
                        },
                        "identity": max(row["identity"] for row in rows),
                        "relative change at the token": [row["relative"] for row in rows],
                    },
                )
            )
        beside = [row for row in rows if row["heard"]["others"] is not None and row["heard"]["contexts"] is not None]
        target = column(beside, lambda row: row["heard"]["contexts"])
        adjacent = column(beside, lambda row: row["heard"]["others"])
        if beside and adjacent.any():
            found.append(
                Evidence(
                    self.name,
                    "reach-ratio",
                    ("E1",),
                    "weights",
                    "interventional",
                    ratio_estimate(
                        target, adjacent, clusters_of_rows(beside, facts), unit="change at the subject over others"
                    ),
                    note="|dW k| in contexts of the subject over |dW k| at other subjects of the relation, the same token.",
                )
            )
        return found

    def _said(self, facts: Mapping[str, Fact], rows: Sequence[Row]) -> list[Evidence]:
        clusters = clusters_of_rows(rows, facts)
        success, chance, before = (_numbers(rows, when, "success") for when in ("after", "random", "before"))
        free, teacher, written = (_numbers(rows, "after", what) for what in ("free", "forced", "written"))
        free_chance = _numbers(rows, "random", "free")
        shared: dict[str, Any] = {"family": "behavioural", "mode": "interventional"}
        return [
            Evidence(
                self.name,
                "edit-success",
                ("E4",),
                estimate=clustered_proportion(
                    success, clusters, unit="share of facts whose new answer is likelier than the old"
                ),
                controls=(Control("N3", clustered_proportion(chance, clusters), "a random value of equal norm"),),
                contrast=cluster_bootstrap(success - chance, clusters),
                p=sign_flip_p(success - chance, clusters, alternative="greater"),
                data={"before": clustered_proportion(before, clusters).to_json()},
                **shared,
            ),
            Evidence(
                self.name,
                "edit-free",
                ("E4",),
                estimate=clustered_proportion(free, clusters, unit="share of facts whose new answer the model writes"),
                controls=(Control("N3", clustered_proportion(free_chance, clusters), "a random value of equal norm"),),
                contrast=cluster_bootstrap(free - free_chance, clusters),
                note="Greedy writing after the prompt begins with the new answer; nothing is forced.",
                data={
                    "teacher forced": clustered_proportion(teacher, clusters).to_json(),
                    "gap": cluster_bootstrap(teacher - free, clusters).to_json(),
                    "stands in what is written": clustered_proportion(written, clusters).to_json(),
                },
                **shared,
            ),
        ]

    def _robust(self, facts: Mapping[str, Fact], rows: Sequence[Row]) -> list[Evidence]:
        kept = {name: one for name in VARIANTS if (one := _retained(rows, name, facts)) is not None}
        if len(kept) < 2:
            return []
        worst = min(kept, key=lambda name: kept[name].low if np.isfinite(kept[name].low) else kept[name].value)
        return [
            Evidence(
                self.name,
                "edit-robustness",
                ("E5",),
                "behavioural",
                "interventional",
                kept[worst],
                note=f"Success in a wording over success at the prompt, worst of {', '.join(kept)}: {worst}.",
                data={
                    "worst": worst,
                    "variants": {name: one.to_json() for name, one in kept.items()},
                    "left out": {
                        name: sum(not says for row in rows for says in row["before"]["says_old"][name])
                        for name in VARIANTS
                    },
                },
            )
        ]


def _numbers(rows: Sequence[Row], when: str, what: str) -> np.ndarray:
    """One answer at the prompt a row."""
    return column(rows, lambda row: row[when][what][PROMPT][0] if what == "success" else row[when][what])


def _within(rho: Sequence[float]) -> float:
    return float(np.mean(np.array(rho, dtype=float) < REACHED))


def _retained(rows: Sequence[Row], variant: str, facts: Mapping[str, Fact]) -> Estimate | None:
    """Success in a wording over success at the prompt; None where too few facts are known in it, or no edit succeeds."""
    some = [row for row in rows if _varied(row, variant)]
    prompt = column(some, lambda row: row["after"]["success"][PROMPT][0])
    if len(some) < HAVE * len(rows) or not prompt.any():
        return None
    varied = column(some, lambda row: np.mean(_varied(row, variant)))
    return ratio_estimate(
        varied, prompt, clusters_of_rows(some, facts), unit="success in the wording over success at the prompt"
    )


def _varied(row: Row, variant: str) -> list[float]:
    """Success of the edit in each wording in which the unedited model gave the old answer."""
    success, known = row["after"]["success"][variant], row["before"]["says_old"][variant]
    return [value for value, says in zip(success, known, strict=True) if says]


def _prefixes(bench: Bench, fact: Fact) -> list[str]:
    """Sentences to put before a prompt: facts about others, of other relations where there are any, as the model would say them."""
    others = [one for one in bench.facts.values() if one.subject != fact.subject]
    others = [one for one in others if one.relation != fact.relation] or others
    return [f"{one.text} {one.target_true}. " for one in others if one.target_true is not None][:PREFIXES]


def _texts(fact: Fact, prefixes: Sequence[str]) -> dict[str, list[str]]:
    """The wordings that are asked, by kind."""
    return {
        PROMPT: [fact.text],
        "paraphrase": list(fact.paraphrases[:MOST]),
        "prefix": [prefix + fact.text for prefix in prefixes],
        "question": [f"Question: How does this go on? {fact.text}\nAnswer: {fact.text}"],
    }


def _answers(model: Model, fact: Fact, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Which answer is likelier in each wording, and what is written after the prompt; a wording too long is left out."""
    old, new = str(fact.target_true), str(fact.target_new)
    tokens = len(model.encode_answer(fact.text, new)[0]) - len(model.encode(fact.text)) + MORE_TOKENS
    writing = Written(fact.text, tokens=tokens)
    pairs: list[Ask] = [Likelihood(text, one) for some in texts.values() for text in some for one in (old, new)]
    answers = answer(model, [*pairs, writing])
    written = answers.written(writing)
    asked = {kind: [one for text in some for one in _asked(answers, text, old, new)] for kind, some in texts.items()}
    return {
        "success": {kind: [success for success, _ in some] for kind, some in asked.items()},
        "says_old": {kind: [says for _, says in some] for kind, some in asked.items()},
        "forced": float(all(answers.likelihood(fact.text, new).right)),
        "free": float(begins(written, new)),
        "written": float(contains(written, new)),
    }


def _asked(answers: Answers, text: str, old: str, new: str) -> list[tuple[float, bool]]:
    """Whether the new answer is likelier than the old, and whether the old is written; nothing where it cannot be asked."""
    try:
        before, after = answers.likelihood(text, old), answers.likelihood(text, new)
    except PalimpsestError:
        return []
    return [(float(after.nll < before.nll), all(before.right))]


@torch.no_grad()
def _reach(bench: Bench, fact: Fact, edit: Edit, prefixes: Sequence[str]) -> dict[str, Any]:
    """rho in each context, and how much each hears of the edit, |v . k| with 1 at k*."""
    model, payload, settings = bench.model, payload_of(edit), edit.settings
    layer, token = int(settings["layers"][0]), str(settings["token"])
    u, v = payload.u[:, 0].double(), payload.v[0].double()
    keys, values = _read(model, layer, [fact], settings["context_texts"], token)
    key, value = combine(keys, settings["key"]), combine(values, settings["key"])
    wanted = value + u * (v @ key)
    groups = {
        "prefix": _read(model, layer, [fact], prefixes, token),
        "paraphrase": _read(model, layer, reworded(fact), [BARE], token),
        "others": _read(model, layer, _others(bench, fact), [BARE], token),
    }
    heard = {name: (k @ v / (v @ key)).abs() for name, (k, _) in groups.items()}
    contexts = torch.cat([heard["prefix"], heard["paraphrase"]])
    with edit.applied(model):
        met = _through(model, payload.path, key)
    return {
        "rho": {name: rounded(_rho(k, x, u, v, wanted)) for name, (k, x) in groups.items()},
        "heard": {
            "contexts": float(contexts.mean()) if len(contexts) else None,
            "others": float(heard["others"].mean()) if len(heard["others"]) else None,
        },
        "identity": float((met - wanted).norm() / wanted.norm()),
        "relative": float((u * (v @ key)).norm() / value.norm()),
    }


def _rho(
    keys: Float[Tensor, "n d_key"],
    values: Float[Tensor, "n d"],
    u: Float[Tensor, "d"],
    v: Float[Tensor, "d_key"],
    wanted: Float[Tensor, "d"],
) -> Float[np.ndarray, "n"]:
    after = values + (keys @ v)[:, None] * u
    return np.asarray(((after - wanted).norm(dim=1) / (wanted - values).norm(dim=1)).numpy())


def _read(
    model: Model, layer: int, facts: Sequence[Fact], contexts: Sequence[str], token: str
) -> tuple[Float[Tensor, "n d_key"], Float[Tensor, "n d"]]:
    """Keys and values of every fact in every context, in float64 on the CPU; a context too long for the model is left out."""
    keys, values = [], []
    for fact in facts:
        for context in contexts:
            try:
                key, value = keys_and_values(model, layer, fact, [context], token)
            except InputError:
                continue
            keys.append(key.double().cpu())
            values.append(value.double().cpu())
    inputs, outputs = in_out_features(model.anatomy.down(layer).module)
    none = torch.empty(0, max(inputs, outputs), dtype=torch.float64)
    return torch.cat([none[:, :inputs], *keys]), torch.cat([none[:, :outputs], *values])


def _through(model: Model, path: str, key: Float[Tensor, "d_key"]) -> Float[Tensor, "d"]:
    """What the down-projection makes of a key, with the weights the model has now."""
    module = module_of(model, path)
    weight = model.parameter(path)
    found = module(key.to(weight)[None])
    return found[0].double().cpu()


def reworded(fact: Fact, most: int = MOST) -> list[Fact]:
    """The paraphrases in which the subject stands exactly once, each as a fact of its own."""
    found = [
        Fact(
            subject=fact.subject,
            prompt=text.replace(fact.subject, "{}"),
            target_true=fact.target_true,
            target_new=fact.target_new,
            relation=fact.relation,
        )
        for text in fact.paraphrases
        if text.count(fact.subject) == 1 and "{}" not in text
    ]
    return found[:most]


def _others(bench: Bench, fact: Fact) -> list[Fact]:
    """Other subjects of the relation; of any relation where there is none."""
    others = [one for one in bench.facts.values() if one.subject != fact.subject]
    return ([one for one in others if one.relation == fact.relation] or others)[:NEIGHBOURS]


EXPERIMENT = EditEffects
