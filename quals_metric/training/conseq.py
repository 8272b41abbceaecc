"""Contrastive retraining of a summarizer (CONSEQ: Nan et al. 2021, arXiv 2105.04623): the loss and its trainer.

    trainer = ConseqTrainer(model, args, train_dataset=load_from_disk("collected"), processing_class=tokenizer)
    trainer.train()

The published settings, as `Seq2SeqTrainingArguments`: `learning_rate=3e-6`, `lr_scheduler_type="linear"` without
warm-up, `num_train_epochs=2`, `weight_decay=0.01`, `label_smoothing_factor=0.1`, `max_grad_norm=0.1`; the model's
dropout is 0.1. The maximum likelihood stage before it is the same trainer on rows without a `negative` column
(published: `learning_rate=3e-5`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import Seq2SeqTrainer

from quals_metric.training.examples import IGNORED, Examples, PairCollator, TextEncoder, TextFormat

LEAST = 1e-20  # the published lower bound of 1 - p
EXTRA_COLUMNS = ("negative_labels", "weight")  # for the collator; the model does not take them


@dataclass(frozen=True)
class ConseqLoss:
    """The two sums of a batch over its target tokens, in nats, and the numbers of those tokens."""

    likelihood: Tensor
    unlikelihood: Tensor
    positive_tokens: Tensor
    negative_tokens: Tensor

    @property
    def mean(self) -> Tensor:
        """The loss: both sums over the target tokens of both."""
        return (self.likelihood + self.unlikelihood) / (self.positive_tokens + self.negative_tokens).clamp(min=1)


def conseq_loss(
    logits: Tensor,
    labels: Tensor,
    negative: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
) -> ConseqLoss:
    """Label-smoothed cross entropy of the positive rows, label-smoothed unlikelihood of the negative ones.

    A target token t costs `(1 - s) f(t) + s / V * sum over the vocabulary of f`, where f is `-log p` in a positive row
    and `-log max(1 - p, 1e-20)` in a negative one. The computation is in float32, whatever the type of the logits.

    Args:
        logits: [rows, T, V].
        labels: [rows, T]; -100 where there is no target.
        negative: [rows], true for negative rows; None: no row is negative.
        weight: [rows], the factor of a row's losses, not of its token counts; None: 1.
        label_smoothing: s, at least 0 and less than 1.
    """
    # 1. Masks and weights [rows, T].
    real = labels != IGNORED
    is_negative = torch.zeros_like(real) if negative is None else negative.bool()[:, None].expand_as(real)
    weights = torch.ones(len(labels), device=logits.device) if weight is None else weight.float()
    weights = weights[:, None].expand_as(labels)

    # 2. The sum over N target tokens, from their scores [N, V].
    def total(mask: Tensor, scores: Tensor) -> Tensor:
        target_scores = scores.gather(-1, labels[mask][:, None])[:, 0]  # [N]
        smoothed = (1 - label_smoothing) * target_scores + label_smoothing * scores.mean(-1)
        return -(weights[mask] * smoothed).sum()

    # 3. Only target tokens are normalized, not padding.
    with torch.autocast(logits.device.type, enabled=False):
        positives, negatives = real & ~is_negative, real & is_negative
        likelihood = total(positives, logits[positives].float().log_softmax(-1))
        unlikelihood = total(negatives, log_one_minus(logits[negatives].float()))
    return ConseqLoss(likelihood, unlikelihood, positives.sum(), negatives.sum())


def log_one_minus(logits: Tensor) -> Tensor:
    """`log max(1 - p, 1e-20)` for every token's probability p, [..., V] from logits [..., V].

    Only the likeliest token's p can be near 1. Its `1 - p` is computed from the other tokens' logits, as the sum of
    their probabilities. So value and gradient are right even if p rounds to 1: the gradient of a logit is at most 1 in
    size, while that of the usual formula is 0 or about 1e7 there.
    """
    # 1. log(1 - p) = log1p(-exp(log p)) for all tokens but the likeliest.
    whole = logits.logsumexp(-1, keepdim=True)
    top = logits.argmax(-1, keepdim=True)
    others = logits.scatter(-1, top, -torch.inf)
    result = torch.log1p(-(others - whole).exp())
    # 2. The likeliest token's is the log of the sum of the others' probabilities.
    return result.scatter(-1, top, others.logsumexp(-1, keepdim=True) - whole).clamp(min=math.log(LEAST))


class ConseqTrainer(Seq2SeqTrainer):
    """A `Seq2SeqTrainer` whose loss is `conseq_loss`, divided by the target tokens of a whole update.

    Accumulation steps and processes change only the order of additions. Do not use the model's own loss in a subclass:
    BART and T5 ignore the token count that the trainer passes to them, so with N accumulation steps their loss is wrong
    by the factor N. `label_smoothing_factor` smooths both parts. The log has, beside `loss`,
    `likelihood` and `unlikelihood`: the mean over the positive and over the negative tokens since the last log.

    Args:
        model: an encoder-decoder.
        args: `Seq2SeqTrainingArguments`.
        train_dataset: a set of documents as `quals_metric.training.examples` describes it, a list of such rows, or
            rows that are tokenized for `PairCollator`.
        eval_dataset: the same, or a dict of such sets.
        processing_class: the model's tokenizer.
        text_format: how texts become token ids; None: the defaults.
        positives_only: whether to train on the ground truths of the selected documents only; see `PairCollator`.
        unlearn_end: whether a negative's end is made unlikely like its words, as published; see `PairCollator`.
        **more: arguments of `Seq2SeqTrainer`, but for `compute_loss_func`.

    Raises:
        ValueError: if there is no tokenizer, the model is not an encoder-decoder, a set of documents has no length,
            no row is selected to train on, or a collator is given with an option of the trainer's own.
    """

    def __init__(
        self,
        model: Any = None,
        args: Any = None,
        *,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        text_format: TextFormat | None = None,
        positives_only: bool = False,
        unlearn_end: bool = True,
        **more: Any,
    ) -> None:
        if processing_class is None:
            raise ValueError("processing_class: must be the model's tokenizer; got None")
        if more.get("compute_loss_func") is not None:
            raise ValueError("compute_loss_func: must not be given; ConseqTrainer has its own loss")
        if more.get("data_collator") is not None and (positives_only or not unlearn_end):
            raise ValueError(
                "data_collator: must be None with positives_only or unlearn_end=False, which the trainer's own "
                "collator carries out. Let your collator do it: PairCollator(prefix, pad, unlearn_end, positives_only)"
            )
        super().__init__(
            model,
            args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **more,
        )
        if self.args.n_gpu > 1:
            raise ValueError(
                f"args: must use one device per process; got {self.args.n_gpu} devices. Start the program with "
                f"`accelerate launch`, or name one device in CUDA_VISIBLE_DEVICES"
            )
        unwrapped = self.accelerator.unwrap_model(self.model)
        if not unwrapped.config.is_encoder_decoder:
            raise ValueError(f"model: must be an encoder-decoder; got {type(unwrapped).__name__}")
        encoder = TextEncoder(unwrapped, processing_class, text_format)
        if more.get("data_collator") is None:
            self.data_collator = PairCollator(encoder.prefix, encoder.pad, unlearn_end, positives_only)
        self._encoder = encoder
        self.train_dataset = self._encoded("train_dataset", train_dataset)
        self.eval_dataset = (
            {name: self._encoded(f"eval_dataset[{name!r}]", data) for name, data in eval_dataset.items()}
            if isinstance(eval_dataset, dict)
            else self._encoded("eval_dataset", eval_dataset)
        )
        self.model_accepts_loss_kwargs = True  # makes the trainer count the target tokens of an update
        self._sums = torch.zeros(4)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """See `Trainer`; the set may be one of documents, as for the constructor."""
        return super().get_eval_dataloader(self._encoded("eval_dataset", eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> Any:
        """See `Trainer`; the set may be one of documents, as for the constructor."""
        return super().get_test_dataloader(self._encoded("test_dataset", test_dataset))

    def compute_loss(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The batch's share of the update's loss; with `return_outputs`, also the model's outputs.

        Without `num_items_in_batch` the loss is the mean over the batch, which the trainer then divides by the number
        of accumulation steps.
        """
        inputs = dict(inputs)
        labels, negative, weight = (inputs.pop(name, None) for name in ("labels", "negative", "weight"))
        if "decoder_input_ids" not in inputs:
            unwrapped = self.accelerator.unwrap_model(model)
            inputs["decoder_input_ids"] = unwrapped.prepare_decoder_input_ids_from_labels(labels)
        outputs = model(**inputs, use_cache=False)
        parts = conseq_loss(outputs.logits, labels, negative, weight, label_smoothing=self.args.label_smoothing_factor)
        self.loss_is_scaled_for_ga = num_items_in_batch is not None
        if num_items_in_batch is None:
            loss = parts.mean
        else:
            loss = (parts.likelihood + parts.unlikelihood) / num_items_in_batch
            if self.args.average_tokens_across_devices:  # the count is over all processes, and gradients are averaged
                loss = loss * (self.accelerator.num_processes // self.get_tp_size())
        if model.training:
            self._note(parts)
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None, **gen_kwargs: Any
    ) -> Any:
        """See `Seq2SeqTrainer`; a document's summary is generated once, not again for its negative."""
        if getattr(self.args, "predict_with_generate", False) and not prediction_loss_only:
            negative = inputs.get("negative")
            keep = slice(None) if negative is None else ~negative
            inputs = {name: rows[keep] for name, rows in inputs.items() if name not in ("negative", "weight")}
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys, **gen_kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """See `Trainer`. Every process calls it with the training loss, so here the processes add up their sums."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self._sums.to(self.args.device), reduction="sum").tolist()
            self._sums.zero_()
            for name, total, tokens in (("likelihood", *sums[:2]), ("unlikelihood", *sums[2:])):
                logs |= {name: total / tokens} if tokens else {}
        super().log(logs, start_time)

    def _note(self, parts: ConseqLoss) -> None:
        """Add a batch to the sums of the next log."""
        values = (parts.likelihood, parts.positive_tokens, parts.unlikelihood, parts.negative_tokens)
        self._sums = self._sums.to(parts.likelihood.device)
        self._sums += torch.stack([value.detach().float() for value in values])

    def _set_signature_columns_if_needed(self) -> None:
        """Keep the columns that the collator reads; the trainer drops those that the model does not take."""
        super()._set_signature_columns_if_needed()
        columns: Any = self._signature_columns
        self._signature_columns = columns + [name for name in EXTRA_COLUMNS if name not in columns]

    def _encoded(self, name: str, data: Any) -> Any:
        """Documents as examples; anything else unchanged."""
        if isinstance(data, list | tuple) and data and isinstance(data[0], Mapping) and "document" in data[0]:
            names = dict.fromkeys(name for row in data for name in row)  # of all rows, not of the first alone
            data = Dataset.from_list([{name: row.get(name) for name in names} for row in data])
        if "document" not in (getattr(data, "column_names", None) or ()):
            return data
        if not hasattr(data, "__len__"):
            raise ValueError(
                f"{name}: must have a length and rows by index; got {type(data).__name__}. Make it a datasets.Dataset, "
                f"or give tokenized rows: `input_ids`, `labels`, `negative_labels`"
            )
        return Examples(data, self._encoder)
