"""Pins what a reorganization of the packages must not change.

Only the public names, the command line and the files it writes are used here. Module paths may move.

What was observed once is stored in `tests/golden/pins/`, one JSON file for each section. A test observes again and
compares. If a difference is intended, write the files anew, read their diff, and say why in the commit:

    python -m tests.test_pins --write [SECTION ...]

Numbers are stored with three decimals and compared with a tolerance. Versions, paths, weights of the embedded models
and the spaCy model are replaced by placeholders.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import functools
import hashlib
import importlib
import inspect
import json
import logging
import math
import os
import re
import shutil
import sqlite3
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from qa_inference.formats import PairFormat, QuestionFormat
from qags_metric import Qags, QagsConfig, QagsScorer
from quals_metric import Quals, QualsConfig, QualsScorer, __version__
from quals_metric.cli.commands import app
from quals_metric.report.examples import EXAMPLES
from tests import tiny
from tests.qags_metric import models as qags_toys
from tests.quals_metric.integrations import stand_ins

GOLDEN = Path(__file__).parent / "golden" / "pins"
TOLERANCE = 0.0015  # of numbers that are stored with three decimals

PACKAGES = (
    "quals_metric",
    "qags_metric",
    "quals_metric.app",
    "quals_metric.integrations",
    "quals_metric.report",
    "quals_metric.study",
    "quals_metric.training",
)
OURS = ("qa_inference", "quals_metric", "qags_metric")
CONFIGURATIONS = ("QualsConfig", "QagsConfig")

# Members of public classes that no document names. They may be replaced.
UNDOCUMENTED = {
    "asked", "asked_as", "columns", "kind", "metric", "model_preset", "reader_preset", "row", "settings",
    "short_signature",
}  # fmt: skip

# What a search needs to write the toy's pairs.
SEARCH: dict[str, Any] = {"groups": 30, "min_new_tokens": 2, "max_new_tokens": 14, "device": "cpu"}
SUMMARIES = [tiny.CORPUS[0], "Anthony Joshua won.", "", tiny.CORPUS[3]]
SOURCES = [tiny.CORPUS[0], tiny.CORPUS[0], tiny.CORPUS[0], tiny.CORPUS[3]]
ROWS = [
    {"id": number, "summary": summary, "source": source, "system": "toy"}
    for number, (summary, source) in enumerate(zip(SUMMARIES, SOURCES, strict=True))
]


# --- Comparing ---------------------------------------------------------------------------------------------------


def differences(observed: Any, golden: Any, place: str = "") -> Iterator[str]:
    """Name every place where two JSON values differ.

    The order of a dict's keys does not matter. A class may have new members, but must not lose one.
    """
    if isinstance(golden, dict) and isinstance(observed, dict):
        for key in dict.fromkeys([*golden, *observed]):
            if key not in observed:
                yield f"{place}/{key}: is missing"
            elif key not in golden:
                yield f"{place}/{key}: is new"
            elif key == "members":  # a class may have new ones
                yield from (f"{place}/{key}/{name}: is missing" for name in golden[key] if name not in observed[key])
            else:
                yield from differences(observed[key], golden[key], f"{place}/{key}")
    elif isinstance(golden, list) and isinstance(observed, list) and len(golden) == len(observed):
        for index, (mine, pinned) in enumerate(zip(observed, golden, strict=True)):
            yield from differences(mine, pinned, f"{place}/{index}")
    elif isinstance(golden, float) and isinstance(observed, float):
        if abs(observed - golden) > TOLERANCE:
            yield f"{place}: is {observed}, was {golden}"
    elif type(observed) is not type(golden) or observed != golden:
        yield f"{place}: is {observed!r}, was {golden!r}"


def rounded(value: Any) -> Any:
    """A JSON value with three decimals. Minus zero becomes zero."""
    if isinstance(value, float):
        return round(value, 3) + 0.0
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def shape(value: Any) -> Any:
    """The keys and types of a JSON value. A list is described by all its items together."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [functools.reduce(_merged, map(shape, value))] if value else []
    return "float or null" if value is None or isinstance(value, float) else type(value).__name__


def _merged(left: Any, right: Any) -> Any:
    """The shape of two items of one list. What only one of them shows is kept."""
    if isinstance(left, dict) and isinstance(right, dict):
        return {key: _merged(left.get(key, right.get(key)), right.get(key, left.get(key))) for key in [*left, *right]}
    if isinstance(left, list) and isinstance(right, list):
        return [_merged(left[0], right[0])] if left and right else left or right
    return left if left == right else f"{left} or {right}"


# --- Signatures --------------------------------------------------------------------------------------------------


def fingerprint(folder: Path) -> str:
    """What a signature says of a checkpoint folder, computed independently of the packages."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".json", ".model", ".txt"):
            whole.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:12]


def normalized(signature: str) -> str:
    """A signature with placeholders for what depends on installed versions, and for the fingerprints.

    The fingerprint of a toy checkpoint depends on the version of transformers, which writes its configuration. It is
    checked here and then replaced.
    """
    for name, given in re.findall(r"(?<=[|:])(bart|generator|reader)@([^|]*)", signature):
        assert given == fingerprint(Path(name)), f"the fingerprint of {name} is {given}"
    assert f"|version:{__version__}|" in signature
    signature = re.sub(r"@[0-9a-f]{12}(?=\|)", "@<fingerprint>", signature)
    signature = re.sub(r"(?<=\|)(version|torch|transformers|tokenizers):[^|]+", r"\1:<version>", signature)
    return re.sub(r"(?<=\|finder:)[a-z_]+-[0-9.]+(?=\|)", "<spaCy model>", signature)


def signatures() -> dict[str, dict[str, str]]:
    """Signatures of both metrics by settings, on the toys and on the embedded models."""
    quals: dict[str, dict[str, Any]] = {
        "default": {},
        "tokens answer": {"tokens": "answer"},
        "tokens balanced": {"tokens": "balanced"},
        "max_pairs 3": {"max_pairs": 3},
        "preset fast": {"preset": "fast"},
        "normalize": {"normalize": True},
        "preset agreement": {"preset": "agreement"},
        "another search": {"groups": 12, "strength": 0.25, "min_new_tokens": 2, "max_new_tokens": 30},
        "expanded": {"sharing": "expanded"},
        "float32": {"dtype": "float32"},
        "bfloat16": {"dtype": "bfloat16"},
        "search in bfloat16": {"search_dtype": "bfloat16"},
        "search in the same type": {"dtype": "float32", "search_dtype": "float32"},
        "search in float32, scores in bfloat16": {"dtype": "bfloat16", "search_dtype": "float32"},
        "another format": {"format": PairFormat(template="<hl> {text}", window=32)},
        "a cache and a budget, which change no score": {"cache": "signature-cache", "token_budget": 1000},
    }
    qags: dict[str, dict[str, Any]] = {
        "default": {},
        "max_questions 5": {"max_questions": 5},
        "max_per_answer 2": {"max_per_answer": 2},
        "exact": {"exact": True},
        "num_candidates 3": {"num_candidates": 3},
        "another search": {"beam_width": 4, "hypotheses": 3, "min_question_tokens": 2, "max_question_tokens": 16},
        "expanded": {"sharing": "expanded"},
        "bfloat16": {"dtype": "bfloat16"},
        "another format": {"format": QuestionFormat(window=32)},
        "another reading": {
            "reader_config": dataclasses.replace(QagsConfig().reader_config, stride=64, null_threshold=1.5)
        },
        "a budget, which changes no score": {"token_budget": 1000},
    }
    found: dict[str, dict[str, str]] = {"quals": {}, "qags": {}}
    for name, settings in quals.items():
        found["quals"][name] = normalized(QualsScorer(QualsConfig("bart", device="cpu", **settings)).signature)
    finder = None
    for name, settings in qags.items():
        scorer = QagsScorer(QagsConfig("generator", reader="reader", device="cpu", **settings), finder=finder)
        finder = scorer.finder
        found["qags"][name] = normalized(scorer.signature)
    embedded = QualsScorer(QualsConfig(device="cpu"))
    found["quals"]["embedded"] = normalized(embedded.signature)
    answer = QualsScorer(QualsConfig(device="cpu", tokens="answer", max_pairs=5), model=embedded.model)
    found["quals"]["embedded, tokens answer, max_pairs 5"] = normalized(answer.signature)
    found["qags"]["embedded"] = normalized(QagsScorer(QagsConfig(device="cpu"), finder=finder).signature)
    return found


# --- Cache keys --------------------------------------------------------------------------------------------------


def environment(*folders: str) -> dict[str, str]:
    """What stored numbers depend on beside our code. Where it differs, they are not compared."""
    names = ("torch", "transformers", "tokenizers", "spacy")
    versions = {name: importlib.import_module(name).__version__.partition("+")[0] for name in names}
    return versions | {"quals-metric": __version__} | {folder: fingerprint(Path(folder)) for folder in folders}


def cache_environment() -> dict[str, str]:
    """The same for the keys of a cache, which have the build of torch in them too."""
    return environment("bart") | {"torch": metadata.version("torch")}


def cache_keys() -> dict[str, Any]:
    """The keys in the cache's database after one scoring: their number and a digest."""
    with tempfile.TemporaryDirectory() as folder:
        scorer = QualsScorer(QualsConfig("bart", cache=folder, **SEARCH))
        scorer.score(summaries=SUMMARIES, sources=SOURCES)
        with contextlib.closing(sqlite3.connect(Path(folder) / "cache.db")) as database:
            keys = sorted(bytes(key) for (key,) in database.execute("SELECT key FROM Cache"))
    digest = hashlib.sha256(b"".join(keys)).hexdigest()
    return {"environment": cache_environment(), "keys": {"number": len(keys), "digest": digest}}


# --- Files and output of the command line ------------------------------------------------------------------------


def quals(*arguments: str) -> str:
    """What a command prints. It runs in this process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the toys cannot ask about every text
        result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, f"quals {' '.join(arguments)}\n{result.output}\n{result.exception!r}"
    return result.stdout


MODEL_OPTIONS = {
    "quals": ("--metric", "quals", "--model", "bart"),
    "qags": ("--metric", "qags", "--model", "generator", "--reader", "reader"),
}
FEW = {"quals": ("--max-pairs", "2"), "qags": ("--max-questions", "2")}


def _inputs(folder: Path) -> None:
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    with (folder / "in.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)


def _read(path: Path) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """A score file's columns with their types, in order, and its rows."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert all(list(row) == list(rows[0]) for row in rows)
        return [[name, json.dumps(shape([row[name] for row in rows])[0])] for name in rows[0]], rows
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    return [[field.name, str(field.type)] for field in table.schema], table.to_pylist()


def score_files() -> dict[str, Any]:
    """The files that `quals score` writes: columns, types, values, and the fields of what lies beside them."""
    found: dict[str, Any] = {"environment": environment("bart", "generator", "reader")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _inputs(folder)
        for metric, options in MODEL_OPTIONS.items():
            all_options = (*options, *FEW[metric], "--device", "cpu", "--json")
            first = None
            for source, ending in (("jsonl", "jsonl"), ("csv", "jsonl"), ("jsonl", "parquet"), ("csv", "parquet")):
                output = folder / f"{metric}-{source}.{ending}"
                command = ("score", str(folder / f"in.{source}"), "-o", str(output), *all_options)
                printed = json.loads(quals(*command, "--pairs", "--keep"))
                about = json.loads(Path(f"{output}.meta.json").read_text(encoding="utf-8"))
                columns, rows = _read(output)
                beside = sorted(path.name for path in folder.iterdir() if path.name.startswith(output.name))
                section = {"columns": columns, "files": beside, "meta": shape(about), "printed": shape(printed)}
                found[f"{metric}: .{source} to .{ending}"] = section
                if first is None:
                    section["rows"] = first = rounded(rows)
                same = [row | {"id": int(row["id"])} for row in rounded(rows)]  # a CSV file has texts only
                assert not list(differences(same, first)), "all four files must say the same"
            short = folder / f"{metric}-short.jsonl"
            quals("score", str(folder / "in.jsonl"), "-o", str(short), *all_options)
            found[f"{metric}: without --pairs and --keep"] = {"columns": _read(short)[0]}
    return found


def command_output() -> dict[str, Any]:
    """The keys and types of what the commands print with --json, and of the pairs of a study."""
    found: dict[str, Any] = {}
    texts = ("--source", tiny.CORPUS[0], "--summary", tiny.CORPUS[0])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _inputs(folder)
        for metric, options in MODEL_OPTIONS.items():
            explained = json.loads(quals("explain", *texts, "--device", "cpu", "--json", *options))
            found[f"explain: {metric}"] = shape(explained)
            both = json.loads(quals("explain", *texts, "--summary", "Perth", "--device", "cpu", "--json", *options))
            found[f"explain, labels: {metric}"] = [part["label"] for part in both["summaries"]]
            shown = json.loads(quals("demo", "--json", *options))
            for part in shown["summaries"]:  # the toys ask little about the examples: `explain` has the questions
                part.pop("pairs" if metric == "quals" else "questions")
            found[f"demo: {metric}"] = shape(shown)
            score = ("score", str(folder / "in.jsonl"), *options, "--device", "cpu", "--keep")
            for system in "ab":
                quals(*score, "-o", str(folder / f"{metric}-{system}.jsonl"))
            files = [str(folder / f"{metric}-{system}.jsonl") for system in "ab"]
            quick = ("--resamples", "20", "--trials", "20")
            found[f"compare: {metric}"] = shape(json.loads(quals("compare", *files, "--json", *quick)))
        found["models"] = shape(json.loads(quals("models", "--json")))
    return found


# --- The command line's options ----------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _type_name(kind: Any) -> str:
    return kind.__name__ if get_origin(kind) is None else str(kind)  # type: ignore[no-any-return]


def _parameter(parameter: Any) -> dict[str, Any]:
    """What a parameter of a command takes, its prose left out."""
    declared = parameter.type_descriptor
    kind, limits = declared.annotation, declared.parameter_info
    choices: list[Any] = []
    if isinstance(kind, type) and issubclass(kind, Enum):
        choices = [choice.value for choice in kind]
    elif get_origin(kind) is Literal:
        choices = list(get_args(kind))
    described = {
        "strings": [*parameter.opts, *parameter.secondary_opts],
        "type": "choice" if choices else _type_name(kind),
        "metavar": parameter.metavar,
        "required": parameter.required,
        "default": _plain(parameter.default),
        "flag": bool(getattr(parameter, "is_flag", False)),
        "several": bool(parameter.multiple) or parameter.nargs != 1,
    }
    if choices:
        described["choices"] = choices
    if kind in (int, float):
        described |= {"min": limits.min, "max": limits.max}
    if kind is Path:
        described |= {name: getattr(limits, name) for name in ("exists", "file_okay", "dir_okay", "readable")}
    return described


def options() -> dict[str, Any]:
    """The arguments and options of every command, by the words that call it."""
    found: dict[str, Any] = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        parameters = {parameter.name: _parameter(parameter) for parameter in command.params}
        arguments = [parameter.name for parameter in command.params if parameter.param_type_name == "argument"]
        helps = [option for option in ("-h", "--help") if quals(*words[1:], option)]
        found[" ".join(words)] = {"parameters": parameters, "arguments in order": arguments, "help": helps}
        for name, part in getattr(command, "commands", {}).items():
            walk(part, (*words, name))

    walk(typer.main.get_command(app), ("quals",))
    return found


# --- Public names ------------------------------------------------------------------------------------------------


def _default(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _call(function: Callable[..., Any]) -> dict[str, Any]:
    """The parameters of a callable by kind and default, and the order of the positional ones."""
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop("self", None)
    described = {}
    for name, parameter in parameters.items():
        kind = parameter.kind.description
        described[name] = kind if parameter.default is parameter.empty else f"{kind} = {_default(parameter.default)}"
    return {"positional": [name for name in described if described[name].startswith("positional")], "all": described}


def _members(kind: type) -> list[str]:
    """The public methods and properties that a class has from our packages."""
    bases = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in OURS]
    fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
    names = {name for base in bases for name in vars(base) if not name.startswith("_")}
    return sorted(names - fields - UNDOCUMENTED)


def public_names() -> dict[str, Any]:
    """`__all__` of the packages, how every name in it is called, and the members of the classes.

    The fields of results are in order. Those of a configuration are not, but for the first: they may be inherited.
    """
    with stand_ins.integration("inspect_ai"), stand_ins.integration("lighteval"):
        found = {package: _names_of(package) for package in PACKAGES}
    for scorer in (QualsScorer, QagsScorer):
        found[f"{scorer.__name__}.score"] = _call(scorer.score)
    return found


def _names_of(package: str) -> dict[str, Any]:
    module = importlib.import_module(package)
    found: dict[str, Any] = {"__all__": sorted(module.__all__)}
    for name in module.__all__:
        value = getattr(module, name)
        if not callable(value):
            continue
        described = _call(value)
        if name in CONFIGURATIONS:
            del described["positional"][1:]
        elif dataclasses.is_dataclass(value):
            described["fields"] = [field.name for field in dataclasses.fields(value)]
        if isinstance(value, type):
            described["members"] = _members(value)
        found[name] = described
    return found


# --- Results -----------------------------------------------------------------------------------------------------


def results() -> dict[str, Any]:
    """The keys of evaluate's dict, and the readings of the scorers' results."""
    found: dict[str, Any] = {}
    texts = {"predictions": SUMMARIES, "sources": SOURCES}
    search = {name: value for name, value in SEARCH.items() if name != "device"} | {"strength": 0.5}
    quals_options = search | {"max_pairs": 2, "tokens": "answer"}
    qags_options = {
        "num_candidates": 3, "beam_width": 4, "hypotheses": 3, "min_question_tokens": 3, "max_question_tokens": 16,
        "max_questions": 2, "max_per_answer": 1, "exact": False,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as cache:
        metrics: list[tuple[str, Any, str, dict[str, Any]]] = [
            ("quals", Quals(model="bart", device="cpu", cache_dir=cache), "return_pairs", quals_options),
            ("qags", Qags(model="generator", reader="reader", device="cpu", cache_dir=cache), "return_questions",
             qags_options),
        ]  # fmt: skip
        for name, metric, switch, overrides in metrics:
            found[f"{name}.compute"] = shape(metric.compute(**texts))
            found[f"{name}.compute, {switch}"] = shape(metric.compute(**texts, **{switch: True}))
            overridden = metric.compute(**texts, **overrides)
            found[f"{name}.compute, all options given"] = normalized(overridden["signature"])
            with pytest.raises(TypeError):
                metric.compute(**texts, no_such_option=1)
            metric.add_batch(predictions=SUMMARIES[:1], sources=SOURCES[:1])
            found[f"{name}.compute, after add_batch"] = shape(metric.compute())
    scorers: list[tuple[str, Any]] = [
        ("quals", QualsScorer(QualsConfig("bart", **SEARCH))),
        ("qags", QagsScorer(QagsConfig("generator", reader="reader", device="cpu"))),
    ]
    for name, scorer in scorers:
        result = scorer.score(summaries=SUMMARIES, sources=SOURCES)
        readings = {key: type(getattr(result, key)).__name__ for key in ("score", "score_01", "scores", "num_undefined",
                    "num_windowed_summaries", "num_windowed_sources", "signature", "summaries")}  # fmt: skip
        frame = result.to_pandas()
        found[f"{name} result"] = {
            "readings": readings,
            "of a summary": {key: type(getattr(result.summaries[0], key)).__name__ for key in ("score", "score_01",
                             "note", "pairs" if name == "quals" else "questions")},
            "to_dict": shape(result.to_dict()),
            "to_dict, without pairs": shape(result.to_dict(pairs=False)),
            "to_pandas": list(frame.columns),
            "to_pandas, with pairs": list(result.to_pandas(pairs=True).columns),
            "notes": [summary.note for summary in result.summaries],
        }  # fmt: skip
        assert math.isnan(result.scores[2]) and result.num_undefined >= 1
    return found


# --- Scores of the embedded models -------------------------------------------------------------------------------


def embedded_rows(result: Any) -> list[dict[str, Any]]:
    """Of every summary of a result: its score, the number of its questions, and the first one."""
    return [
        {"score": round(each.score, 6), "questions": len(each.items), "first": each.items[0].question}
        for each in result.summaries
    ]


def embedded() -> dict[str, Any]:
    """Scores of the demo's examples; `test_embedded.py` of each metric compares them."""
    texts = {
        "summaries": [text for example in EXAMPLES for text in (example.faithful, example.unfaithful)],
        "sources": [example.source for example in EXAMPLES for _ in range(2)],
    }
    scorers = {"quals": QualsScorer(), "qags": QagsScorer()}
    return {name: embedded_rows(scorer.score(**texts)) for name, scorer in scorers.items()}


# --- The tests ---------------------------------------------------------------------------------------------------

SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "signatures": signatures,
    "cache_keys": cache_keys,
    "score_files": score_files,
    "command_output": command_output,
    "options": options,
    "public_names": public_names,
    "results": results,
    "embedded": embedded,
}
OF_THEIR_OWN = ("cache_keys", "embedded")  # sections that other tests compare


def make_toys(folder: Path) -> Path:
    """The toy models of both metrics, in one folder."""
    tiny.trained(folder / "bart")
    qags_toys.generator(folder / "generator")
    qags_toys.reader(folder / "reader")
    return folder


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toys(tmp_path_factory.mktemp("toys"))


def _check(section: str, toys: Path) -> None:
    golden = json.loads((GOLDEN / f"{section}.json").read_text(encoding="utf-8"))
    with contextlib.chdir(toys):
        observed = json.loads(json.dumps(SECTIONS[section]()))
    if golden.pop("environment", None) != observed.pop("environment", None):
        for part in (*golden.values(), *observed.values()):
            part.pop("rows", None)
    found = list(differences(observed, golden))
    assert not found, "\n".join([*found, f"if this is meant: python -m tests.test_pins --write {section}"])


@pytest.mark.parametrize("section", [name for name in SECTIONS if name not in OF_THEIR_OWN])
def test_is_as_pinned(section: str, toys: Path) -> None:
    _check(section, toys)


def test_cache_keys_are_as_pinned(toys: Path) -> None:
    """A cache that was filled before is still found. Where the keys must change, the cache's version must change."""
    golden = json.loads((GOLDEN / "cache_keys.json").read_text(encoding="utf-8"))
    with contextlib.chdir(toys):
        here = cache_environment()
    if here != golden["environment"]:
        pytest.skip(f"the keys are pinned for {golden['environment']}; here is {here}")
    _check("cache_keys", toys)


def _counted(folder: Path, cache: Path, **settings: Any) -> tuple[list[float], Counter[str]]:
    """Scores with a cache, and how many inputs the model searched from and how many targets it scored."""
    scorer = QualsScorer(QualsConfig(str(folder), cache=cache, **{**SEARCH, **settings}))
    work: Counter[str] = Counter()
    for model in {id(model): model for model in (scorer.model, scorer.searcher)}.values():
        generate, log_likelihood = model.generate, model.log_likelihood

        def counting_generate(inputs: Any, *rest: Any, generate: Any = generate, **named: Any) -> Any:
            work["searched"] += len(inputs)
            return generate(inputs, *rest, **named)

        def counting_log_likelihood(items: Any, log_likelihood: Any = log_likelihood) -> Any:
            work["scored"] += sum(len(item.targets) for item in items)
            return log_likelihood(items)

        model.generate, model.log_likelihood = counting_generate, counting_log_likelihood  # type: ignore[method-assign, assignment]
    return scorer.score(summaries=SUMMARIES, sources=SOURCES).scores, work


WRITER = """
import json, sys
from quals_metric import QualsConfig, QualsScorer
model, cache, settings, texts = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:])
scorer = QualsScorer(QualsConfig(model, cache=cache, **settings))
print(json.dumps(scorer.score(**texts).to_dict(pairs=False)))
"""


def test_a_cache_that_another_process_wrote_is_hit(toys: Path, tmp_path: Path, run_python: Callable[..., Any]) -> None:
    cache = tmp_path / "cache"
    texts = json.dumps({"summaries": SUMMARIES, "sources": SOURCES})
    written = run_python("-c", WRITER, str(toys / "bart"), str(cache), json.dumps(SEARCH | {"max_pairs": 2}), texts)
    assert written.returncode == 0, written.stderr
    expected = [row["score"] for row in json.loads(written.stdout)["summaries"]]
    scores, work = _counted(toys / "bart", cache, max_pairs=2)
    assert not work
    assert [None if math.isnan(score) else score for score in scores] == expected
    assert not _counted(toys / "bart", cache, max_pairs=2, token_budget=500)[1]  # what changes no score shares
    assert not _counted(toys / "bart", cache, max_pairs=2, dtype="float32")[1]  # the default, by its name
    assert not _counted(toys / "bart", cache, max_pairs=1, tokens="answer")[1]
    more = _counted(toys / "bart", cache, max_pairs=10)[1]
    assert more["searched"] == 0 and more["scored"] > 0  # only the pairs that were not kept before
    assert not _counted(toys / "bart", cache, max_pairs=10)[1]
    other_search = _counted(toys / "bart", cache, groups=29)[1]
    assert other_search["searched"] == 3 and other_search["scored"] < more["scored"]


@pytest.fixture(scope="module")
def filled(toys: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Counter[str]]:
    """A cache that one scoring filled, and what that took."""
    cache = tmp_path_factory.mktemp("filled") / "cache"
    work = _counted(toys / "bart", cache)[1]
    assert work["searched"] == 3 and work["scored"] > 5
    return cache, work


@pytest.mark.parametrize(
    "settings",
    [{"format": PairFormat(template="<hl> {text}")}, {"format": PairFormat(question_prefix="Question:")}],
)
def test_a_cache_is_not_hit_by_another_format(
    settings: dict[str, Any], toys: Path, filled: tuple[Path, Counter[str]]
) -> None:
    cache, _ = filled
    work = _counted(toys / "bart", cache, **settings)[1]
    assert work["searched"] == 3
    assert not _counted(toys / "bart", cache, **settings)[1]


def test_a_search_in_another_type_is_searched_anew(toys: Path, filled: tuple[Path, Counter[str]]) -> None:
    cache, _ = filled
    work = _counted(toys / "bart", cache, search_dtype="bfloat16")[1]
    assert work["searched"] == 3
    assert not _counted(toys / "bart", cache, search_dtype="bfloat16")[1]


def test_a_cache_is_not_hit_by_other_weights_in_the_same_folder(toys: Path, tmp_path: Path) -> None:
    """The files are as large and as old as before: only their content tells."""
    folder, cache = tmp_path / "bart", tmp_path / "cache"
    shutil.copytree(toys / "bart", folder)
    before = _counted(folder, cache)[1]
    file = folder / "model.safetensors"
    times = file.stat()
    weights = load_file(file)
    weights["final_logits_bias"] = weights["final_logits_bias"] + 0.001
    save_file(weights, file, {"format": "pt"})
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _counted(folder, cache)[1] == before


def main(arguments: list[str]) -> None:
    """Write the golden files of the named sections, or of all."""
    if not arguments or arguments[0] != "--write" or not set(arguments[1:]) <= set(SECTIONS):
        raise SystemExit(f"usage: python -m tests.test_pins --write [{'|'.join(SECTIONS)} ...]")
    logging.disable(logging.WARNING)
    GOLDEN.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(make_toys(Path(folder))):
        for section in arguments[1:] or SECTIONS:
            text = json.dumps(SECTIONS[section](), indent=1, ensure_ascii=False)
            (GOLDEN / f"{section}.json").write_text(text + "\n", encoding="utf-8")
            print(f"wrote {GOLDEN / section}.json")


if __name__ == "__main__":
    main(sys.argv[1:])
