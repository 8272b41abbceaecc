"""QUALS in training: in the log of a `Trainer`, and as what a summarizer is retrained with.

**In the log.** Three choices, by what the trainer does at an evaluation:

- It computes a loss only: `QualsCallback(scorer, dataset=rows).attach(trainer)`. The model summarizes a sample of the
  raw documents by its own `generate`. `attach`, and not `callbacks=[...]`, because the callback has to come before
  those that read its metrics (early stopping) and refuses settings that would keep the worst checkpoint.
- It generates (`predict_with_generate=True`): `compute_metrics=make_compute_metrics(scorer, tokenizer, sources=...)`,
  the sources in the order of the evaluation set. Nothing is generated twice; the keys are the same.
- Neither, a loop of one's own: `generate_summaries(model, tokenizer, documents)`, then `scorer.score`.

`eval_quals` is a mean in nats per token, higher is better, usually between -3 and 0.2; NaN if no summary has a score
(such a checkpoint is never the best). `eval_quals_undefined` belongs beside it: early in a training most summaries are
no sentences, nothing can be asked of them, and the mean is over the few that are left. The mean of 64 documents, the
default, is known to about a tenth of a nat (95 %: 0.10 and 0.13 on the QAGS data of CNN/DailyMail and XSum); take more
to choose among like checkpoints. `QualsConfig(groups=12)` makes an evaluation cheaper, and its values comparable with
each other only. Documents and summaries that come again, as ground truths do in every epoch, cost nothing the second
time with `QualsConfig(cache=...)`. The scorer's model may sit on another device than the trainer's:
`QualsConfig(device=...)`.

What can go wrong: a failure to generate or score is logged with its cause and does not end the training
(`on_failure="raise"` does); until the next success `eval_quals` keeps its last value and `eval_quals_stale` is 1.

**Retraining (CONSEQ)** in three steps, each with files of its own, so that each can be looked at and repeated:

1. Train the summarizer by maximum likelihood: any trainer, or `ConseqTrainer` on rows without negatives. Go on only
   when its summaries read as such: look at some, and at the share with a defined score (`recipes.conseq` asks for
   80 %).
2. Collect: `ConseqCollector(...).attach(trainer)` at the end of that training, or of each of its epochs
   (`every_epoch`), or `collect(checkpoint, ...)` afterwards. Six samples of every training document and its ground
   truth are scored: this is what takes time, some seven scores a document. `reselect` chooses again from the same
   scores, by another ratio say.
3. Retrain from the checkpoint of step 1: `ConseqTrainer(model, args, train_dataset=collector.dataset(), ...)`, by a
   small learning rate (published: 3e-6, at most two epochs). `likelihood` and `unlikelihood` are logged apart: when
   the second no longer falls, what follows is plain training on the selected ground truths. `positives_only=True` is
   the control that tells what the selection alone does, `RougeScorer` the article's other baseline.

Judge by more than QUALS, which was trained for: contrastive training can also win by copying. `recipes.conseq` reports
ROUGE, QAGS, the length and the share of copied n-grams, with a paired bootstrap.

Nothing is imported until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qa_inference.lazy import lazily

if TYPE_CHECKING:
    from quals_metric.training.callback import QualsCallback
    from quals_metric.training.candidates import CollectionSettings
    from quals_metric.training.collection import collect
    from quals_metric.training.collector import ConseqCollector
    from quals_metric.training.conseq import ConseqTrainer, conseq_loss
    from quals_metric.training.examples import TextFormat
    from quals_metric.training.generation import GenerationSettings, generate_summaries
    from quals_metric.training.predictions import make_compute_metrics
    from quals_metric.training.rouge import RougeScorer
    from quals_metric.training.selection import reselect, select

__all__ = [
    "CollectionSettings",
    "ConseqCollector",
    "ConseqTrainer",
    "GenerationSettings",
    "QualsCallback",
    "RougeScorer",
    "TextFormat",
    "collect",
    "conseq_loss",
    "generate_summaries",
    "make_compute_metrics",
    "reselect",
    "select",
]

_HOMES = {
    "CollectionSettings": "candidates",
    "ConseqCollector": "collector",
    "ConseqTrainer": "conseq",
    "GenerationSettings": "generation",
    "QualsCallback": "callback",
    "RougeScorer": "rouge",
    "TextFormat": "examples",
    "collect": "collection",
    "conseq_loss": "conseq",
    "generate_summaries": "generation",
    "make_compute_metrics": "predictions",
    "reselect": "selection",
    "select": "selection",
}

__getattr__, __dir__ = lazily(globals(), _HOMES)
