"""The examples of `quals demo` and the app: a source with a faithful and an unfaithful summary.

The first is the example of the QUALS paper. The others were written for this package, about invented people and places.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """A source with two summaries that differ in a fact."""

    title: str
    source: str
    faithful: str
    unfaithful: str


EXAMPLES = (
    Example(
        title="Who has the chink in his armour?",
        source=(
            '"Klitschko doesn\'t have the legs, the power that he used to," said Lewis. "He has a chink in his armour '
            'after getting beat by Tyson Fury. Anthony Joshua is now taking that challenge, going after the man."'
        ),
        faithful="Klitschko has a chink in his armour after getting beat by Tyson Fury, says Lewis.",
        unfaithful="Anthony Joshua has a chink in his armour after getting beat by Tyson Fury, says Lewis.",
    ),
    Example(
        title="How many, and when?",
        source=(
            "The Harwick ferry was cancelled on Tuesday after engineers found a crack in its propeller shaft. About "
            "240 passengers spent the night in the school of Port Ellery, where volunteers served soup. The shipping "
            "line said that a spare part would arrive from Norway on Friday and that all tickets would be refunded."
        ),
        faithful="About 240 ferry passengers spent the night in a school after a crack was found in the shaft.",
        unfaithful="About 900 ferry passengers spent the night in a hotel after a fire was found in the engine.",
    ),
    Example(
        title="Who did what to whom?",
        source=(
            "The orchard company Bellwood has bought its smaller rival Tarn Farms for 12 million pounds. Marta "
            "Oyelaran, who founded Tarn Farms in 1998, will stay for a year to advise the new owner. Bellwood's chief "
            "executive, Ian Strand, promised that no jobs would be lost."
        ),
        faithful="Bellwood has bought Tarn Farms, which Marta Oyelaran founded in 1998.",
        unfaithful="Tarn Farms has bought Bellwood, which Ian Strand founded in 1998.",
    ),
    Example(
        title="What was found?",
        source=(
            "Researchers followed 3,000 nurses for ten years. Those who worked at night slept less, but they were not "
            "ill more often than their colleagues who worked by day. The authors warn that nurses whose health "
            "suffered may have given up night work before the study began."
        ),
        faithful="Nurses who worked at night slept less than their colleagues, a study of 3,000 nurses found.",
        unfaithful="Nurses who worked at night slept longer than their patients, a study of 50 doctors found.",
    ),
)
