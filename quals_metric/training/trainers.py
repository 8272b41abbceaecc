"""Checks of a trainer before QUALS is measured in it. Every error names the setting to change."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

PLATEAU_SCHEDULERS = ("reduce_lr_on_plateau", "greedy")


def evaluation_sets(trainer: Any) -> tuple[str, ...]:
    """The names of the trainer's evaluation sets; no names if it has a single set, or no set."""
    return tuple(trainer.eval_dataset) if isinstance(trainer.eval_dataset, dict) else ()


def own_sets(trainer: Any) -> dict[str, Any]:
    """The trainer's evaluation sets by the prefix of their metrics."""
    if names := evaluation_sets(trainer):
        return {f"eval_{name}": trainer.eval_dataset[name] for name in names}
    return {"eval": trainer.eval_dataset}


def watch_evaluated_set(trainer: Any, notify: Callable[[Any], None]) -> None:
    """Call `notify` with the set of every evaluation before it begins; the trainer does not pass it to callbacks."""
    get_eval_dataloader = trainer.get_eval_dataloader

    def notify_and_get(eval_dataset: Any = None) -> Any:
        is_own = eval_dataset is None or isinstance(eval_dataset, str)
        own = trainer.eval_dataset[eval_dataset] if isinstance(eval_dataset, str) else trainer.eval_dataset
        notify(own if is_own else eval_dataset)
        return get_eval_dataloader(eval_dataset)

    trainer.get_eval_dataloader = notify_and_get


def check_model(trainer: Any) -> None:
    """Raise TypeError unless the model generates, ValueError if its weights are divided among processes."""
    if not callable(getattr(trainer.model, "generate", None)):
        raise TypeError(
            f"trainer.model: must have `generate`; got {type(trainer.model).__name__}. Train a model for sequence-to-"
            f"sequence or causal language modelling"
        )
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    divisions = {
        "FSDP": trainer.is_fsdp_enabled,
        "DeepSpeed ZeRO-3": plugin is not None and plugin.zero_stage == 3,
        "tensor parallelism": (getattr(trainer.model, "tp_size", None) or 1) > 1,
    }
    for name, is_on in divisions.items():
        if is_on:
            raise ValueError(
                f"trainer: every process must hold the whole model to generate with; got {name}. Train with DDP or "
                f"ZeRO-1 or -2, or score the checkpoints after the training"
            )


def check_sets(trainer: Any, measured: Collection[str]) -> None:
    """Raise ValueError unless the raw rows have the names of the trainer's evaluation sets.

    `measured` are the names of the raw data sets; it is empty for a single set without a name.
    """
    sets = evaluation_sets(trainer)
    if sets and not measured:
        raise ValueError(
            f"dataset: the trainer has several evaluation sets ({', '.join(sets)}); give the raw rows of each: "
            f"datasets={{{sets[0]!r}: ...}}"
        )
    unknown = sorted(set(measured) - set(sets))
    if sets and unknown:
        raise ValueError(
            f"datasets: must be named as the trainer's evaluation sets are ({', '.join(sets)}); got "
            f"{', '.join(unknown)}"
        )


def check_best_metric(trainer: Any, name: str, measured: Collection[str]) -> None:
    """Raise ValueError if the trainer would choose a checkpoint or a learning rate by a lower QUALS or a missing key.

    Higher is better. With `greater_is_better=False`, or a plateau scheduler in mode "min", the worst would win.
    """
    args = trainer.args
    best = (args.metric_for_best_model or "").removeprefix("eval_")
    sets = evaluation_sets(trainer)
    if sets and best == name:
        raise ValueError(
            f"metric_for_best_model: must name an evaluation set, for example eval_{next(iter(measured))}_{name}; got "
            f"{args.metric_for_best_model!r}"
        )
    if best not in ([f"{measured_set}_{name}" for measured_set in measured] if sets else [name]):
        return
    if args.greater_is_better is False:
        raise ValueError(
            f"greater_is_better: must be True with metric_for_best_model={args.metric_for_best_model!r}, where higher "
            f"is better; got False. Set greater_is_better=True, or leave it out"
        )
    if _plateau_mode(trainer) == "min":
        raise ValueError(
            f"lr_scheduler: a plateau scheduler must be in mode 'max' with metric_for_best_model="
            f"{args.metric_for_best_model!r}, where higher is better; got 'min', its default. Set "
            f"lr_scheduler_kwargs={{'mode': 'max'}}"
        )


def _plateau_mode(trainer: Any) -> str | None:
    """The mode of the trainer's plateau scheduler, "min" or "max"; None: the scheduler uses no metric.

    The trainer usually makes the scheduler when the training begins; until then the arguments give its mode.
    """
    args = trainer.args
    mode: str | None = None
    if trainer.lr_scheduler is not None:
        mode = getattr(trainer.lr_scheduler, "mode", None)
    elif args.lr_scheduler_type in PLATEAU_SCHEDULERS:
        mode = (args.lr_scheduler_kwargs or {}).get("mode", "min")
    return mode
