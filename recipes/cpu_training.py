"""Training on a CPU, for the recipes: an attention that is fast there, and a run of fixed time."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from qa_inference.models.devices import cpu_has_bfloat16

NAME = "folded_training"
DTYPE = torch.bfloat16 if cpu_has_bfloat16() else torch.float32


def folded_attention(module, query, key, value, mask, scaling=None, dropout=0.0, **_) -> tuple[Tensor, None]:
    """Attention whose keys may have fewer rows than its queries: R adjacent rows share one source.

    query [B * R, H, T, D], key and value [B, H, S, D], mask additive or None -> [B * R, T, H, D] in the query's type.
    Plain products: the backward of `scaled_dot_product_attention` is slow in bfloat16 on CPUs.
    """
    query_dtype = query.dtype  # outside of autocast the projection that follows has the weights' type
    dtype, device = dtype_on(query.device.type), query.device.type
    with torch.autocast(device, enabled=False):
        query, key, value = (x.to(dtype) for x in (query, key, value))
        (rows, heads, length, width), sources = query.shape, key.shape[0]
        shared = rows != sources
        if shared:
            query = query.view(sources, rows // sources, heads, length, width).transpose(1, 2).flatten(2, 3)
        weights = torch.matmul(query * scaling, key.transpose(2, 3))
        weights = (weights if mask is None else weights + mask.to(weights.dtype)).softmax(-1)
        out = torch.matmul(weights, value)
        if shared:
            out = out.view(sources, heads, rows // sources, length, width).transpose(1, 2).flatten(0, 1)
        return out.transpose(1, 2).contiguous().to(query_dtype), None


def prepare(model: PreTrainedModel, encoder: nn.Module) -> None:
    """Use `folded_attention`, and no dropout in `encoder`: drawing it is slow."""
    AttentionInterface.register(NAME, folded_attention)
    AttentionMaskInterface.register(NAME, eager_mask)
    model.set_attn_implementation(NAME)
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0


def dtype_on(device: str) -> torch.dtype:
    """The type that a kind of device multiplies fast."""
    return torch.bfloat16 if device == "cuda" else DTYPE


def autocast(device: str = "cpu") -> torch.autocast:
    """Products in the type that the device multiplies fast."""
    return torch.autocast(device, torch.bfloat16, enabled=dtype_on(device) == torch.bfloat16)


def make_optimizer(model: nn.Module, rate_of: Callable[[str], float]) -> torch.optim.AdamW:
    """AdamW with a peak learning rate for every parameter by its name."""
    groups: dict[float, list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        groups[rate_of(name)].append(parameter)
    parameters = [{"params": each, "lr": rate, "peak": rate} for rate, each in groups.items()]
    return torch.optim.AdamW(parameters, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


@dataclass
class Run:
    """Training for `minutes`: warm-up, then linear decay to zero by the clock.

    Every `save_minutes` the state goes to `out/state.pt`, from which the same run resumes after a kill, the
    checkpoint is written (`write`) and the held-out figures (`evaluate`, of a part unless it is the end) are logged
    to `out/log.jsonl`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    out: Path
    minutes: float
    save_minutes: float
    warmup: float
    write: Callable[[Path], None]
    evaluate: Callable[[bool], dict[str, float]]
    max_steps: int | None = None  # ends a run before its time, for a trial
    every: int = 100  # steps between two rows of the log
    step: int = 0
    used: float = 0.0  # seconds in training steps
    _running: list[tuple[float, float, int]] = field(default_factory=list)

    def resume(self) -> None:
        """Go on from the saved state, if there is one."""
        self.out.mkdir(parents=True, exist_ok=True)
        if (self.out / "state.pt").exists():
            saved = torch.load(self.out / "state.pt", weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.used = saved["step"], saved["used"]

    def log(self, **row: Any) -> None:
        """Append a row to the log."""
        with (self.out / "log.jsonl").open("a") as lines:
            print(json.dumps({"step": self.step, "minutes": round(self.used / 60, 2), **row}), file=lines, flush=True)

    def train(self, batches: Iterable[Any], losses: Callable[[Any], tuple[Tensor, float, int]]) -> None:
        """One step for each batch until the time is used; `losses` gives a sum, what it is a sum of, and examples."""
        self.model.train()
        last_saved = self.used
        for batch in batches:
            began = time.monotonic()
            if self.used >= self.minutes * 60 or self.step == self.max_steps:
                break
            self._set_rates()
            self._step(*losses(batch))
            self.used += time.monotonic() - began
            if self.step % self.every == 0:
                self._log_running()
            if self.used - last_saved > self.save_minutes * 60:
                last_saved = self.used
                self._save()
                self._evaluate(final=False)
        self._save()
        self._evaluate(final=True)

    def _set_rates(self) -> None:
        progress = self.used / (self.minutes * 60)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * min(progress / self.warmup, (1 - progress) / (1 - self.warmup)) + 1e-7

    def _step(self, total: Tensor, count: float, examples: int) -> None:
        (total / count).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self._running.append((total.item(), count, examples))

    def _log_running(self) -> None:
        nats, count, examples = map(sum, zip(*self._running, strict=True))
        self.log(loss=round(nats / count, 4), count=round(count), examples=examples)
        self._running = []

    def _evaluate(self, final: bool) -> None:
        self.model.eval()
        self.log(**self.evaluate(final), **({"final": True} if final else {}))
        self.model.train()

    def _save(self) -> None:
        states = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**states, "step": self.step, "used": self.used}, self.out / "new.pt")
        (self.out / "new.pt").replace(self.out / "state.pt")
        self.write(self.out / "checkpoint")
