"""QUALS in training: in the log of a `Trainer`, and as the criterion of contrastive retraining.

**In the log.** There are three ways. Choose by what the trainer does at an evaluation:

- It computes a loss only: `QualsCallback(scorer, dataset=rows).attach(trainer)`. The model summarizes a sample of the
  raw documents by its own `generate`. Use `attach` and not `callbacks=[...]`: the callback must come before those that
  read its metrics (early stopping), and it refuses settings that would keep the worst checkpoint.
- It generates (`predict_with_generate=True`): `compute_metrics=make_compute_metrics(scorer, tokenizer, sources=...)`,
  with the sources in the order of the evaluation set. Nothing is generated twice; the keys are the same.
- There is no trainer, but a loop of your own: `generate_summaries(model, tokenizer, documents)`, then `scorer.score`.

`eval_quals` is a mean in nats per token, usually between -3 and 0.2. Higher is better. It is NaN if no summary has a
score; such a checkpoint is never the best. Look at `eval_quals_undefined_runtime` too, the number of summaries without
a score. Early in a training most summaries are not sentences. Then no question can be asked about them, and the mean is
over the few others. With 64 documents, the default, the 95 % interval of the mean is about 0.1 nats to either side
(0.10 and 0.13 on the QAGS data of CNN/DailyMail and XSum). Take more documents to choose between similar checkpoints.
`QualsConfig(groups=12)` makes an evaluation cheaper; compare its values only with each other. `QualsConfig(cache=...)`
keeps the results of texts that come again, for example the ground truths of every epoch. `QualsConfig(device=...)` puts
the scorer on another device than the trainer.

A failure to generate or to score is logged with its cause. It ends the training only with `on_failure="raise"`. Until
the next success `eval_quals` keeps its last value and `eval_quals_stale_runtime` is 1.

Only the trainer's own evaluation sets are measured: `trainer.evaluate(other_set)` reports no `eval_quals`, because the
raw documents of that set are not known. For a hyperparameter search name the objective:
`trainer.hyperparameter_search(direction="maximize", compute_objective=lambda metrics: metrics["eval_quals"])`.

**Retraining (CONSEQ)** has three steps. Each writes its own files, so that each can be inspected and repeated:

1. Train the summarizer by maximum likelihood, with any trainer, or with `ConseqTrainer` on rows without negatives.
   Continue only when its summaries read well. Read a few, and look at the share with a defined score (`recipes.conseq`
   requires 80 %).
2. Collect: attach `ConseqCollector(...)` to the trainer, which collects at the end of that training, or of each of its
   epochs (`every_epoch`), or call `collect(checkpoint, ...)` afterwards. Six samples of every training document and its
   ground truth are scored, about seven scores for each document: this is the slow step. `reselect` selects again from
   the same scores, for example with another ratio.
3. Retrain from the checkpoint of step 1: `ConseqTrainer(model, args, train_dataset=collector.dataset(), ...)`, with a
   small learning rate (published: 3e-6, at most two epochs). `likelihood` and `unlikelihood` are logged
   separately. When the second no longer falls, further steps only train on the selected ground truths.
   `positives_only=True` is the control that shows the effect of the selection alone. `RougeScorer` is the paper's other
   baseline.

Do not judge the result by QUALS alone, for which it was trained: copying the document also raises QUALS.
`recipes.conseq` reports ROUGE, QAGS, the length and the share of copied n-grams, with a paired bootstrap.

A name is imported when it is first used.
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
