"""Rewards and preference data for TRL (Transformer Reinforcement Learning).

    reward = QualsReward(QualsScorer(), penalties=[CopyPenalty(allowed=0.3), RepetitionPenalty()])
    GRPOTrainer(model, reward_funcs=reward, args=args, train_dataset=rows).train()

The reward serves `GRPOTrainer` and `RLOOTrainer`, `to_preferences` serves `DPOTrainer` and similar trainers. This file
does not import TRL: a reward is a callable, and preferences are a data set.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from datasets import Dataset

from qa_inference.checks import finite_from, integer_from
from qa_inference.metric_base.question_scorer import QuestionScorer
from qa_inference.metric_base.results import mean_of_defined
from qa_inference.overlap import copied_share, repeated_share, words_of
from qa_inference.tokenization import TEXT
from quals_metric.training.examples import TextFormat
from quals_metric.training.measuring import Sample, sample_of
from quals_metric.training.selection import check_ratio

LOGGED_N = 3  # the length of the n-grams whose shares are logged

Penalty = Callable[[str, str], float]
"""Takes a summary and its source. Returns the nats per token that are subtracted from the score."""


@dataclass(frozen=True)
class CopyPenalty:
    """A penalty on copying: `weight` times the copied share of word n-grams above `allowed`.

    Copying the source raises QUALS. The copied share of your reference summaries is a good value for `allowed`.

    Args:
        allowed: the share of a summary's n-grams that its source may contain without a penalty, from 0 to 1.
        weight: the penalty of one whole share, in nats per token.
        n: the words of an n-gram.
    """

    __name__: ClassVar[str] = "copy_penalty"

    allowed: float
    weight: float = 1.0
    n: int = 3

    def __post_init__(self) -> None:
        check_ratio("allowed", self.allowed)
        _check_penalty(self)

    def __call__(self, summary: str, source: str) -> float:
        """The penalty of a summary."""
        return self.weight * max(0.0, copied_share(summary, source, self.n) - self.allowed)


@dataclass(frozen=True)
class RepetitionPenalty:
    """A penalty on repetition: `weight` times the share of word n-grams that occur earlier in the summary.

    QUALS asks about the content of a summary, not about how often it is said.

    Args:
        weight: the penalty of one whole share, in nats per token.
        n: the words of an n-gram.
    """

    __name__: ClassVar[str] = "repetition_penalty"

    weight: float = 1.0
    n: int = 3

    def __post_init__(self) -> None:
        _check_penalty(self)

    def __call__(self, summary: str, source: str) -> float:
        """The penalty of a summary."""
        return self.weight * repeated_share(summary, self.n)


@dataclass(frozen=True)
class LengthPenalty:
    """A penalty on the number of words outside `least` and `most`.

    It is `weight` times the relative excess: a summary of twice `most` words, or of no word, costs one `weight`.

    Args:
        least: the fewest words without a penalty.
        most: the most words without a penalty.
        weight: in nats per token.
    """

    __name__: ClassVar[str] = "length_penalty"

    least: int
    most: int
    weight: float = 1.0

    def __post_init__(self) -> None:
        integer_from(0)("least", self.least)
        integer_from(max(1, self.least))("most", self.most)
        _check_penalty(self)

    def __call__(self, summary: str, source: str) -> float:
        """The penalty of a summary."""
        count = len(words_of(summary))
        if count < self.least:
            return self.weight * (1 - count / self.least)
        return self.weight * max(0.0, count / self.most - 1)


def _check_penalty(penalty: Any) -> None:
    """Check the fields that the penalties share."""
    checks = {"weight": finite_from(0), "n": integer_from(1)}
    for field in fields(penalty):
        if field.name in checks:
            checks[field.name](field.name, getattr(penalty, field.name))


class QualsReward:
    """The score of a completion as a reward function of TRL.

    A reward is the score of the completion against its source, minus the penalties. All completions of a call are
    scored together, so a source is read once for all completions of its prompt. TRL logs the mean reward as
    `rewards/quals/mean`. The parts of the reward are logged beside it, see `__call__`.

    Args:
        scorer: the scorer of any metric here.
        source_column: the column of the data set with the texts to summarize.
        penalties: functions `(summary, source) -> float`; each is subtracted from the score. The name in the log is a
            function's `__name__`, with a number from the second function of the same name on: `copy_penalty_2`.
        undefined: the score of a completion without a score. None: such a completion has no reward, and TRL leaves it
            out of the training.
    """

    def __init__(
        self,
        scorer: QuestionScorer[Any],
        source_column: str = "document",
        *,
        penalties: Sequence[Penalty] = (),
        undefined: float | None = None,
    ) -> None:
        self.scorer, self.source_column, self.undefined = scorer, source_column, undefined
        self.penalties = _by_name(penalties)
        self.__name__ = scorer.key.metric  # the name in TRL's log

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """The reward of every completion; None: it has no score.

        The log gets the mean of the scores (`quals/score`), the share of completions without a score
        (`quals/undefined`), the mean number of words (`quals/words`), the mean shares of copied and of repeated 3-grams
        (`quals/copied`, `quals/repeated`), and the mean of each penalty (`quals/copy_penalty`). The table of
        completions gets the score and the question and answer with the lowest score.

        Args:
            prompts: the prompts; they are not read.
            completions: texts or, of a chat, lists of messages; the summary is the last message of the assistant.
            log_metric: given by TRL; logs a number.
            log_extra: given by TRL; adds a column to the table of completions.
            columns: the other columns of the data set, with one value for each completion.

        Raises:
            ValueError: if there is no column named `source_column`.
        """
        if self.source_column not in columns:
            names = [name for name, values in columns.items() if isinstance(values, list) and name != "completion_ids"]
            raise ValueError(
                f"source_column: must be a column of the data set besides the prompt; got {self.source_column!r}, and "
                f"the columns are {names}. Name the column of the texts to summarize: QualsReward(scorer, 'column')"
            )
        sources = list(columns[self.source_column])
        summaries = [completion_text(completion) for completion in completions]
        result = self.scorer.score(summaries=summaries, sources=sources)
        samples = [sample_of(*row) for row in zip(sources, summaries, result.summaries, strict=True)]
        penalties = {name: _values(penalty, samples) for name, penalty in self.penalties.items()}
        if log_metric is not None:
            self._log_means(log_metric, samples, penalties)
        if log_extra is not None:
            self._log_worst_pairs(log_extra, samples)
        rewards = []
        for index, sample in enumerate(samples):
            score = self.undefined if math.isnan(sample.score) else sample.score
            penalty = sum(values[index] for values in penalties.values())
            rewards.append(None if score is None else score - penalty)
        return rewards

    def _log_means(
        self,
        log_metric: Callable[[str, float], None],
        samples: Sequence[Sample],
        penalties: Mapping[str, Sequence[float]],
    ) -> None:
        """Log the parts of the rewards. A mean without a value is left out: TRL would carry its NaN to other steps."""
        columns = {
            "score": [sample.score for sample in samples],
            "undefined": [float(math.isnan(sample.score)) for sample in samples],
            "words": [float(len(words_of(sample.summary))) for sample in samples],
            "copied": [copied_share(sample.summary, sample.source, LOGGED_N) for sample in samples],
            "repeated": [repeated_share(sample.summary, LOGGED_N) for sample in samples],
            **penalties,
        }
        for name, values in columns.items():
            if not math.isnan(mean := mean_of_defined(values)):
                log_metric(f"{self.__name__}/{name}", mean)

    def _log_worst_pairs(self, log_extra: Callable[[str, list[Any]], None], samples: Sequence[Sample]) -> None:
        """Add the scores and the worst pairs to the table of completions."""
        log_extra(f"{self.__name__} score", [sample.score for sample in samples])
        log_extra(f"{self.__name__} worst question", [sample.worst_question for sample in samples])
        log_extra(f"{self.__name__} worst answer", [sample.worst_answer for sample in samples])
        log_extra(f"{self.__name__} worst score", [sample.worst_score for sample in samples])


def _by_name(penalties: Sequence[Penalty]) -> dict[str, Penalty]:
    """The penalties by their names in the log, which differ."""
    named: dict[str, Penalty] = {}
    for penalty in penalties:
        base = getattr(penalty, "__name__", type(penalty).__name__)
        names = (base, *(f"{base}_{number}" for number in range(2, len(penalties) + 1)))
        named[next(name for name in names if name not in named)] = penalty
    return named


def _values(penalty: Penalty, samples: Sequence[Sample]) -> list[float]:
    return [penalty(sample.summary, sample.source) for sample in samples]


def completion_text(completion: Any) -> str:
    """The text of a completion: a str, or the last message of the assistant in a list of messages; "" if there is none.

    A message's content is a str or a list of parts, of which those of type `text` count.
    """
    if isinstance(completion, str):
        return completion
    for message in reversed(completion):
        if message["role"] == "assistant" and (content := message.get("content")):
            if isinstance(content, str):
                return content
            return "".join(part["text"] for part in content if part["type"] == "text")
    return ""


def to_preferences(rows: Dataset, template: str = TEXT, *, chat: bool = False, margin: float = 0.0) -> Dataset:
    """The pairs that CONSEQ selected, as a preference data set for `DPOTrainer` and similar trainers.

    The preferred text is the ground truth. The rejected text is the worst sample of the model. A pair whose scores do
    not differ by more than `margin` is left out.

    Args:
        rows: a data set of `ConseqCollector` or `collect`, perhaps with the selection of `reselect`.
        template: the prompt, with `{text}` once for the document. Take the one that the samples were drawn with.
        chat: whether prompts and answers are lists of messages.
        margin: the least difference of the two scores.

    Returns:
        The columns `prompt`, `chosen`, `rejected`, `chosen_score` and `rejected_score`. Without `chat`, a space joins
        the prompt and an answer unless the prompt ends in white space.

    Raises:
        ValueError: if a column is missing, no pair is left, or the template does not contain `{text}` once.
    """
    needed = {"document", "ground_truth", "negative", "selected", "lowest", "sample_scores", "ground_truth_score"}
    if missing := sorted(needed - set(rows.column_names)):
        raise ValueError(
            f"rows: must be a data set of `ConseqCollector` or `collect`; the columns {missing} are missing"
        )
    finite_from(0)("margin", margin)
    parts = TextFormat(template).template.split(TEXT)
    preferences = []
    for row in rows:
        if not row["selected"]:
            continue
        scores = {"chosen_score": row["ground_truth_score"], "rejected_score": row["sample_scores"][row["lowest"]]}
        if scores["chosen_score"] - scores["rejected_score"] > margin:
            texts = row["document"].join(parts), row["ground_truth"], row["negative"]
            preferences.append(_dpo_row(*texts, chat=chat) | scores)
    if not preferences:
        raise ValueError(
            f"rows: must hold a selected pair with a difference above {margin:g}; none of {len(rows)} rows does. "
            f"Select with larger ratios (`reselect`), or lower the margin"
        )
    return Dataset.from_list(preferences)


def _dpo_row(prompt: str, chosen: str, rejected: str, *, chat: bool) -> dict[str, Any]:
    """A preference in the form that TRL reads."""
    if chat:
        answers = {"chosen": chosen, "rejected": rejected}
        messages = {name: [{"role": "assistant", "content": text}] for name, text in answers.items()}
        return {"prompt": [{"role": "user", "content": prompt}], **messages}
    joint = "" if prompt[-1:].isspace() else " "
    return {"prompt": prompt, "chosen": joint + chosen, "rejected": joint + rejected}
