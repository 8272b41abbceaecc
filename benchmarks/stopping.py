"""How much of the search could be left out if a group stopped as soon as it cannot change what is kept?

    python benchmarks/stopping.py --data rows.jsonl … [--limit 200] [--model embedded]

A row holds `document` and `summary`; only the summary is read. Of the diverse beam search, the program counts tokens
read: one for each step and each distinct row (groups that have written the same share a row).

A group may stop only if no group after it is still needed: at every step, its choice lowers the scores of those after
it. Two rules decide whether a group is still needed:

    exact       its pair may yet be kept: the text after its separator still occurs in the summary, and there is not a
                second separator. The selection keeps the best pair of every answer, however unlikely, so that a low
                log-probability alone is no reason to stop.
    foresight   its pair is kept in the end. No rule that sees only the past can leave out more.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch

from qa_inference.decoding import Hypothesis
from qa_inference.models.encoder_decoder import EncoderDecoder
from quals_metric import QualsConfig, QualsScorer
from quals_metric.files.tables import records
from quals_metric.selection import SummaryText, locate_answers, parse_pairs, select_pairs

IsNeeded = Callable[[int, int], bool]
"""Whether a group is needed after so many tokens."""


def tokens_read(hypotheses: Sequence[Hypothesis], is_needed: IsNeeded = lambda group, length: True) -> int:
    """The tokens that the search of one text reads, if a group stops when neither it nor a later one is needed."""
    num_read = 0
    for length in range(max(len(h.tokens) for h in hypotheses)):
        # 1. The groups that have written `length` tokens and search on.
        living = [g for g, hypothesis in enumerate(hypotheses) if len(hypothesis.tokens) > length]
        # 2. The last needed one and all before it. Each of their distinct rows is read.
        last = max((g for g in living if is_needed(g, length)), default=-1)
        num_read += len({hypotheses[g].tokens[:length].tobytes() for g in living if g <= last})
    return num_read


def count(scorer: QualsScorer, summary: str) -> Counter[str]:
    """Tokens read from one summary by the search as it is, and under both rules."""
    assert isinstance(scorer.model, EncoderDecoder)
    (tokenized,) = scorer.tokenize([summary]).values()
    text = SummaryText(summary, tokenized.encoded, scorer.model.text)
    separator = scorer.model.text.special_id(scorer.format.separator.strip())
    searched = scorer.model.generate(tokenized.inputs(), scorer._search, end_ids=scorer._end_ids)
    parsed = parse_pairs(chain.from_iterable(searched), scorer.format, scorer.model.text)
    kept = select_pairs(locate_answers(parsed, text), scorer.config.max_pairs)
    kept_tokens = {pair.tokens.tobytes() for pair in kept}
    counts: Counter[str] = Counter()
    for hypotheses in searched:

        def may_be_kept(group: int, length: int, hypotheses: list[Hypothesis] = hypotheses) -> bool:
            written = hypotheses[group].tokens[:length]
            (places,) = np.nonzero(written == separator)
            if len(places) != 1:
                return len(places) == 0
            answer = scorer.model.text.decode(written[places[0] + 1 :])
            return not answer.strip() or text.find(written[places[0] + 1 :], answer) is not None

        def is_kept(group: int, length: int, hypotheses: list[Hypothesis] = hypotheses) -> bool:
            return hypotheses[group].tokens.tobytes() in kept_tokens

        counts["as it is"] += tokens_read(hypotheses)
        counts["exact"] += tokens_read(hypotheses, may_be_kept)
        counts["foresight"] += tokens_read(hypotheses, is_kept)
    return counts


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=200, help="rows to read")
    parser.add_argument("--model", default="embedded")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    scorer = QualsScorer(QualsConfig(args.model, device="cpu", dtype="float32"))
    rows = islice(chain.from_iterable(records(Path(path)) for path in args.data), args.limit)
    counts: Counter[str] = Counter()
    summaries = list(dict.fromkeys(row["summary"] for _, row in rows))
    for summary in summaries:
        counts += count(scorer, summary)
    print(
        f"{len(summaries)} distinct summaries; {scorer.signature}\n\n| rule | tokens read | of all |\n|---|---:|---:|"
    )
    for rule, num_read in counts.items():
        print(f"| {rule} | {num_read:,} | {num_read / counts['as it is']:.1%} |")


if __name__ == "__main__":
    main()
