"""`load`: a model by name, Hub id, folder, or one that is already loaded.

load("smollm2")                       # the real model that comes with palimpsest
load("world")                         # the small one that knows a made world; also "world-llama", "world-plain", "world-seed1"
load("gpt2"), load("folder/")         # anything AutoModelForCausalLM reads
load(net, tokenizer=tokenizer)        # your own, left as it is
"""

import difflib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from palimpsest.collecting import collection_paused
from palimpsest.errors import ModelError, SettingError, WeightError, did_you_mean
from palimpsest.model.anatomy import Anatomy
from palimpsest.model.doctor import OF_THE_WEIGHTS, examine
from palimpsest.model.model import Model, evaluating
from palimpsest.model.packaged import PACKAGED
from palimpsest.model.quiet import quiet
from palimpsest.model.remembered import passed_before, remember, wiring
from palimpsest.model.smollm2 import smollm2_folder

SHIPPED: dict[str, Callable[[], Path]] = {"smollm2": smollm2_folder, **PACKAGED}
READERS = {"safetensors", "safetensors_rust", "huggingface_hub", "httpx", "httpx2", "requests"}


def load(
    source: str | os.PathLike[str] | PreTrainedModel | torch.nn.Module,
    *,
    tokenizer: Any = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    device_map: Any = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    anatomy: Anatomy | None = None,
    check: bool = True,
) -> Model:
    """Load a causal language model and prove that its sites mean what their names say.

    Args:
        source: "smollm2", "world", a folder, a Hub id, or a loaded `PreTrainedModel`, wrapped by PEFT or not (which is used as
            it is, never copied).
        tokenizer: needed for a loaded model whose folder is not known.
        dtype: of the weights read; float32 on a CPU, the checkpoint's own elsewhere, when None.
        device: where to put it, for instance "cuda".
        device_map: as in transformers (needs accelerate).
        revision, trust_remote_code: as in transformers; no remote code runs unless asked for.
        anatomy: an override made by `Anatomy.find(net, down=...)`.
        check: run the short form of the doctor; where it has passed the same config, code and versions on this machine
            before, only what depends on the weights.

    Raises:
        ModelError: the model is unknown, unreadable, or fails a check (`AnatomyError`); weights that are not finite
            raise `WeightError`. The message says what to do.
        SettingError: there is no such device; or an option that only reading weights can honour, beside a loaded model.
    """
    if isinstance(source, torch.nn.Module):
        if dtype is not None or device_map is not None:
            raise SettingError("A loaded model keeps its dtype and its devices; leave dtype and device_map out.")
        net = _unwrapped(source)
        name = net.config._name_or_path or type(net).__name__
        if tokenizer is None:
            tokenizer = _tokenizer_of_loaded(name)
    else:
        name = str(source)
        if dtype is None and device_map is None and _named(device or "cpu").type == "cpu":
            dtype = torch.float32
        net, tokenizer = _read(name, tokenizer, dtype, device_map, revision, trust_remote_code)
    if device is not None:
        _move(net, device)
    _check_finite(net, name)
    with evaluating(net):
        model = Model(net, tokenizer, anatomy or Anatomy.find(net), name)
        if check:
            # a model made or wrapped by the user may be wired in its own way, whatever its config says
            _check_sites(model, None if isinstance(source, torch.nn.Module) or anatomy else wiring(net))
    return model


def _named(device: str | torch.device) -> torch.device:
    """A device by its name; raises `SettingError` where there is none of that name."""
    try:
        return torch.device(device)
    except RuntimeError:
        raise SettingError(f"A device is named as in 'cpu', 'cuda' or 'cuda:1', got {str(device)!r}.") from None


def _move(net: PreTrainedModel, device: str | torch.device) -> None:
    """The network to its device; raises `SettingError` where this machine has no such device."""
    wanted = _named(device)
    try:
        net.to(wanted)
    except (AssertionError, RuntimeError) as error:  # torch asserts that it was built for the device
        reason = str(error).splitlines()[0]
        raise SettingError(
            f"The model cannot be put on {str(device)!r} ({reason}); choose a device that is there."
        ) from None


def _check_sites(model: Model, known_as: str | None) -> None:
    """The short form of the doctor, or only what depends on the weights where it passed this wiring before."""
    if known_as is not None and passed_before(known_as):
        examine(model, thorough=False, only=OF_THE_WEIGHTS).raise_on_failure()
        return
    examine(model, thorough=False).raise_on_failure()
    if known_as is not None:
        remember(known_as)


def _read(
    source: str,
    tokenizer: Any,
    dtype: torch.dtype | None,
    device_map: Any,
    revision: str | None,
    trust_remote_code: bool,
) -> tuple[PreTrainedModel, Any]:
    if source not in SHIPPED and "/" not in source and not Path(source).exists():
        _refuse_a_typing_error(source)
    place = str(SHIPPED[source]()) if source in SHIPPED else source
    local = Path(place).is_dir()
    if local and not (Path(place) / "config.json").is_file():
        raise ModelError(
            f"The folder {place} holds no model: it has no config.json; name a folder written by save_pretrained."
        )
    common = {"revision": revision, "trust_remote_code": trust_remote_code, "local_files_only": local}
    what = "model"
    with quiet(), collection_paused():
        try:
            net, found = AutoModelForCausalLM.from_pretrained(
                place,
                dtype=dtype or "auto",
                device_map=device_map,
                use_safetensors=True,
                output_loading_info=True,
                **common,
            )
            if tokenizer is None:
                what = "tokenizer"
                tokenizer = AutoTokenizer.from_pretrained(place, **common)
                if not set(tokenizer("The").input_ids) - set(tokenizer.all_special_ids):
                    raise ValueError("its vocabulary is missing")  # transformers 5 makes up an empty one
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise _unreadable(what, source, local, error) from None
        except Exception as error:  # safetensors and the hub raise their own kinds
            if type(error).__module__.split(".")[0] in READERS:
                raise _unreadable(what, source, local, error) from None
            raise
    if missing := sorted(found["missing_keys"]):
        raise WeightError(
            f"The model in {source} lacks {len(missing)} of its weights (the first is {missing[0]}), which would be random; "
            f"it is incomplete or not a causal language model."
        )
    net.eval()
    net.requires_grad_(False)
    return net, tokenizer


def _refuse_a_typing_error(source: str) -> None:
    """Nearly the name of a shipped model: say so at once, and do not ask the Hub, which may take a minute offline."""
    if difflib.get_close_matches(source, SHIPPED, n=1, cutoff=0.8):
        raise ModelError(f"There is no model {source!r}.{did_you_mean(source, SHIPPED)}")


def _unreadable(what: str, source: str, local: bool, error: Exception) -> ModelError:
    reason = " ".join(str(error).split())[:200].rstrip(". ")
    if local:
        cure = "; give one with load(..., tokenizer=...)" if what == "tokenizer" else ""
        return ModelError(f"The {what} in {source} cannot be read: {reason}{cure}.")
    return ModelError(
        f"There is no {what} {source!r}: it is not a folder here, and the Hub did not give it ({reason})."
        f"{did_you_mean(source, SHIPPED)}"
    )


def _unwrapped(source: torch.nn.Module) -> PreTrainedModel:
    """The transformers model inside PEFT's wrapper, with its adapters in place; any other model as it is."""
    net = source
    settings: Any = getattr(source, "active_peft_config", None)
    if settings is not None and hasattr(source, "get_base_model"):
        if settings.is_prompt_learning:
            raise ModelError(
                "Adapters that add virtual tokens (prompt or prefix tuning) have no place in the sites of a model."
            )
        net = source.get_base_model()  # type: ignore[operator]
    if not isinstance(net, PreTrainedModel):
        raise ModelError(f"A loaded model must be a transformers PreTrainedModel, got {type(source).__name__}.")
    return net


def _tokenizer_of_loaded(name: str) -> Any:
    try:
        return AutoTokenizer.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError):
        raise ModelError(
            f"The tokenizer of the loaded model {name!r} is not known; pass load(net, tokenizer=...)."
        ) from None


def _check_finite(net: PreTrainedModel, name: str) -> None:
    for path, weight in net.named_parameters():
        if weight.is_floating_point() and not weight.is_meta and not bool(torch.isfinite(weight).all()):
            bad = int((~torch.isfinite(weight)).sum())
            raise WeightError(
                f"The weight {path} of {name} has {bad} values that are not finite; "
                f"the file is damaged or was saved in the wrong precision."
            )
