"""Where the sites of a model are: found from the structure of its modules, never from its name.

The rules, each checked on real forward passes by `palimpsest.model.doctor`:

    layers      the last `ModuleList` with as many items as the config has hidden layers, whose items have children
                (a list inside such a list holds experts)
    attention   the child of a layer whose name says attention or another token mixer
    down        the one linear map outside attention whose output is as wide as the stream and whose input is not;
                experts do not count, a shared expert does
    mlp         the child that holds `down` (or `down` itself where the layer has no MLP module, as in OPT)

A linear map that PEFT has wrapped counts as the map inside (`base_layer`): `key` and `value` are its input and output
before an adapter adds to it.

Where a rule finds nothing or too much, name the part by hand: `Anatomy.find(net, down="ffn.w2")`.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from palimpsest.errors import AnatomyError, SettingError, did_you_mean
from palimpsest.model.sites import Site

MIXER = re.compile(r"att|mixer|mamba|ssm|conv|delta|rnn|time_mix", re.IGNORECASE)
NOT_A_MIXER = re.compile(r"norm|ln|drop|scale", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """A module and its dotted path from the root of the network."""

    path: str
    module: nn.Module


@dataclass(frozen=True)
class Layer:
    """The parts of one decoder layer. `down` is None where no single weight holds the keys; `why_no_down` says why."""

    index: int
    block: Part
    attention: Part | None
    attention_projection: Part | None
    mlp: Part | None
    down: Part | None
    why_no_down: str = ""


@dataclass(frozen=True)
class Anatomy:
    """The decoder layers of a network, its embedding and its head.

    Attributes:
        layers: one `Layer` each, in order.
        embedding: the token embedding.
        head: the output projection (logits).
        width: size d of the residual stream.
        returns_tuple: whether a layer returns (h, ...) or h alone, which differs by family and version.
    """

    layers: tuple[Layer, ...]
    embedding: nn.Module
    head: nn.Module
    width: int
    returns_tuple: bool

    @classmethod
    def find(
        cls,
        net: PreTrainedModel,
        *,
        layers: str | None = None,
        attention: str | None = None,
        mlp: str | None = None,
        down: str | None = None,
    ) -> "Anatomy":
        """Find every part of `net`.

        Args:
            net: a causal language model of transformers.
            layers: path of the list of layers from the root, where the rule fails.
            attention, mlp, down: paths inside one layer, where the rules fail.

        Raises:
            AnatomyError: a part was not found, or several fit; the message names the option that settles it.
        """
        config = net.config.get_text_config(decoder=True)
        stack = _layers(net, config.num_hidden_layers, layers)
        width = config.hidden_size
        found = tuple(_layer(index, block, width, attention, mlp, down) for index, block in enumerate(stack))
        embedding, head = net.get_input_embeddings(), net.get_output_embeddings()
        if embedding is None or head is None:
            missing = "input embedding" if embedding is None else "output head"
            raise AnatomyError(f"{type(net).__name__} has no {missing}; load it as a causal language model.")
        return cls(found, embedding, head, width, _returns_tuple(net, stack[0].module))

    def __len__(self) -> int:
        return len(self.layers)

    def check_layer(self, layer: int) -> int:
        """`layer` itself when it exists; raises `SettingError` with the nearest layer otherwise."""
        if not 0 <= layer < len(self):
            nearest = min(max(layer, 0), len(self) - 1)
            raise SettingError(
                f"There is no layer {layer}: this model has layers 0 to {len(self) - 1}. Did you mean {nearest}?"
            )
        return layer

    def down(self, layer: int) -> Part:
        """The down-projection of `layer`; raises `AnatomyError` with the reason where there is none to edit."""
        part = self.layers[self.check_layer(layer)].down
        if part is None:
            raise AnatomyError(
                f"Layer {layer} has no single down-projection to read keys from or to edit: "
                f"{self.layers[layer].why_no_down}. Locating works on this model; weight edits do not."
            )
        return part

    def module_of(self, site: Site) -> nn.Module:
        """The module whose input (`key`, `resid_in`) or output (all others) is `site`."""
        if site.kind == "embed":
            return self.embedding
        layer = self.layers[self.check_layer(site.layer)]
        if site.kind in ("key", "value"):
            return self.down(site.layer).module
        part = {"attn_out": layer.attention, "mlp_out": layer.mlp}.get(site.kind, layer.block)
        if part is None:
            raise AnatomyError(f"Layer {site.layer} of this model has no module for {site.kind!r}.")
        return part.module


def is_linear(module: nn.Module) -> bool:
    """Whether `module` is a linear map with one weight matrix."""
    return isinstance(module, nn.Linear | Conv1D)


def in_out_features(module: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear map, also where the stored weight is packed or transposed."""
    if isinstance(module, Conv1D):
        return int(module.nx), int(module.nf)
    return int(module.in_features), int(module.out_features)  # type: ignore[arg-type]


def stores_transposed(module: nn.Module) -> bool:
    """Whether the weight is stored as (in, out), as GPT-2's `Conv1D` does, and not as (out, in)."""
    return isinstance(module, Conv1D)


def matrix_of(module: nn.Module) -> Tensor:
    """The weight of a linear map as W of shape (out, in), a view of what is stored."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight.T if stores_transposed(module) else weight


@torch.no_grad()
def _returns_tuple(net: PreTrainedModel, block: nn.Module) -> bool:
    seen: list[bool] = []
    handle = block.register_forward_hook(lambda _module, _args, output: seen.append(isinstance(output, tuple)))
    try:
        ids = torch.zeros(1, 2, dtype=torch.long, device=net.get_input_embeddings().weight.device)
        net(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise AnatomyError(f"{type(net).__name__} does not run on two tokens of text alone ({reason}).") from error
    finally:
        handle.remove()
    if not seen:
        raise AnatomyError(
            f"Running {type(net).__name__} does not run its first layer; name the layers with layers=...."
        )
    return seen[0]


def _layers(net: PreTrainedModel, count: int, override: str | None) -> list[Part]:
    if override is not None:
        named = [
            Part(f"{override}.{name}", block) for name, block in _submodule(net, override, "layers").named_children()
        ]
        if len(named) != count:
            raise AnatomyError(
                f"layers={override!r} holds {len(named)} modules but the config says {count} hidden layers."
            )
        return named
    stacks = [
        (path, module)
        for path, module in net.named_modules()
        if isinstance(module, nn.ModuleList)
        and len(module) == count
        and all(len(list(block.children())) > 1 for block in module)
    ]
    if not stacks:
        raise AnatomyError(
            f"No list of {count} decoder layers was found in {type(net).__name__}; "
            f"name it with layers='path.to.layers' (its top modules are {[name for name, _ in net.named_children()]})."
        )
    names = {path for path, _ in stacks}
    outermost = [stack for stack in stacks if not any(stack[0].startswith(f"{name}.") for name in names)]
    path, module = outermost[-1]
    return [Part(f"{path}.{i}", block) for i, block in enumerate(module)]


def _layer(index: int, block: Part, width: int, attention: str | None, mlp: str | None, down: str | None) -> Layer:
    mixer = _named(block, attention, "attention") if attention else _mixer(block)
    why = ""
    projection = None
    if mixer is not None:
        outputs = [part for part in _linear_maps(mixer) if in_out_features(part.module)[1] == width]
        projection = outputs[-1] if outputs else None  # the output map is registered after queries, keys and values
    inside = f"{mixer.path}." if mixer else None
    down_part: Part | None
    if down:
        down_part = _named(block, down, "down")
        if not is_linear(down_part.module):
            kind = type(down_part.module).__name__
            raise AnatomyError(
                f"down={down!r} must name a linear map inside a layer, but {down_part.path} is a {kind}."
            )
        if mixer and not attention and down_part.path.startswith(f"{mixer.path}."):
            raise AnatomyError(
                f"down={down!r} lies inside the attention module {mixer.path}; name the map that ends the MLP."
            )
    else:
        down_part, why = _down(block, width, inside)
    mlp_part = _named(block, mlp, "mlp") if mlp else _mlp(block, mixer, down_part)
    attention_part, mlp_part = _adds_alone(block, mixer, projection), _adds_alone(block, mlp_part, down_part)
    return Layer(index, block, attention_part, projection, mlp_part, down_part, why)


def _mixer(block: Part) -> Part | None:
    for name, child in block.module.named_children():
        if MIXER.search(name) and not NOT_A_MIXER.search(name):
            return Part(f"{block.path}.{name}", child)
    return None


def _down(block: Part, width: int, attention_prefix: str | None) -> tuple[Part | None, str]:
    outside = [
        part for part in _linear_maps(block) if attention_prefix is None or not part.path.startswith(attention_prefix)
    ]
    fits = [part for part in outside if _narrows_to(part, width)]
    if len(fits) > 1:  # projections beside the MLP (Gemma 3n's per-layer inputs) sit directly under the layer
        deeper = [part for part in fits if "." in part.path[len(block.path) + 1 :]]
        fits = deeper or fits
    if len(fits) == 1:
        return fits[0], ""
    if len(fits) > 1:
        names = [part.path[len(block.path) + 1 :] for part in fits]
        raise AnatomyError(
            f"Several maps of {block.path} could be its down-projection; choose one with down=..., of {names}."
        )
    if _has_experts(block):
        return None, "its MLP is a mixture of experts with fused or per-expert weights and no shared expert"
    same_width = [part for part in outside if in_out_features(part.module)[1] == width]
    if same_width:  # an MLP exactly as wide as the stream
        return same_width[-1], ""
    return None, "no linear map outside attention writes to the residual stream"


def _narrows_to(part: Part, width: int) -> bool:
    inputs, outputs = in_out_features(part.module)
    return outputs == width != inputs


def _has_experts(block: Part) -> bool:
    return any("expert" in name for name, _ in block.module.named_modules())


def _linear_maps(root: Part) -> Iterator[Part]:
    """Linear maps below `root`, without experts (items of a list) and without the adapters PEFT adds."""
    for name, module in root.module.named_modules():
        if not is_linear(module) or "lora_" in name:
            continue
        steps = name.split(".")
        holders = [root.module.get_submodule(".".join(steps[:i])) for i in range(1, len(steps))]
        if any(isinstance(holder, nn.ModuleList) for holder in holders):
            continue
        yield Part(f"{root.path}.{name}" if name else root.path, module)


def _mlp(block: Part, mixer: Part | None, down: Part | None) -> Part | None:
    if down is not None:
        first = down.path[len(block.path) + 1 :].split(".")[0]
        return Part(f"{block.path}.{first}", block.module.get_submodule(first))
    for name, child in block.module.named_children():
        path = f"{block.path}.{name}"
        if (mixer is None or path != mixer.path) and (_has_experts(Part(path, child)) or "expert" in name):
            return Part(path, child)
    return None


def _adds_alone(block: Part, part: Part | None, projection: Part | None) -> Part | None:
    """`part`, or its last map where the module itself adds the residual stream (BLOOM passes it in as `residual`)."""
    if part is None or projection is None or "residual" not in inspect.signature(part.module.forward).parameters:
        return part
    inside = projection.path[len(block.path) + 1 :].removesuffix(".base_layer")  # with its adapter, if it has one
    return _named(block, inside, "down")


def _named(block: Part, name: str, option: str) -> Part:
    return Part(f"{block.path}.{name}", _submodule(block.module, name, option))


def _submodule(root: nn.Module, path: str, option: str) -> nn.Module:
    try:
        return root.get_submodule(path)
    except AttributeError:
        parent, steps = root, path.split(".")
        while steps and hasattr(parent, steps[0]) and isinstance(getattr(parent, steps[0]), nn.Module):
            parent = getattr(parent, steps.pop(0))
        names = [name for name, _ in parent.named_children()]
        hint = did_you_mean(steps[0] if steps else path, names) if names else " It has no modules inside."
        kind = type(parent).__name__
        raise AnatomyError(
            f"{option}={path!r} is not a module here: {kind} has no {'.'.join(steps)!r}.{hint}"
        ) from None
