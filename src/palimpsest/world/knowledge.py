"""What a model of the world knows: recall of every fact on seen and on unseen wordings, and perplexity.

    recall      share of (fact, wording) pairs whose answer greedy generation gives whole (`palimpsest.world.recall`), every
                pair counting the same; intervals resample clusters (relation, subject)
    perplexity  exp of the mean nll of a token, on documents of the same kind that training never read

The wordings of a fact share its fate, so its pairs are not independent: that is what the clusters are for.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from palimpsest.model import Model, pad
from palimpsest.statistics import Estimate, cluster_bootstrap, ratio_estimate
from palimpsest.world.corpus import Corpus
from palimpsest.world.recall import recalls
from palimpsest.world.relations import Wording, relations
from palimpsest.world.world import Triple, World

HELD_OUT = 10_000  # added to the seed of a corpus: documents that no training reads


@dataclass(frozen=True)
class WorldKnowledge:
    """Result of `world_knowledge`.

    Attributes:
        seen: recall over all facts and all wordings that training may use.
        own: recall in the one wording each fact has for a model trained on one wording a fact.
        unseen: recall over all facts and the wordings held out of training.
        by_relation: relation -> recall on (seen, unseen) wordings.
        perplexity: of a token of held-out documents; the interval resamples documents.
    """

    seen: Estimate
    own: Estimate
    unseen: Estimate
    by_relation: dict[str, tuple[float, float]]
    perplexity: Estimate

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return asdict(self)


def world_knowledge(model: Model, world: World, *, documents: int = 300, seed: int = 0) -> WorldKnowledge:
    """Ask every fact in every wording (some 15,000 short prompts: about a minute on one core).

    Args:
        model: any causal language model.
        world: whose facts are asked.
        documents: read for perplexity.
        seed: of the bootstrap and of the documents.
    """
    corpus = Corpus(world, seed=HELD_OUT + seed)
    pairs = [(fact, wording) for fact in world.facts for wording in relations()[fact.relation].wordings]
    prompts = [wording.text.replace("{}", fact.subject) for fact, wording in pairs]
    right = recalls(model, prompts, [fact.object for fact, _ in pairs])
    found = list(zip(pairs, right, strict=True))
    own = [((fact, wording), hit) for (fact, wording), hit in found if wording == corpus.wording(fact)]
    return WorldKnowledge(
        seen=_share([pair for pair in found if pair[0][1].seen], seed),
        own=_share(own, seed),
        unseen=_share([pair for pair in found if not pair[0][1].seen], seed),
        by_relation={
            name: (_mean(found, name, seen=True), _mean(found, name, seen=False)) for name in sorted(corpus.relations)
        },
        perplexity=perplexity(model, [corpus.document(i) for i in range(documents)], seed=seed),
    )


@torch.no_grad()
def perplexity(model: Model, documents: Sequence[str], *, seed: int = 0) -> Estimate:
    """exp(mean nll) of the tokens after the first of each document, as far as the model reads; interval over documents."""
    sums, counts = [], []
    rows = [model.tokenizer(document).input_ids[: model.context] for document in documents]
    for at in range(0, len(rows), 32):
        batch = pad(rows[at : at + 32])
        log_p = model.run(batch).float().log_softmax(-1)[:, :-1].cpu()
        nll = -log_p.gather(2, batch.ids[:, 1:, None])[..., 0] * batch.mask[:, 1:]
        sums += nll.sum(1).tolist()
        counts += batch.mask[:, 1:].sum(1).tolist()
    mean = ratio_estimate(sums, counts, None, seed=seed, unit="nats a token")
    return replace(
        mean, value=math.exp(mean.value), low=math.exp(mean.low), high=math.exp(mean.high), unit="perplexity"
    )


def _share(found: Sequence[tuple[tuple[Triple, Wording], bool]], seed: int) -> Estimate:
    clusters = [(fact.relation, fact.subject) for (fact, _), _ in found]
    return cluster_bootstrap([float(hit) for _, hit in found], clusters, seed=seed)


def _mean(found: Sequence[tuple[tuple[Triple, Wording], bool]], relation: str, *, seen: bool) -> float:
    hits = [hit for (fact, wording), hit in found if fact.relation == relation and wording.seen == seen]
    return sum(hits) / len(hits)
