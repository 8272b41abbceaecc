"""One way to load a checkpoint: options, device, dtype, special token ids, and whether its weights fit into memory.

Weights are read from safetensors files, or from `.bin` files by the library's weights-only loader. A repository's own
code never runs.
"""

from __future__ import annotations

import functools
import logging
import os
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar

import numpy as np
import torch
from huggingface_hub import constants, get_session
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from qa_inference.models.int8_weights import is_stored_in_int8, read_int8_weights
from qa_inference.tokenization import Ids, pad_rows

logger = logging.getLogger(__name__)

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CGROUP = Path("/sys/fs/cgroup")
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
            if weight.is_meta or weight.dtype not in _DTYPES.values() or not weight.numel() or id(weight) in embeddings:
                continue
            for extreme in torch.aminmax(weight.detach()):  # NaN if one is
                if not torch.isfinite(extreme):
                    raise _no_finite_numbers(name, weight.dtype, f"a number of {key} is {extreme.item()}")


def _no_finite_numbers(name: str, dtype: torch.dtype, fault: object) -> ValueError:
    return ValueError(
        f"model {name!r}: must compute finite numbers; {fault}. Its weights hold NaN or infinity, or are too large for "
        f"{dtype_name(dtype)}: use another checkpoint, or dtype float32"
    )


def _listed(names: Sequence[str], shown: int = 4) -> str:
    """The first names in order, and the number of the others."""
    ordered = sorted(names)
    return ", ".join(ordered[:shown]) + (f" and {len(ordered) - shown} more" if len(ordered) > shown else "")


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its type if it has no message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


# ---- computing ------------------------------------------------------------------------------------------------------

_Model = TypeVar("_Model")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def inference_operation(
    operation: Callable[Concatenate[_Model, _Arguments], _Result],
) -> Callable[Concatenate[_Model, _Arguments], _Result]:
    """Run a model's operation without gradients and in the types of its tensors, whatever the caller has set.

    The operation's object has `model` and `device`. A FloatingPointError, which reports numbers that are not finite,
    becomes a ValueError that names the model.
    """

    @functools.wraps(operation)
    def run(self: Any, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            with torch.inference_mode(), stated_precision(self.device):
                return operation(self, *args, **kwargs)
        except FloatingPointError as error:
            name = getattr(self.model, "name_or_path", "") or type(self.model).__name__
            raise _no_finite_numbers(name, next(self.model.parameters()).dtype, error) from error

    return run


@contextmanager
def stated_precision(device: torch.device) -> Iterator[None]:
    """Compute in the types of the tensors inside the block: no autocast, and full float32 for float32 products."""
    with ExitStack() as stack:
        for device_type in {"cpu", device.type}:
            if torch.is_autocast_enabled(device_type):
                stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(_full_float32())
        yield


@contextmanager
def _full_float32() -> Iterator[None]:
    """Multiply float32 matrices in float32 inside the block, and restore the earlier setting after it."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # torch cannot read it if the newer settings were used, which each backend has for itself
        backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]
        settings = [backend.fp32_precision for backend in backends]
        try:
            for backend in backends:
                backend.fp32_precision = "ieee"
            yield
        finally:
            for backend, setting in zip(backends, settings, strict=True):
                backend.fp32_precision = setting
        return
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def check_finite(numbers: NDArray[Any], meaning: str) -> None:
    """Raise FloatingPointError if one of the numbers is NaN or infinite."""
    if not np.isfinite(numbers).all():
        wrong = numbers[~np.isfinite(numbers)].ravel()[0]
        raise FloatingPointError(f"{meaning} is {wrong}")


# ---- device and dtype -----------------------------------------------------------------------------------------------


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The device to compute on.

    Args:
        device: a device of this machine; None: the first kind that exists of CUDA, XPU and CPU. Of several devices of
            that kind, `LOCAL_RANK` chooses one if it is set.

    Raises:
        ValueError: if `device` is not the name of a device of this machine.
    """
    if device is None:
        return _best_device()
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device: must be a name such as 'cpu' or 'cuda:0'; got {device!r}. Correct it") from error
    if (chosen.index or 0) >= _num_devices(chosen.type):
        present = [f"{kind} ({_num_devices(kind)})" for kind in ("cuda", "xpu", "mps", "cpu") if _num_devices(kind)]
        raise ValueError(
            f"device: must be one that this machine has; got '{chosen}'. Choose one of these: {', '.join(present)}"
        )
    return chosen


def _best_device() -> torch.device:
    for kind in ("cuda", "xpu"):
        if count := _num_devices(kind):
            rank = os.environ.get("LOCAL_RANK", "")
            return torch.device(kind, int(rank)) if rank.isdecimal() and int(rank) < count else torch.device(kind)
    return torch.device("cpu")


def _num_devices(kind: str) -> int:
    count = getattr(getattr(torch, kind, None), "device_count", None)
    return 0 if count is None else int(count())


@functools.cache
def cpu_has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16 itself; emulation takes several times as long."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@functools.cache
def _warn_of_slow_bfloat16() -> None:
    logger.warning("This CPU emulates bfloat16; float32 uses more memory but is much faster.")


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The floating-point type to compute in on `device`; warns once in the log if the CPU emulates bfloat16.

    Args:
        dtype: "float32", "bfloat16", "float16" or the torch type; None: bfloat16 on a CUDA device that computes in it,
            else float32.
        device: where the model computes.

    Raises:
        ValueError: if `dtype` is another type, or float16 on a CPU.
    """
    if dtype is None:
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    chosen = _DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in _DTYPES.values():
        raise ValueError(f"dtype: must be one of {', '.join(_DTYPES)}; got {dtype!r}. Choose one of these")
    if chosen is torch.float16 and device.type == "cpu":
        raise ValueError("dtype: must be float32 or bfloat16 on a CPU; got float16. Choose one of these, or a GPU")
    if chosen is torch.bfloat16 and device.type == "cpu" and not cpu_has_bfloat16():
        _warn_of_slow_bfloat16()
    return chosen


def dtype_name(dtype: torch.dtype) -> str:
    """The name of a type as the option `dtype` has it, for example "float32"."""
    return str(dtype).removeprefix("torch.")


def ids_to_device(rows: Sequence[Ids], pad: int, embeddings: int | None, device: torch.device) -> Tensor:
    """Rows of token ids, padded on the right with `pad` and checked (`check_ids`), as a tensor on `device`."""
    ids = pad_rows(rows, pad)
    check_ids(ids, embeddings)
    return to_device(ids, device)


def check_ids(ids: NDArray[Any], embeddings: int | None) -> None:
    """Raise ValueError if an id has no embedding. `embeddings` is the number of embeddings; None: unknown."""
    if embeddings is not None and ids.size and (ids.min() < 0 or ids.max() >= embeddings):
        wrong = int(ids.min() if ids.min() < 0 else ids.max())
        raise ValueError(
            f"token ids: must be from 0 to {embeddings - 1}, one for each of the model's embeddings; got {wrong}. Load "
            f"model and tokenizer from the same checkpoint"
        )


def count_embeddings(model: Any) -> int | None:
    """The number of a model's token embeddings; None where it keeps no plain matrix of them."""
    try:
        weight = getattr(model.get_input_embeddings(), "weight", None)
    except (AttributeError, NotImplementedError):
        return None
    return len(weight) if weight is not None and weight.ndim == 2 else None


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """`array` as a tensor on `device`. A copy to a CUDA device goes through pinned memory and does not block."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


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


# ---- memory ---------------------------------------------------------------------------------------------------------


def parameter_bytes(task_class: Any, config: Any, dtype: torch.dtype) -> int | None:
    """The size of a model's weights in `dtype`, in bytes; None for a quantized checkpoint, whose size is unknown.

    The parameters are counted on a model without weights, which `task_class` makes from `config`.
    """
    if getattr(config, "quantization_config", None) is not None:
        return None
    with torch.device("meta"):
        model: Any = task_class.from_config(config)
    return int(dtype.itemsize * sum(parameter.numel() for parameter in model.parameters()))


def free_bytes(device: torch.device) -> int | None:
    """The memory that a process can still allocate on `device`, in bytes; None where it is unknown."""
    if device.type == "cuda":
        stats = torch.cuda.memory_stats(device)  # torch keeps memory that it does not use, and reuses it
        unused = stats.get("reserved_bytes.all.current", 0) - stats.get("allocated_bytes.all.current", 0)
        return int(torch.cuda.mem_get_info(device)[0]) + int(unused)
    if device.type != "cpu":
        return None
    return min((count for count in (_machine_bytes(), _container_bytes()) if count is not None), default=None)


def check_fits(name: str, needed: int, free: int | None, dtype: torch.dtype) -> None:
    """Raise MemoryError if weights of `needed` bytes do not fit into `free` bytes."""
    if free is None or needed <= free:
        return
    smaller = "dtype bfloat16 (half of it), " if dtype is torch.float32 else ""
    raise MemoryError(
        f"model {name!r}: its weights must fit into memory; they take {needed / 1e9:.1f} GB in "
        f"{dtype_name(dtype)} and {free / 1e9:.1f} GB are free. Use {smaller}a smaller or a quantized "
        f"model, or, if it is decoder-only, a device_map"
    )


def _machine_bytes() -> int | None:
    """The memory that Linux reports as available; None on other systems."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _container_bytes(folder: Path = _CGROUP) -> int | None:
    """The memory left below a control group's limit; None without a limit. File caches count as free memory."""
    try:
        limit, used = ((folder / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    cached = next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
    return None if limit == "max" else max(0, int(limit) - int(used) + cached)
