"""The guess whether texts are English (21 D27): real sentences of several languages and kinds."""

from __future__ import annotations

import warnings

import pytest

from qa_inference.language import looks_english, warn_unless_english
from quals_metric.report.examples import EXAMPLES

# ruff: noqa: E501
OTHERS = {
    "German": "Der Stadtrat hat am Montag den Bau einer neuen Brücke über den Fluss beschlossen. Die Arbeiten sollen im "
    "Frühjahr beginnen und zwei Jahre dauern, sagte die Bürgermeisterin. In der Stadt war lange über den Standort "
    "gestritten worden, weil viele Anwohner mehr Verkehr fürchten und einen Tunnel unter dem Fluss verlangen.",
    "French": "Le conseil municipal a approuvé lundi la construction d'un nouveau pont sur la rivière. Les travaux doivent "
    "commencer au printemps et durer deux ans, a déclaré la maire. Les habitants se sont longtemps opposés au projet "
    "parce qu'ils craignent plus de circulation et demandent un tunnel sous la rivière depuis plusieurs années.",
    "Spanish": "El consejo aprobó el lunes la construcción de un nuevo puente sobre el río. Las obras comenzarán en "
    "primavera y durarán dos años, dijo la alcaldesa. Muchos vecinos se opusieron al proyecto durante mucho tiempo porque "
    "temen más tráfico y piden un túnel bajo el río desde hace varios años, según informó el periódico de la ciudad.",
    "Dutch": "De gemeenteraad heeft maandag de bouw van een nieuwe brug over de rivier goedgekeurd. De werkzaamheden "
    "beginnen in het voorjaar en duren twee jaar, zei de burgemeester. Veel bewoners waren lang tegen het plan omdat zij "
    "meer verkeer vrezen en al jaren een tunnel onder de rivier vragen, zo meldde de krant van de stad op dinsdag.",
    "Russian": "Городской совет в понедельник одобрил строительство нового моста через реку. " * 8,
}  # fmt: skip


@pytest.mark.parametrize("text", OTHERS.values(), ids=OTHERS)
def test_21_d27_another_language_is_seen(text: str) -> None:
    assert not looks_english([text])
    with pytest.warns(UserWarning, match="model 'embedded' reads only English, and the sources look like another"):
        warn_unless_english("embedded", [text])


def test_21_d27_english_is_taken_for_english() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for example in EXAMPLES:
            warn_unless_english("embedded", [example.source])
        warn_unless_english("embedded", ["Police : Man held over 1998 murder . LONDON ( Reuters ) - Officers said a 40-year-old "
                                         "was arrested in Leeds on Tuesday ; two others remain at large ." * 3])  # fmt: skip


def test_21_d27_few_words_tell_nothing() -> None:
    assert looks_english(["Der Stadtrat hat den Bau beschlossen."]) and looks_english([])
