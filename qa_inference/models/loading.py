"""One way to load a checkpoint: options, weights, special token ids, and the limit of positions.

Weights are read from safetensors files, or from `.bin` files by the library's weights-only loader. A repository's own
code never runs.
"""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import torch
from huggingface_hub import constants, get_session
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from qa_inference.models.devices import DTYPES_BY_NAME, choose_device, choose_dtype
from qa_inference.models.inference import count_embeddings, no_finite_numbers
from qa_inference.models.int8_weights import is_stored_in_int8, read_int8_weights
from qa_inference.models.memory import check_fits, free_bytes, parameter_bytes

logger = logging.getLogger(__name__)

_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_NEVER_USED = re.compile(r"(^|\.)pooler\.")  # a checkpoint of a reader may have these weights, but its model does not
_NO_LIMIT = 1_000_000  # tokens; a tokenizer without a limit has a larger number
HUB_SECONDS = 5.0  # wait for the Hub's first answer


@dataclass(frozen=True)
class LoadingOptions:
    """Loading options plus the target device and dtype.

    Attributes:
        revision: a branch, tag or commit of the Hub repository; None: its default branch.
        token: an access token for the Hub.
        cache_dir: the folder that keeps downloads; None: the library's.
        local_files_only: whether the Hub must not be asked.
        device: where the model computes; None: the machine's best device. See `choose_device`.
        dtype: the type of the weights; None: the device's. See `choose_dtype`.
    """

    revision: str | None = None
    token: str | None = None
    cache_dir: str | None = None
    local_files_only: bool = False
    device: str | torch.device | None = None
    dtype: str | torch.dtype | None = None

    @classmethod
    def from_config(cls, config: Any, revision: str | None) -> Self:
        """The loading options in a metric's configuration, with the revision of the one model that is loaded."""
        names = ("token", "cache_dir", "local_files_only", "device", "dtype")
        return cls(revision=revision, **{name: getattr(config, name) for name in names})

    def hub(self) -> dict[str, Any]:
        """The keyword arguments of the library's loaders. The repository's own code never runs."""
        named = {name: value for name, value in asdict(self).items() if name not in ("device", "dtype")}
        return {**{name: value for name, value in named.items() if value is not None}, "trust_remote_code": False}

    def reaching(self, name: str) -> tuple[LoadingOptions, str]:
        """Options that ask the Hub for `name` only if it answers; and the reason that it is not asked, or "".

        Without this test, the library repeats every request for a file until minutes have passed.
        """
        if Path(name).exists() or not _HUB_NAME.fullmatch(name):
            return self, ""
        if self.local_files_only or constants.HF_HUB_OFFLINE:
            return self, "local_files_only is set" if self.local_files_only else "HF_HUB_OFFLINE is set"
        try:
            get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
        except Exception as error:  # of the library's HTTP client, whichever it is
            return replace(self, local_files_only=True), f"{constants.ENDPOINT}: {first_line(error)}"
        return self, ""


DEFAULT_LOADING = LoadingOptions()


def load_pretrained(
    task_class: Any,
    kind: str,
    name: str,
    options: LoadingOptions = DEFAULT_LOADING,
    *,
    device_map: str | None = None,
    gguf_file: str | None = None,
) -> tuple[PreTrainedModel, Any]:
    """Load a Hub name or a folder.

    Args:
        task_class: the library's class for the task, for example `AutoModelForSeq2SeqLM`.
        kind: the kind of checkpoint that is needed, in the words of an error.
        name: the Hub name or the folder.
        options: where to look, and the device and dtype of the model.
        device_map: spreads the model as accelerate does ("auto") and replaces `options.device`. A quantized checkpoint
            goes where its library puts it.
        gguf_file: the name of a GGUF file in the repository or the folder (needs the package `gguf`).

    Returns:
        The model and its tokenizer.

    Raises:
        OSError: if there is no such checkpoint, or it cannot be read; the error names it.
        ValueError: if the checkpoint is of another kind, or lacks weights, or has others, or some are NaN or infinite;
            the error names them.
        MemoryError: if the weights do not fit into the device's free memory. They are not read then.
    """
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    options, hub_trouble = options.reaching(name)
    settings = options.hub() | ({} if gguf_file is None else {"gguf_file": gguf_file})
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **settings)
        config = AutoConfig.from_pretrained(name, **settings)
        needed = None if device_map is not None else parameter_bytes(task_class, config, dtype)
        if needed is not None:
            check_fits(name, needed, free_bytes(device), dtype)
        in_int8 = is_stored_in_int8(Path(name))  # then the library has only to put the numbers into the model
        untied = _untied_class(task_class, config)
        model_class = untied or (task_class._model_mapping[type(config)] if in_int8 else task_class)
        model, report = model_class.from_pretrained(
            None if in_int8 else name,
            config=config,
            state_dict=read_int8_weights(Path(name), dtype) if in_int8 else None,
            dtype=dtype,
            device_map=device_map,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the report then lists all of them
            **settings,
        )
        if untied is not None:
            model.__class__ = untied.__base__  # the subclass has done its work, and could not be pickled
    except MemoryError:
        raise
    except Exception as error:  # the library raises errors of many types, and some do not name the checkpoint
        raise _failure(name, kind, hub_trouble, error) from error
    _check_weights(name, kind, report)
    if device_map is None and getattr(config, "quantization_config", None) is None:
        model.to(device)
    _check_finite_weights(name, model)
    return model, tokenizer


def _untied_class(task_class: Any, config: Any) -> Any:
    """A subclass to load a T5 whose head has its own matrix, as T5 1.1 and Flan-T5 have; None for any other model.

    For `tie_word_embeddings: false`, the library's configuration of T5 has `scale_decoder_outputs: false`, and ties the
    head all the same. It would then find that head and embeddings differ, warn, and not tie them.
    """
    model_class = task_class._model_mapping.get(type(config), None)
    if config.model_type != "t5" or getattr(config, "scale_decoder_outputs", True) or model_class is None:
        return None
    tied = {key: source for key, source in model_class._tied_weights_keys.items() if key != "lm_head.weight"}
    return type(model_class.__name__, (model_class,), {"_tied_weights_keys": tied})


def _failure(name: str, kind: str, hub_trouble: str, error: Exception) -> OSError | ValueError:
    """The error that explains in one line why a checkpoint cannot be loaded."""
    if hub_trouble and isinstance(error, OSError):
        return OSError(
            f"model {name!r}: must be a folder, or a Hub name that is downloaded or can be downloaded; it is not on "
            f"this machine, and the Hub cannot be asked ({hub_trouble}). Check the network, or give a folder"
        )
    if isinstance(error, pickle.UnpicklingError):  # torch's own message advises to load it anyway
        return ValueError(
            f"model {name!r}: its .bin files must hold weights and nothing else; they hold pickled Python objects, "
            f"which could run any code. Use a checkpoint in safetensors"
        )
    failure = OSError if isinstance(error, OSError) else ValueError
    return failure(
        f"model {name!r}: must be a folder or a Hub name of {kind} with its tokenizer; loading it failed: "
        f"{first_line(error)}"
    )


def _check_weights(name: str, kind: str, report: dict[str, Any]) -> None:
    """Raise ValueError unless the checkpoint had every weight of the model, in its shape, and no others.

    The library would give random numbers to missing weights and ignore unexpected ones. Of tied weights one is enough,
    and its report leaves out the others.
    """
    mismatched = report["mismatched_keys"]
    shapes = [f"{key} as {tuple(stored)} instead of {tuple(needed)}" for key, stored, needed in mismatched]
    unexpected = [key for key in report["unexpected_keys"] if not _NEVER_USED.search(key)]
    faults = (("lacks", report["missing_keys"]), ("has", shapes), ("also has", unexpected))
    described = [f"{verb} {_listed(keys)}" for verb, keys in faults if keys]
    if described:
        raise ValueError(
            f"model {name!r}: must be a complete checkpoint of {kind}; it {', and '.join(described)}. Use a "
            f"checkpoint that was trained for this task and saved with all its weights"
        )


def _check_finite_weights(name: str, model: PreTrainedModel) -> None:
    """Raise ValueError if a weight is NaN or infinite. Embeddings are left to the numbers computed from them.

    The numbers do not always show it: torch's attention on a CPU takes a query without finite scores for one that
    attends to nothing.
    """
    modules = list(model.named_modules())
    embeddings = {id(module.weight) for _, module in modules if isinstance(module, torch.nn.Embedding)}
    for prefix, module in modules:
        for key, weight in module.named_parameters(prefix, recurse=False):
            if (
                weight.is_meta
                or weight.dtype not in DTYPES_BY_NAME.values()
                or not weight.numel()
                or id(weight) in embeddings
            ):
                continue
            for extreme in torch.aminmax(weight.detach()):  # NaN if one is
                if not torch.isfinite(extreme):
                    raise no_finite_numbers(name, weight.dtype, f"a number of {key} is {extreme.item()}")


def _listed(names: Sequence[str], shown: int = 4) -> str:
    """The first names in order, and the number of the others."""
    ordered = sorted(names)
    return ", ".join(ordered[:shown]) + (f" and {len(ordered) - shown} more" if len(ordered) > shown else "")


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its type if it has no message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


# ---- special tokens -------------------------------------------------------------------------------------------------


def generation_setting(model: PreTrainedModel, name: str) -> Any:
    """A setting of the generation config or, where it is None there, of the model's config."""
    value = getattr(getattr(model, "generation_config", None), name, None)
    return value if value is not None else getattr(model.config, name, None)


def find_end_ids(model: PreTrainedModel, tokenizer: Any) -> tuple[int, ...]:
    """The ids of end-of-sequence. Raises ValueError if neither model nor tokenizer names one."""
    ends = generation_setting(model, "eos_token_id")
    ends = tokenizer.eos_token_id if ends is None else ends
    if ends is None:
        raise ValueError(
            f"model {type(model).__name__}: must have an end-of-sequence token; `eos_token_id` is None in its config "
            f"and its tokenizer. Set it in its config.json."
        )
    return tuple(ends) if isinstance(ends, list | tuple) else (int(ends),)


def find_pad_id(model: PreTrainedModel, tokenizer: Any) -> int:
    """The id of padding. It is 0 if the checkpoint has none with an embedding: padding is masked in any case."""
    pad = generation_setting(model, "pad_token_id")
    pad = tokenizer.pad_token_id if pad is None else pad
    embeddings = count_embeddings(model)
    return int(pad) if pad is not None and int(pad) >= 0 and (embeddings is None or int(pad) < embeddings) else 0


# ---- positions ------------------------------------------------------------------------------------------------------


def count_positions(model: Any, part: Literal["encoder", "decoder"]) -> int | None:
    """The number of positions of a part of a model; None: it has no limit. A decoder-only model has one for both."""
    config = getattr(model.config, part, model.config)
    for name in ("max_position_embeddings", f"max_{part}_position_embeddings"):
        value = getattr(config, name, None)
        if isinstance(value, int) and value > 0:  # XLNet, which has no limit, gives -1
            return value
    return None


def input_limit(model: Any, tokenizer: Any) -> int | None:
    """The most tokens of an input that a model's positions and its tokenizer allow; None: no limit is known."""
    limits = (count_positions(model, "encoder"), getattr(tokenizer, "model_max_length", None))
    known = [int(limit) for limit in limits if limit and 0 < limit < _NO_LIMIT]
    return min(known) if known else None
