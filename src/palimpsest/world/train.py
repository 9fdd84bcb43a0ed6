"""Training of the world's models: next-token prediction on an endless corpus, resumable, the same on every run.

    loss = - mean over tokens of log p(x_t | x_<t)        nats a token

by AdamW (Loshchilov and Hutter 2019) with a warm-up and a cosine, gradients clipped at norm 1. Documents are packed into
windows; a window begins where a document begins, so that a prompt asked by itself stands where facts were read. Products
run in bfloat16; weights, gradients and AdamW are float32.

What step i reads depends on the recipe and on i alone, and a check point holds weights, both moments of AdamW and the
step: a training that was killed goes on where the last check point stands and ends with the same weights (bit for bit on
the same machine with as many threads). The finished model is rounded to float16, which halves the file; what is measured
and shipped is the rounded one.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from palimpsest.errors import ModelError
from palimpsest.model.model import hash_tensor
from palimpsest.runs import Progress, atomic_path, atomic_write, check_writable
from palimpsest.world.corpus import Corpus
from palimpsest.world.recipes import Recipe
from palimpsest.world.vocabulary import trained_tokenizer
from palimpsest.world.world import World, made_world

CHECKPOINT, CARD = "checkpoint.safetensors", "training.json"
EVERY = 250  # steps between check points


def train_model(
    recipe: Recipe,
    out: Path | str,
    *,
    world: World | None = None,
    every: int = EVERY,
    until: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train the model of `recipe` and write it to the folder `out`, as transformers does.

    Args:
        recipe: see `palimpsest.world.recipes`.
        out: folder; the check point of an interrupted training in it is continued, and a finished one is left as it is.
        world: told to it; `made_world()` when None.
        every: steps between check points.
        until: stop after this step, with a check point, and write no model; to the end when None.
        progress: called with (step, steps, loss as text).

    Returns:
        The folder.

    Raises:
        ModelError: the check point is damaged or of another recipe, or the folder holds another model.
        OutputError: the folder cannot be written.
    """
    folder = check_writable(out)
    tokenizer = trained_tokenizer(recipe.vocabulary)
    corpus = Corpus(world or made_world(), one_wording=recipe.one_wording, seed=recipe.seed)
    end = int(tokenizer.eos_token_id)
    net = recipe.network(end)
    net.train()
    optimizer = torch.optim.AdamW(_groups(net, recipe.weight_decay), lr=recipe.learning_rate, betas=(0.9, 0.98))
    identity = _identity(recipe, corpus)
    if _finished(folder, identity, recipe):
        return folder
    step, seconds = _restore(folder / CHECKPOINT, net, optimizer, identity)
    last = min(recipe.steps, until if until is not None else recipe.steps)
    if progress is not None:
        progress(step, recipe.steps, "")
    while step < last:
        start = time.perf_counter()
        loss = _step(net, optimizer, windows(corpus, tokenizer, recipe, step), rate(recipe, step))
        step, seconds = step + 1, seconds + time.perf_counter() - start
        if step % every == 0 or step == last:
            _keep(folder / CHECKPOINT, net, optimizer, identity, step, seconds)
        if progress is not None:
            progress(step, recipe.steps, f"{loss:.3f} nats")
    if last == recipe.steps:
        card = {"recipe": asdict(recipe), "tokens": recipe.tokens, "seconds": round(seconds), "identity": identity}
        _write(folder, net, tokenizer, card)
        (folder / CHECKPOINT).unlink(missing_ok=True)
    return folder


def _finished(folder: Path, identity: str, recipe: Recipe) -> bool:
    """Whether the folder holds the model of this very training; raises `ModelError` where it holds another."""
    if not (folder / "model.safetensors").is_file():
        return False
    try:
        card = json.loads((folder / CARD).read_text("utf-8"))
        same = (
            card["identity"] == identity
            if "identity" in card
            else card["recipe"] == json.loads(json.dumps(asdict(recipe)))
        )
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise ModelError(f"{folder} holds a model of another training already; choose another --out, or delete it.")
    return True


def rate(recipe: Recipe, step: int) -> float:
    """Learning rate of a step, counted from 0."""
    if step < recipe.warm_up:
        return recipe.learning_rate * (step + 1) / recipe.warm_up
    share = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return recipe.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))


def windows(corpus: Corpus, tokenizer: Any, recipe: Recipe, step: int) -> Int[Tensor, "batch window"]:
    """What a step reads: documents one after the other, with the end token after each; what does not fit is cut off.

    Documents are numbered so that no two steps share one.
    """
    most = recipe.batch * recipe.window  # a document has at least one token
    number, rows = step * most, []
    for _ in range(recipe.batch):
        row: list[int] = []
        while len(row) < recipe.window:
            row += [*tokenizer(corpus.document(number)).input_ids, tokenizer.eos_token_id]
            number += 1
        rows.append(row[: recipe.window])
    return torch.tensor(rows)


def next_token_loss(
    logits: Float[Tensor, "batch window vocabulary"], ids: Int[Tensor, "batch window"]
) -> Float[Tensor, ""]:
    """Mean nll of every token but the first of each window, in nats."""
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten())


@torch.enable_grad()
def _step(net: PreTrainedModel, optimizer: torch.optim.Optimizer, ids: Tensor, learning_rate: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    with torch.autocast(ids.device.type, dtype=torch.bfloat16):
        logits = net(input_ids=ids, use_cache=False).logits
    loss = next_token_loss(logits, ids)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def _groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases and norms do not."""
    matrices = [weight for weight in net.parameters() if weight.ndim >= 2]
    vectors = [weight for weight in net.parameters() if weight.ndim < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def _identity(recipe: Recipe, corpus: Corpus) -> str:
    """Hash of all that decides what a training gives: a check point of anything else is refused."""
    sample = [corpus.document(i) for i in range(50)]
    facts = [list(fact) for fact in corpus.facts]
    return hashlib.sha256(json.dumps([asdict(recipe), facts, sample], sort_keys=True).encode()).hexdigest()


def _named(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of a check point by name: weights, and the two moments of each."""
    tensors = {}
    for name, weight in net.named_parameters():
        tensors[f"weight/{name}"] = weight.detach()
        for moment in ("exp_avg", "exp_avg_sq"):
            tensors[f"{moment}/{name}"] = optimizer.state[weight][moment]
    return tensors


def _keep(
    path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, identity: str, step: int, seconds: float
) -> None:
    tensors = _named(net, optimizer)
    card = {"identity": identity, "step": str(step), "seconds": f"{seconds:.1f}", "sha256": _digest(tensors)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata=card)


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names and contents, so that a file with a flipped bit is not trained on."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {hash_tensor(tensors[name])}".encode())
    return digest.hexdigest()


def _restore(path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, identity: str) -> tuple[int, float]:
    """Fill the network and AdamW from a check point, if there is one; returns its step and the seconds so far."""
    if not path.is_file():
        return 0, 0.0
    advice = "delete it to train from the beginning"
    try:
        with safe_open(path, framework="pt") as file:
            card = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"The check point {path} is damaged ({error}); {advice}.") from None
    if card.get("identity") != identity:
        raise ModelError(
            f"The check point {path} is of another recipe or another world; {advice}, or choose another --out."
        )
    if card.get("sha256") != _digest(tensors):
        raise ModelError(f"The check point {path} is damaged (its contents are not those that were written); {advice}.")
    step = int(card["step"])
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.copy_(tensors[f"weight/{name}"])
            optimizer.state[weight] = {
                "step": torch.tensor(float(step)),
                "exp_avg": tensors[f"exp_avg/{name}"],
                "exp_avg_sq": tensors[f"exp_avg_sq/{name}"],
            }
    return step, float(card["seconds"])


def _write(folder: Path, net: PreTrainedModel, tokenizer: Any, card: dict[str, Any]) -> None:
    """The folder that `from_pretrained` reads: weights in float16, a config that says float32, the tokenizer.

    The weights come last and at once, so that a folder with weights is whole.
    """
    net.eval()
    net.config.dtype = torch.float32
    state = {name: weight.half() for name, weight in _without_copies(net).items()}
    atomic_write(folder / "config.json", net.config.to_json_string(use_diff=True))
    tokenizer.save_pretrained(folder)
    atomic_write(folder / CARD, json.dumps(card, indent=1) + "\n")
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(state, temporary, metadata={"format": "pt"})


def _without_copies(net: PreTrainedModel) -> dict[str, Tensor]:
    """Weights by name, those that are tied once."""
    seen: set[int] = set()
    state = {}
    for name, weight in net.state_dict().items():
        if weight.data_ptr() not in seen:
            seen.add(weight.data_ptr())
            state[name] = weight.contiguous()
    return state
