"""True and false claims about texts, from people's data sets, in one layout for `recipes.train_contrast`.

    python -m recipes.claims --contrast DATA/contrast --out runs/claims.jsonl.gz

A row is a group: `set, key, sources, claims`; a claim is `text, labels`, for every source 1 (it supports the claim), 0
(it does not) or None (not known). `key` is what a group is held out by: groups with the same key share a text.
Reads `fever`, `fever_symmetric`, `fib_train`, `wice`, `conjnli` and `breaking_nli` where the folder has them.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from recipes import annotated

Row = dict[str, Any]
WINDOW_WORDS = 300  # of a long page, around what a claim is about
SOURCE_WORDS = 330  # a longer source is cut for training
MOST_CLAIMS = 24  # of a group
WORD = re.compile(r"[a-z0-9]+")


def clean(text: str) -> str:
    """A text as a newspaper has it: no Penn-Treebank brackets, pronunciations, tags or spaces around hyphens."""
    text = re.sub(r"\s*-LSB-.*?-RSB-", "", text)
    text = re.sub(r"\s*</?(?:t|s)>\s*", " ", text).replace("-COLON-", ":").replace("--", "-")
    text = re.sub(r"(?<=\w) - (?=\w)", "-", re.sub(r" ('s|'re|'ve|'d|'ll|'m)\b", r"\1", annotated.detokenize(text)))
    text = re.sub(r'" ([^"]*?) "', r'"\1"', text)
    return re.sub(r"\s+", " ", text).strip()


def is_held_out(key: str) -> bool:
    """One key in twenty, by its hash: stable over runs and orders."""
    return zlib.crc32(key.encode()) % 20 == 0


def words(text: str) -> set[str]:
    """The words of a text that tell something: those of four letters or more, and numbers."""
    return {word for word in WORD.findall(text.lower()) if len(word) > 3 or word.isdigit()}


def window(page: str, claim: str, size: int = WINDOW_WORDS) -> str:
    """The `size` words of a page that have the most of the claim's words."""
    tokens, wanted = page.split(), words(claim)
    starts = range(0, max(1, len(tokens) - size + size // 4), size // 4)
    best = max(starts, key=lambda s: len(wanted & words(" ".join(tokens[s : s + size]))))
    return " ".join(tokens[best : best + size])


def shortened(source: str, claim: str) -> str:
    """The source, or the part of a long one that a claim is about."""
    return source if len(source.split()) <= SOURCE_WORDS else window(source, claim, SOURCE_WORDS)


def by_evidence(name: str, rows: Iterable[tuple[str, str, int]], most: int = MOST_CLAIMS) -> Iterator[Row]:
    """One group for each evidence of (evidence, claim, label) rows, without claims that have both labels there."""
    groups: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for evidence, claim, label in rows:
        groups[evidence][claim].add(label)
    for evidence, claims in groups.items():
        kept = [{"text": c, "labels": [*labels]} for c, labels in claims.items() if len(labels) == 1]
        if kept:
            yield {"set": name, "key": evidence[:80], "sources": [evidence], "claims": kept[:most]}


def crossed(name: str, rows: Sequence[tuple[str, str, int]]) -> Iterator[Row]:
    """One group for all the evidences and claims that are connected by rows."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            text = parent[text]
        return text

    for evidence, claim, _ in rows:
        parent[root("e" + evidence)] = root("c" + claim)
    groups: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
    for row in rows:
        groups[root("e" + row[0])].append(row)
    for group in groups.values():
        sources, claims = [*dict.fromkeys(e for e, _, _ in group)], [*dict.fromkeys(c for _, c, _ in group)]
        known = {(e, c): label for e, c, label in group}
        made = [{"text": claim, "labels": [known.get((e, claim)) for e in sources]} for claim in claims]
        yield {"set": name, "key": sources[0][:80], "sources": sources, "claims": made}


def fever(path: Path) -> Iterator[Row]:
    """FEVER's claims by their evidence."""
    return by_evidence("fever", ((clean(r["evidence"]), clean(r["claim"]), r["supported"]) for r in read(path)))


def symmetric(path: Path) -> Iterator[Row]:
    """FEVER-symmetric: every claim and evidence with both labels."""
    return crossed("symmetric", [(clean(r["evidence"]), clean(r["claim"]), r["supported"]) for r in read(path)])


def fib(path: Path) -> Iterator[Row]:
    """FIB's summaries by their documents."""
    found = [(clean(r["document"]), clean(r[key]), int(key == "faithful"))
             for r in read(path) for key in ("faithful", "unfaithful")]  # fmt: skip
    return by_evidence("fib", found)


def wice(path: Path) -> Iterator[Row]:
    """WiCE's sentences with the part of the page that matters; what is partly supported is left out."""
    labels = {"supported": 1, "not_supported": 0}
    rows = [r for r in read(path) if r["label"] in labels]
    return by_evidence("wice", ((window(r["evidence"], r["claim"]), clean(r["claim"]), labels[r["label"]])
                                for r in rows))  # fmt: skip


def inference(name: str, most: int = 4) -> Callable[[Path], Iterator[Row]]:
    """A data set of sentence pairs: what is neutral adds something, and is not supported either."""
    return lambda path: by_evidence(
        name, ((clean(r["evidence"]), clean(r["claim"]), int(r["label"] == "entailment")) for r in read(path)), most
    )


SETS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "fib_train": fib, "fever_symmetric": symmetric, "fever": fever, "wice": wice,
    "conjnli": inference("conjnli"), "breaking_nli": inference("breaking_nli", most=2),
}  # fmt: skip


def read(path: Path) -> Iterator[Row]:
    """The rows of a JSON-lines file, `.gz` or not."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def write(rows: Iterable[Row], path: Path) -> int:
    """Write rows as JSON lines, and say how many."""
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as lines:
        for count, row in enumerate(rows, 1):  # noqa: B007
            print(json.dumps(row, ensure_ascii=False), file=lines)
    return count


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contrast", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--most", type=int, default=2000, help="groups of one set, drawn at random")
    parser.add_argument("--most-inference", type=int, default=600, help="groups of breaking_nli")
    args = parser.parse_args(argv)
    found = []
    for name, reader in SETS.items():
        path = args.contrast / f"{name}.jsonl.gz"
        groups = [*reader(path)] if path.exists() else []
        random.Random(0).shuffle(groups)
        groups = groups[: args.most_inference if name == "breaking_nli" else args.most]
        found += groups
        print(f"{name}: {len(groups):,} groups, {sum(len(group['claims']) for group in groups):,} claims")
    write(found, args.out)


if __name__ == "__main__":
    main()
