"""Training on the score itself: what is compared, what it costs, and a run on toy data."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recipes import annotated, claim_pairs, claims, t5_training, train_t5
from recipes import train_contrast as recipe
from tests import tiny

SETTINGS = {
    "pairs": 4,
    "other_words": 0.0,
    "cut": 0.5,
    "mirrored": 1.0,
    "distractors": 0.0,
    "synonyms": 0.5,
    "rows": 100,
    "set_weights": [],
}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """Groups: a claim with edits, and two claims about two sources."""
    one, two = tiny.CORPUS[:2]
    edit = {"old": "beat", "new": "pay", "supported": 0, "kind": "word outside"}
    same = {"old": "did", "new": "was", "supported": 1, "kind": "synonym"}
    edited = {"text": f"{two} It was 1990 .", "labels": [1], "edits": [edit, same]}
    groups = [
        {"set": "news", "key": str(n), "sources": [f"{two} It was 1990 ."], "claims": [edited]} for n in range(30)
    ]
    crossed = [{"text": one, "labels": [1, 0]}, {"text": two, "labels": [0, 1]}]
    return groups + [{"set": "symmetric", "key": str(n), "sources": [one, two], "claims": crossed} for n in range(60)]


@pytest.fixture(scope="module")
def files(rows: list[dict[str, Any]], t5: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The groups, and three pairs of every claim: of its own first and last tokens."""
    folder = tmp_path_factory.mktemp("claims")
    claims.write(rows, folder / "claims.jsonl.gz")
    tokenizer = t5_training.load(t5)[1]
    encode, special = annotated.encoder_of(tokenizer), train_t5.special_ids(tokenizer)
    with (folder / "pairs.jsonl").open("w") as lines:
        for text in claim_pairs.order([str(folder / "claims.jsonl.gz")]):
            ids = encode(text)
            pairs = [[*ids[at : at + 4], special["sep"], *ids[-2 - at :][:3], special["eos"]] for at in range(3)]
            print(json.dumps({"text": text, "pairs": pairs, "answers": [5] * 3}), file=lines)
    return str(folder / "claims.jsonl.gz"), str(folder / "pairs.jsonl")


@pytest.fixture
def draw_visits(files: tuple[str, str], t5: Path) -> Callable[..., recipe.Visits]:
    def visits(name: str, **settings: Any) -> recipe.Visits:
        tokenizer = t5_training.load(t5)[1]
        encode = annotated.encoder_of(tokenizer)
        groups = recipe.load_groups([files[0]], recipe.load_pairs([files[1]]), encode)
        continuing = {i for token, i in tokenizer.get_vocab().items() if token[0].isalnum()}
        args = argparse.Namespace(**{**SETTINGS, **settings})
        special = train_t5.special_ids(tokenizer)
        return recipe.Visits([g for g in groups if g.name == name], encode, special, continuing, args, seed=0)

    return visits


def test_a_pair_is_exchanged_where_it_has_the_words_as_a_whole() -> None:
    exchanged = recipe.exchanged_pair
    assert exchanged((1, 8, 9, 5, 8, 3), [8], [10], set()) == ((1, 10, 9, 5, 10, 3), True)
    assert exchanged((1, 8, 9, 3), [8], [10], {9}) == ((1, 8, 9, 3), False)  # the beginning of a longer word
    assert exchanged((1, 8, 9, 3), [8, 9], [10], set()) == ((1, 10, 3), True)
    assert exchanged((1, 8, 7, 3), [8, 9], [10], set()) is None  # a part of it
    assert recipe.differing("May 29, 1943", "May 30, 1943") == ("29,", "30,")
    assert recipe.differing("ten men", "nine men") == ("ten", "nine")


def test_an_edit_makes_the_touched_pairs_false_and_the_source_may_be_edited_too(
    draw_visits: Callable[..., recipe.Visits],
) -> None:
    visits = draw_visits("news", synonyms=0.0)
    visit = visits.draw()
    assert visit is not None and len(visit.sources) == len(visit.claims) == 2
    assert visit.sources[0].source != visit.sources[1].source
    by_place = {(item.source, item.claim): item for item in visit.items}
    assert {place: item.label for place, item in by_place.items()} == {(0, 0): 1, (1, 0): 0, (0, 1): 0, (1, 1): 1}
    assert set(by_place[0, 0].truths) == {1} and set(by_place[1, 1].truths) == {1}
    assert 0 in by_place[0, 1].truths and by_place[0, 1].truths == by_place[1, 0].truths
    beside = draw_visits("news", synonyms=0.0, other_words=1.0).draw()
    assert beside is not None and [item.label for item in beside.items if item.claim == 2] == [1]
    assert beside.claims[2].source != beside.claims[0].source
    false = draw_visits("news", mirrored=0.0, synonyms=0.0).draw()
    assert false is not None and len(false.sources) == 1 and [item.label for item in false.items] == [1, 0]


def test_a_set_has_the_share_of_the_visits_that_is_given(draw_visits: Callable[..., recipe.Visits]) -> None:
    assert draw_visits("symmetric").weights == [recipe.WEIGHTS["symmetric"]] and draw_visits("news").weights == [0.5]
    given = [recipe.set_weight("news=3"), recipe.set_weight("symmetric=0.2")]
    assert [draw_visits(name, set_weights=given).weights for name in ("news", "symmetric")] == [[3.0], [0.2]]


def test_a_weight_for_a_set_without_claims_is_refused(files: tuple[str, str], t5: Path, tmp_path: Path) -> None:
    command = ["--init", str(t5), "--claims", files[0], "--pairs-files", files[1], "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit, match="no claims with pairs of fewer, old; the sets are news, symmetric"):
        recipe.main([*command, "--set-weights", "old=1", "news=2", "fewer=3"])
    assert not (tmp_path / "run").exists()


def test_claims_and_sources_are_crossed_and_pairs_are_decoded_once(draw_visits: Callable[..., recipe.Visits]) -> None:
    visit = draw_visits("symmetric").draw()
    assert visit is not None and sorted(item.label for item in visit.items) == [0, 0, 1, 1]
    assert all(len(example.targets) == 6 for example in visit.sources)
    around = draw_visits("symmetric", distractors=1.0).draw()
    assert around is not None and len(around.sources[0].source) > len(visit.sources[0].source)


def test_the_loss_falls_when_what_is_supported_is_likelier(draw_visits: Callable[..., recipe.Visits]) -> None:
    visit = draw_visits("symmetric").draw()
    assert visit is not None
    options = argparse.Namespace(beta=5.0, beta_answer=2.0, beta_label=2.5, beta_pair=2.0)

    def terms(gap: float) -> dict[str, float]:
        own = {id(t): recipe.Means(torch.tensor(-1.0), torch.tensor(-1.0)) for e in visit.claims for t in e.targets}
        sources = {
            id(t): recipe.Means(torch.tensor(-3.0), torch.tensor(-3.0)) for e in visit.sources for t in e.targets
        }
        for item in visit.items:
            for target in item.targets if item.label else ():
                sources[id(target)] = recipe.Means(torch.tensor(-3.0 + gap), torch.tensor(-3.0 + gap))
        found = recipe.contrast_losses([visit], sources, own, {}, recipe.Score(), options)
        return {key: torch.stack(each).mean().item() for key, each in found.items()}

    even, better = terms(0.0), terms(1.0)
    assert even["contrast"] == pytest.approx(0.6931, abs=1e-3)
    assert all(better[key] < even[key] for key in ("contrast", "answer", "label", "likelihood"))


def test_normalized_scores_are_divided_by_the_information_of_the_claim(
    draw_visits: Callable[..., recipe.Visits],
) -> None:
    visit = draw_visits("symmetric").draw()
    assert visit is not None
    y = torch.tensor(-1.0, requires_grad=True)
    own = {id(t): recipe.Means(y, y) for e in visit.claims for t in e.targets}
    sources = {id(t): recipe.Means(torch.tensor(-3.0), torch.tensor(-2.0)) for e in visit.sources for t in e.targets}
    unrelated = {key: recipe.Means(torch.tensor(-5.0), torch.tensor(-1.0)) for key in own}
    every, answers = recipe.item_scores(visit.items[0], sources, own, unrelated)
    assert every.tolist() == pytest.approx([5.0 * -2.0 / 4.0] * 3)
    assert answers.tolist() == pytest.approx([5.0 * -1.0 / 0.5] * 3)  # of less information than is divided by
    every.sum().backward()
    assert y.grad is not None and y.grad.item() == pytest.approx(3 * -5.0 / 4.0)  # none through the divisor


@pytest.mark.parametrize("normalized", [False, True])
def test_it_trains_logs_and_resumes(
    files: tuple[str, str], t5: Path, data: list[str], tmp_path: Path, normalized: bool
) -> None:
    out = tmp_path / "run"
    command = ["--claims", files[0], "--pairs-files", files[1], "--init", str(t5), "--out", str(out),
               "--threads", "1",
               "--device", "cpu", "--tokens", "300", "--usual-tokens", "200", "--usual", "1", "--log-steps", "1",
               "--usual-options=--shortest 2", "--data", *data, *["--normalize"] * normalized]  # fmt: skip
    recipe.main([*command, "--max-steps", "2"])
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["final"] and {"contrast", "label", "pair", "anchor", "usual"} <= {
        key for row in rows for key in row
    }
    assert rows[-1]["symmetric"]["n"] > 0 and 0 <= rows[-1]["symmetric"]["auc"] <= 1
    assert (out / "checkpoint-2" / "config.json").exists()
    recipe.main([*command, "--max-steps", "3"])
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 3


def test_texts_that_are_there_are_not_searched_again(
    files: tuple[str, str], t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--claims", files[0], "--model", str(t5), "--groups", "2", "--threads", "1"]
    claim_pairs.main([*command, "--out", str(tmp_path / "pairs.jsonl")])
    found = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert [row["text"] for row in found] == claim_pairs.order([files[0]])
    claim_pairs.main([*command, "--out", str(tmp_path / "pairs.jsonl")])
    assert len((tmp_path / "pairs.jsonl").read_text().splitlines()) == len(found)


def test_pairs_of_a_later_file_replace_an_earlier_ones(tmp_path: Path) -> None:
    for name, ids in (("a", [1, 2]), ("b", [3, 4])):
        (tmp_path / name).write_text(json.dumps({"text": "x", "pairs": [ids], "answers": [1]}))
    assert recipe.load_pairs([str(tmp_path / name) for name in "ab"]) == {"x": [(3, 4)]}
