"""Questions written by rules, on the small English model of the development extra."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from qa_inference.answer_candidates import AnswerFinder, load_pipeline
from recipes import annotated, claims
from recipes import write_questions as recipe


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return load_pipeline()


def _written(pipeline: Any, text: str) -> dict[str, str]:
    """The questions to a text by their answers."""
    found = AnswerFinder(pipeline).find([text], None)[0]
    return {row["answer"]: row["question"] for row in recipe.questions(text, pipeline(text), found)}


@pytest.mark.parametrize(
    ("text", "answer", "question"),
    [
        ("The council approved the new bridge on Monday.", "The council", "who approved the new bridge on Monday?"),
        ("The council approved the new bridge on Monday.", "the new bridge", "what did the council approve on Monday?"),
        ("The council approved the new bridge on Monday.", "Monday", "when did the council approve the new bridge?"),
        ("On Monday, the council has approved two bridges over the river in Perth.", "Perth",
         "on Monday, the council has approved two bridges over the river in what place?"),
        ("On Monday, the council has approved two bridges over the river in Perth.", "the council",
         "on Monday, who has approved two bridges over the river in Perth?"),
        ("On Monday, the council approved it in Perth.", "Perth", "where did the council approve it on Monday?"),
        ("Police arrested Ann Lee's brother in 1998.", "Ann Lee's", "whose brother did police arrest in 1998?"),
        ("Klitschko has a chink in his armour after getting beat by Tyson Fury, says Lewis.", "Klitschko",
         "who has a chink in his armour after getting beat by Tyson Fury?"),
        ("Ann Lee, the mayor of Perth, resigned.", "Perth", "Ann Lee, the mayor of what place, resigned?"),
        ("Klitschko has a chink in his armour after getting beat by Tyson Fury, says Lewis.", "Lewis",
         "Klitschko has a chink in his armour after getting beat by Tyson Fury, says who?"),
    ],
)  # fmt: skip
def test_a_question_says_what_its_clause_says(pipeline: Any, text: str, answer: str, question: str) -> None:
    assert _written(pipeline, text)[answer] == question


def test_no_question_has_its_answer_or_a_lone_bracket(pipeline: Any) -> None:
    text = 'Australia\'s Football Union (AFU) is to celebrate a "Women in Sport" week, starting yesterday.'
    written = _written(pipeline, text)
    assert written
    for answer, question in written.items():
        assert question.endswith("?") and "()" not in question and answer not in question
        assert 4 <= len(question.split()) <= recipe.LONGEST_QUESTION


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("Mary Keefe was a 19-year-old operator at the time.", "19"),
        ("The paper appeared on May 29, 1943, in Boston.", "May"),
        ("The club signed Lord Sugar of Hackney.", "Sugar"),
    ],
)
def test_no_part_of_a_name_or_a_word_is_asked_for(pipeline: Any, text: str, part: str) -> None:
    document, start = pipeline(text), text.index(part)
    span = document.char_span(start, start + len(part))
    assert span is not None and recipe.write(span, "NOUN_CHUNK") is None


def test_what_stands_beside_a_sentence_does_not_change_its_questions(pipeline: Any) -> None:
    sentence, other = "The council approved the new bridge on Monday.", "Police arrested Ann Lee's brother in 1998."
    alone = _written(pipeline, sentence)
    assert alone and alone.items() <= _written(pipeline, f"{sentence} {other}").items()


def test_a_long_clause_loses_parts(pipeline: Any) -> None:
    text = (
        "The old council, which had met in the town hall since the end of the war, approved the new bridge over the "
        "river because the ferry, which carried cars and people for fifty years, had sunk in the storm of last week."
    )
    written = _written(pipeline, text)["the new bridge"]
    assert written == (
        "the old council, which had met in the town hall since the end of the war, approved what over the river?"
    )


def test_texts_without_a_verb_have_no_question(pipeline: Any) -> None:
    assert _written(pipeline, "A bridge in Perth.") == {}
    assert _written(pipeline, "") == {}


def test_summaries_are_asked_of_their_documents_and_of_themselves(tmp_path: Path) -> None:
    rows = [
        {"document": "Ann Lee won the cup in Perth on Monday.", "summaries": ["Ann Lee took the cup."]},
        {"document": "Bo Ray lost.", "summary": "He lost the cup."},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "written.jsonl.gz"
    recipe.main(["--data", str(tmp_path / "rows.jsonl"), "--rows", "1", "--out", str(out)])
    with gzip.open(out, "rt") as lines:
        found = [(row["context"], row["question"]) for row in map(json.loads, lines)]
    assert (rows[0]["document"], "who took the cup?") in found
    assert ("Ann Lee took the cup.", "who took the cup?") in found
    assert "Bo Ray lost." not in dict(found)
    contexts = annotated.load_contexts([str(out)], lambda text: [ord(each) for each in text])
    assert all(pair.written for context in contexts for pair in context.pairs)


def test_a_sentence_in_other_words_is_asked_of_the_first(tmp_path: Path) -> None:
    row = {"a": "Ann Lee won the cup in Perth .", "b": "Ann Lee took the cup ."}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row))
    assert recipe.read_texts([str(tmp_path / "pairs.jsonl")], None) == {
        "Ann Lee won the cup in Perth.": ["Ann Lee took the cup."]
    }


def test_a_text_alone_is_cut_into_pieces_of_two_to_four_sentences(tmp_path: Path) -> None:
    sentences = [f"Ann Lee won cup {number}." for number in range(11)]
    (tmp_path / "articles.jsonl").write_text(
        json.dumps({"level": "int", "text": "Intermediate \n" + "\n".join(sentences)})
    )
    (tmp_path / "others.jsonl").write_text(json.dumps({"text": "Advanced technology\nis expensive."}))
    assert list(recipe.read_texts([str(tmp_path / "others.jsonl")], None)) == ["Advanced technology is expensive."]
    pieces = [" ".join(sentences[start:end]) for start, end in ((0, 2), (2, 5), (5, 9), (9, 11))]
    assert recipe.read_texts([str(tmp_path / "articles.jsonl")], None) == {piece: [] for piece in pieces}


def test_claims_are_asked_of_the_sources_that_support_them(tmp_path: Path) -> None:
    group = {
        "set": "s", "key": "k", "sources": ["Ann Lee won the cup in Perth on Monday.", "Ann Lee lost in Perth."],
        "claims": [{"text": "Ann Lee took a trophy.", "labels": [1, 0]}, {"text": "Bo Ray won.", "labels": [0, None]}],
    }  # fmt: skip
    held_out = {**group, "key": next(key for key in map(str, range(999)) if claims.is_held_out(key))}
    assert [*recipe.supported_claims(group)] == [(group["sources"][0], ["Ann Lee took a trophy."])]
    assert not [*recipe.supported_claims(held_out)]
    (tmp_path / "groups.jsonl").write_text(json.dumps(group) + "\n" + json.dumps(held_out))
    out = tmp_path / "written.jsonl.gz"
    recipe.main(["--data", str(tmp_path / "groups.jsonl"), "--out", str(out)])
    (context, *_) = (
        context
        for context in annotated.load_contexts([str(out)], lambda text: [ord(each) for each in text])
        if len(context.ids) == len(group["sources"][0])
    )
    answers = {"".join(map(chr, pair.answer or ())): pair.answer_start for pair in context.pairs}
    assert (
        answers["a trophy"] == -1 and answers["Perth"] > 0
    )  # the first is in other words, and is learned all the same
