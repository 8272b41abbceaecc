"""Rewards and preferences with the real trainers of TRL, on toys."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import Dataset
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from qa_inference.metric_base.key import ResultKey
from quals_metric import PairScore, QualsConfig, QualsResult, QualsScorer, SummaryScore
from quals_metric.integrations import CopyPenalty, LengthPenalty, QualsReward, RepetitionPenalty, to_preferences
from quals_metric.integrations.trl import completion_text
from quals_metric.training import CollectionSettings, TextFormat, collect, reselect
from tests import tiny, tiny_causal

# TRL 1.16 calls methods that transformers 5.23 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning")

PAGE = Path(__file__).parents[3] / "docs" / "rewards.md"
TEMPLATE = "Text: {text}\nSummary:"
SOURCES = [tiny.CORPUS[0], tiny.CORPUS[3]]


class LetterScorer:
    """A scorer that needs no model: the share of letters `e`, minus 1; undefined without one.

    It asks about the first and the last character.
    """

    key = ResultKey("quals", {})
    signature = "letters"

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], list[str]]] = []

    def score(self, *, summaries: Sequence[str], sources: Sequence[str]) -> QualsResult:
        self.calls.append((list(summaries), list(sources)))
        return QualsResult(tuple(map(self._score, summaries)), self.signature)

    def _score(self, summary: str) -> SummaryScore:
        score = summary.count("e") / max(1, len(summary)) - 1
        if score == -1:
            return SummaryScore(math.nan, (), "no pair kept")
        asked = [("first?", 0, score + 1), ("last?", len(summary) - 1, score - 1)]
        return SummaryScore(
            score, tuple(PairScore(name, summary[at], at, at + 1, value, (), (), ()) for name, at, value in asked)
        )


@pytest.mark.parametrize(
    ("penalty", "summary", "value"),
    [
        (CopyPenalty(allowed=0.25, n=1), "the cat ran away", 0.25),  # half of the words are copied
        (CopyPenalty(allowed=0.25, weight=2, n=2), "the cat ran away", 2 / 3 - 0.5),
        (CopyPenalty(allowed=1.0), "the cat sat", 0.0),
        (CopyPenalty(allowed=0.0), "", 0.0),
        (RepetitionPenalty(), "the cat sat", 0.0),
        (RepetitionPenalty(), "The cat sat. The cat sat.", 0.25),  # 1 of 4 3-grams
        (RepetitionPenalty(weight=3, n=1), "no no no", 2.0),
        (LengthPenalty(least=2, most=4), "the cat sat", 0.0),
        (LengthPenalty(least=2, most=4, weight=2), "the cat sat and sat and sat and sat", 2 * 5 / 4),
        (LengthPenalty(least=4, most=4), "cat", 0.75),
        (LengthPenalty(least=4, most=4), "", 1.0),
    ],
)
def test_penalties(penalty: Any, summary: str, value: float) -> None:
    assert penalty(summary, "The cat sat on the mat.") == pytest.approx(value)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: CopyPenalty(allowed=1.5), "allowed: must be between 0 and 1"),
        (lambda: CopyPenalty(allowed=0.5, n=0), "n: must be an integer of at least 1; got 0"),
        (lambda: RepetitionPenalty(weight=-1), "weight: must be a finite number of at least 0; got -1"),
        (lambda: LengthPenalty(least=5, most=4), "most: must be an integer of at least 5; got 4"),
    ],
)
def test_impossible_penalties_are_refused(make: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


def test_penalties_of_one_name_are_numbered() -> None:
    numbers: dict[str, float] = {}
    reward = QualsReward(LetterScorer(), penalties=[CopyPenalty(0.0, n=1), CopyPenalty(0.0, weight=2, n=1)])
    (value,) = reward(["p"], ["eel"], document=["eel"], log_metric=numbers.__setitem__)
    assert (numbers["quals/copy_penalty"], numbers["quals/copy_penalty_2"]) == (1.0, 2.0)
    assert value == pytest.approx(-1 / 3 - 3.0)


def test_rewards_and_what_is_logged() -> None:
    reward = QualsReward(LetterScorer(), penalties=[CopyPenalty(allowed=0.5, n=1), RepetitionPenalty(n=1)])
    numbers: dict[str, float] = {}
    table: dict[str, list[Any]] = {}
    rewards = reward(
        ["p"] * 3,
        ["here", "bob bob", "eel"],
        document=["here be eels", "bob", "eel"],
        completion_ids=[[1]] * 3,
        log_metric=numbers.__setitem__,
        log_extra=table.__setitem__,
    )
    assert rewards == [pytest.approx(-0.5 - 0.5), None, pytest.approx(-1 / 3 - 0.5)]
    assert numbers == pytest.approx(
        {
            "quals/score": (-0.5 - 1 / 3) / 2,
            "quals/undefined": 1 / 3,
            "quals/words": 4 / 3,
            "quals/copied": 2 / 3,  # 3-grams, or all words of a shorter summary; "bob bob" is not in "bob"
            "quals/repeated": 0.0,
            "quals/copy_penalty": 0.5,
            "quals/repetition_penalty": 0.5 / 3,
        }
    )
    assert table["quals worst question"] == ["last?", "", "last?"] and table["quals worst answer"] == ["e", "", "l"]
    assert table["quals worst score"] == pytest.approx([-1.5, math.nan, -4 / 3], nan_ok=True)
    assert table["quals score"] == pytest.approx([-0.5, math.nan, -1 / 3], nan_ok=True)


def test_an_undefined_score_can_have_a_value() -> None:
    reward = QualsReward(LetterScorer(), "text", penalties=[LengthPenalty(least=4, most=9)], undefined=-2.0)
    assert reward(["p"] * 2, ["bob", "be"], text=["", ""]) == pytest.approx([-2 - 0.75, -0.5 - 0.75])
    numbers: dict[str, float] = {}
    reward(["p"], ["bob"], text=[""], log_metric=numbers.__setitem__)
    assert "quals/score" not in numbers and numbers["quals/undefined"] == 1


def test_a_missing_column_is_named() -> None:
    reward = QualsReward(LetterScorer())
    with pytest.raises(ValueError, match=r"got 'document', and the columns are \['text'\]"):
        reward(["p"], ["c"], text=["a"], completion_ids=[[1]], trainer_state=None)


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("plain", "plain"),
        ([{"role": "assistant", "content": "said"}], "said"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], "ab"),
        (
            [
                {"role": "assistant", "content": "", "tool_calls": []},
                {"role": "tool", "content": "12"},
                {"role": "assistant", "content": "twelve"},
            ],
            "twelve",
        ),
        ([{"role": "tool", "content": "12"}], ""),
        ([], ""),
    ],
)
def test_the_text_of_a_completion(completion: Any, text: str) -> None:
    assert completion_text(completion) == text


def test_completions_of_a_prompt_share_their_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = QualsConfig(
        str(tiny.trained(tmp_path / "bart")), groups=30, min_new_tokens=2, max_new_tokens=14, device="cpu"
    )
    scorer = QualsScorer(config)
    asked, read = [], []
    generate, log_likelihood = scorer.model.generate, scorer.model.log_likelihood
    monkeypatch.setattr(
        scorer.model, "generate", lambda batch, *args, **kwargs: asked.extend(batch) or generate(batch, *args, **kwargs)
    )
    monkeypatch.setattr(
        scorer.model, "log_likelihood", lambda batch: read.append([r.source for r in batch]) or log_likelihood(batch)
    )
    completions = ["Anthony Joshua won.", tiny.CORPUS[0], "Anthony Joshua won.", ""]
    documents = [document for document in SOURCES for _ in completions]  # four completions of each of two prompts
    reward = QualsReward(scorer)
    rewards = reward([""] * 8, completions * 2, document=documents)
    assert len(asked) == 2  # the distinct completions with a text
    (batch,) = read
    assert len(batch) == 2  # the distinct sources, together
    scores = scorer.score(completions * 2, documents).scores
    assert rewards == [None if math.isnan(score) else pytest.approx(score) for score in scores]
    assert rewards[1] is not None and rewards[3] is None  # what the toy knows by heart, and no text
    again = pickle.loads(pickle.dumps(reward))
    assert again([""] * 8, completions * 2, document=documents) == rewards and again.__name__ == "quals"


def tiny_policy(folder: Path, *, chat: bool = False) -> str:
    """A toy language model in a folder: TRL reads it twice where it compares with the untrained one."""
    model, _ = tiny_causal.checkpoint("llama")
    model.save_pretrained(folder)
    tiny_causal.tokenizer(chat=chat).save_pretrained(folder)
    return str(folder)


def has_learned(trainer: Any) -> bool:
    """Whether a trainer has changed the toy, and to numbers."""
    before, after = tiny_causal.checkpoint("llama")[0].state_dict(), trainer.model.state_dict()
    assert all(value.isfinite().all() for value in after.values())
    return any((before[name] != after[name]).any() for name in before)


def settings(folder: Path, **more: Any) -> dict[str, Any]:
    plain = {"max_steps": 2, "learning_rate": 1e-2, "logging_steps": 1, "use_cpu": True, "bf16": False, "seed": 3}
    return plain | {"output_dir": str(folder), "report_to": "none", "save_strategy": "no", "disable_tqdm": True} | more


@pytest.mark.parametrize(
    ("trainer_type", "config_type", "chat"),
    [(GRPOTrainer, GRPOConfig, False), (GRPOTrainer, GRPOConfig, True), (RLOOTrainer, RLOOConfig, False)],
)
def test_steps_of_a_trainer(
    trainer_type: Any, config_type: Any, chat: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_policy(tmp_path / "policy", chat=chat)
    texts = [TEMPLATE.format(text=source) for source in SOURCES]
    prompts = [[{"role": "user", "content": text}] for text in texts] if chat else texts
    rows = Dataset.from_list([{"prompt": p, "text": s} for p, s in zip(prompts, SOURCES, strict=True)])
    scorer = LetterScorer()
    penalty = CopyPenalty(allowed=0.1)
    reward = QualsReward(scorer, "text", penalties=[penalty])
    batch = {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 6}
    args = config_type(**settings(tmp_path, log_completions=True, **batch))
    trainer = trainer_type(model, reward_funcs=reward, args=args, train_dataset=rows)
    trainer.train()
    # Each step scores both groups in one call.
    assert [[sources.count(source) for source in SOURCES] for _, sources in scorer.calls] == [[4, 4], [4, 4]]
    assert has_learned(trainer)
    logs = trainer.state.log_history[:2]
    assert all(log["quals/score"] < 0 < log["quals/words"] for log in logs)
    assert "worst" in capsys.readouterr().out
    if trainer_type is not GRPOTrainer:
        return  # it writes no file of its completions
    # What was logged per completion: the worst pair, and no advantage where there is no score.
    tables = [pd.read_parquet(path) for path in sorted((tmp_path / "completions").iterdir())]
    for table, (summaries, sources), log in zip(tables, scorer.calls, logs, strict=True):
        assert [completion_text(completion) for completion in table["completion"]] == summaries
        penalties = list(map(penalty, summaries, sources))
        assert table["quals"].tolist() == pytest.approx((table["quals score"] - penalties).tolist(), nan_ok=True)
        assert log["rewards/quals/mean"] == pytest.approx(table["quals"].mean())
        assert log["quals/score"] == pytest.approx(table["quals score"].mean())
        assert log["quals/copy_penalty"] == pytest.approx(sum(penalties) / 8)
        undefined = table["quals"].isna()
        assert undefined.mean() == log["quals/undefined"] and 0 < undefined.sum() < 8
        assert (table["advantage"][undefined] == 0).all() and table["advantage"][~undefined].abs().sum() > 0
        assert (table["quals worst question"][~undefined] == "last?").all() and (
            table["quals worst question"][undefined] == ""
        ).all()


def collection(folder: Path) -> Dataset:
    """What was collected with the toy language model, which lies in the same folder."""
    model = tiny_policy(folder / "policy")
    rows = [{"document": text, "ground_truth": f"e {text[:20]}"} for text in tiny.CORPUS]
    chosen = CollectionSettings(
        samples=4, max_new_tokens=6, negative_ratio=1.0, positive_ratio=1.0, text_format=TextFormat(TEMPLATE)
    )
    return collect(model, LetterScorer(), rows, folder / "data", chosen)


def test_preferences(tmp_path: Path) -> None:
    rows = collection(tmp_path)
    found = to_preferences(rows, TEMPLATE)
    assert found.column_names == ["prompt", "chosen", "rejected", "chosen_score", "rejected_score"]
    by_prompt = {TEMPLATE.format(text=row["document"]): row for row in rows}
    assert 1 < len(found) <= len(rows)
    for pair in found:
        row = by_prompt[pair["prompt"]]
        assert row["selected"] and pair["chosen"] == f" {row['ground_truth']}"
        assert pair["rejected"] == f" {row['negative']}"
        assert pair["chosen_score"] == row["ground_truth_score"] > pair["rejected_score"]
        assert pair["rejected_score"] == min(score for score in row["sample_scores"] if score is not None)
    # A larger margin keeps fewer; chat has messages.
    differences = sorted(pair["chosen_score"] - pair["rejected_score"] for pair in found)
    assert len(to_preferences(rows, TEMPLATE, margin=differences[-2])) == 1
    chat = to_preferences(rows, chat=True)[0]
    assert [len(chat[name]) for name in ("prompt", "chosen", "rejected")] == [1, 1, 1]
    assert chat["prompt"][0] == {"role": "user", "content": found[0]["prompt"][6:-9]}
    assert chat["chosen"][0] == {"role": "assistant", "content": found[0]["chosen"][1:]}
    # A step on them.
    args = DPOConfig(**settings(tmp_path / "dpo", per_device_train_batch_size=2))
    trainer = DPOTrainer(str(tmp_path / "policy"), args=args, train_dataset=found)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)  # of a policy that is its reference
    assert trainer.state.log_history[1]["rewards/margins"] > 0
    assert has_learned(trainer)


def test_impossible_preferences_are_refused(tmp_path: Path) -> None:
    rows = collection(tmp_path)
    with pytest.raises(ValueError, match=r"the columns \['negative'\] are missing"):
        to_preferences(rows.remove_columns("negative"))
    with pytest.raises(ValueError, match=r"none of 4 rows does"):
        to_preferences(rows, margin=9.0)
    with pytest.raises(ValueError, match=r"none of 4 rows does"):
        to_preferences(reselect(rows, negative_ratio=0.0))
    with pytest.raises(ValueError, match=r"template: must contain \{text\} exactly once"):
        to_preferences(rows, "Summarize:")


def test_the_programs_of_the_guide(run_python: Callable[..., Any], tmp_path: Path) -> None:
    tiny_policy(tmp_path / "elsewhere" / "summarizer", chat=True)
    programs = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(programs) == 2
    (tmp_path / "program.py").write_text("\n".join(programs))
    found = run_python(str(tmp_path / "program.py"))
    assert found.returncode == 0, found.stderr
    folder = tmp_path / "elsewhere"
    (table,) = (folder / "grpo" / "completions").iterdir()
    assert len(pd.read_parquet(table)["quals worst question"]) == 4
    assert (folder / "trained" / "model.safetensors").exists()
    assert "'quals/copied': " in found.stdout and "'rejected_score': -" in found.stdout
