"""A pretrained model with its tokenizer, from the Hub or a folder, and one way to say why there is none.

Safetensors where there are any, else `.bin` by the library's weights-only loader; never a repository's own code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict, Unpack

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from qa_inference.batching import choose_device, choose_dtype

Check = Callable[[Any, torch.dtype, torch.device], None]
"""Looks at a checkpoint's configuration, and the type and the device it is to be loaded in, before its weights are."""


class Source(TypedDict, total=False):
    """Where a checkpoint is, as the library's loaders take it: what of the Hub, and whether the Hub may be asked."""

    revision: str | None
    token: str | None
    cache_dir: str | None
    local_files_only: bool


class Loading(Source, total=False):
    """That, and what it becomes: on which device (None: the machine's best), in which type (None: the device's)."""

    device: str | torch.device | None
    dtype: str | torch.dtype | None


def load_pretrained(
    head: Any,
    kind: str,
    name: str,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: str | None = None,
    gguf_file: str | None = None,
    check: Check | None = None,
    **source: Unpack[Source],
) -> tuple[PreTrainedModel, Any, list[str]]:
    """Load a Hub name or a folder.

    Args:
        head: the library's class for the task, `AutoModelForSeq2SeqLM`, say.
        kind: what the checkpoint must be, as an error says it.
        name: the Hub name or the folder.
        device: where the model goes; None: the machine's best. See `choose_device`.
        dtype: the type of its weights; None: the device's. See `choose_dtype`.
        device_map: spreads the model as accelerate does ("auto") instead; a quantized checkpoint goes where its library
            puts it.
        gguf_file: a GGUF file of that name in the repository or the folder (needs the package `gguf`).
        check: raises what is wrong with the configuration, before the weights are read.
        **source: see `Source`.

    Returns:
        The model, its tokenizer, and the weights that the checkpoint lacks, by name: they are random.

    Raises:
        OSError: if there is no such checkpoint, or it cannot be read; like the next, it names `name`.
        ValueError: if it is of another kind.
        MemoryError: as `check` raises it.
    """
    place = choose_device(device)
    numbers = choose_dtype(dtype, place)
    options: dict[str, Any] = {**source, "trust_remote_code": False}  # nor is the user asked
    options |= {} if gguf_file is None else {"gguf_file": gguf_file}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        config = AutoConfig.from_pretrained(name, **options)
        if check is not None:
            check(config, numbers, place)
        model, report = head.from_pretrained(
            name, config=config, dtype=numbers, device_map=device_map, output_loading_info=True, **options
        )
    except MemoryError:
        raise
    except Exception as error:  # the library raises many kinds, some without the name
        failure = OSError if isinstance(error, OSError) else ValueError
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise failure(
            f"model {name!r}: must be a folder or a Hub name of {kind} with its tokenizer; loading it failed: {reason}"
        ) from error
    if device_map is None and getattr(config, "quantization_config", None) is None:
        model.to(place)
    return model, tokenizer, sorted(report["missing_keys"])
