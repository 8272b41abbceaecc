"""A model's operations in its own numeric types, with checked ids and checked numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qa_inference.models.devices import dtype_name
from qa_inference.tokenization import Ids, pad_rows

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
            raise no_finite_numbers(name, next(self.model.parameters()).dtype, error) from error

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


def no_finite_numbers(name: str, dtype: torch.dtype, fault: object) -> ValueError:
    """The error of a model whose weights or results are not finite; `fault` is the clause that says where."""
    return ValueError(
        f"model {name!r}: must compute finite numbers; {fault}. Its weights hold NaN or infinity, or are too large for "
        f"{dtype_name(dtype)}: use another checkpoint, or dtype float32"
    )


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
