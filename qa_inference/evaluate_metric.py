"""The base of the metrics' classes for evaluate: it checks the texts and options and calls the scorer.

Importing evaluate takes seconds, so only the metrics' own `metric.py` import this file.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

import datasets
import evaluate

from qa_inference.calibration import calibration_digest
from qa_inference.metric_base.options import (
    ModelOptions,
    Option,
    default_text,
    options_of,
    refuse_unknown,
    with_options,
)
from qa_inference.metric_base.results import CorpusResult
from qa_inference.metric_base.texts import check_passages, texts_of_scorer
from qa_inference.tokenization import without_surrogates

Loaded = TypeVar("Loaded")

_EVALUATE_OPTIONS = set(inspect.signature(evaluate.Metric.__init__).parameters) - {"self", "config_name", "kwargs"}


class QuestionMetric(evaluate.Metric):
    """A metric that asks questions, for `evaluate`. A subclass names its configuration and makes its scorer.

    Its constructor takes a preset's name and, as keywords, the options of its configuration.

    Libraries that know only `predictions` and `references` need `references_are_sources`: the sources are then called
    `references` in every call.
    """

    metric: ClassVar[str]
    config_type: ClassVar[type[ModelOptions]]
    presets: ClassVar[Mapping[str, Any]]
    items_field: ClassVar[str]
    description_text: ClassVar[str]
    citation_text: ClassVar[str]
    reference_url: ClassVar[str]
    examples: ClassVar[str]
    returns: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__doc__ = f"{cls.__doc__}\n\n{_constructor_help(cls.config_type)}"
        cls.__signature__ = _constructor_signature(cls.config_type)  # what inspect and help show

    def __init__(self, config_name: str | None = None, *, references_are_sources: bool = False, **options: Any) -> None:
        if not isinstance(references_are_sources, bool):
            raise TypeError(f"references_are_sources: must be True or False; got {references_are_sources!r}")
        self.sources_name = "references" if references_are_sources else "sources"
        # evaluate ignores options that it does not know, and makes a folder of any `config_name`: check first.
        own = {name: options.pop(name) for name in _evaluate_names(self.config_type) if name in options}
        refuse_unknown(self.metric, options, _EVALUATE_OPTIONS)
        own["model"] = choose_model(self.metric, config_name, own.get("model"), self.presets)
        names = _evaluate_names(self.config_type)
        self.config = with_options(self.config_type(), {names[name]: value for name, value in own.items()})
        super().__init__(config_name=config_name, **options)

    @classmethod
    def make_scorer(cls, config: Any) -> Any:
        """A scorer with `config`. It uses the loaded models of other scorers where it can (`loaded`)."""
        raise NotImplementedError(f"{cls.__name__}.make_scorer: a subclass must define it")

    @classmethod
    def outputs(cls, result: CorpusResult[Any]) -> dict[str, Any]:
        """The dict that `compute` returns for a result, without the questions."""
        return {
            cls.metric: result.score,
            "scores": result.scores,
            f"num_{cls.items_field}": [len(summary.items) for summary in result.summaries],
            "num_undefined": result.num_undefined,
            "num_windowed_summaries": result.num_windowed_summaries,
            "num_windowed_sources": result.num_windowed_sources,
            "signature": result.signature,
        }

    @classmethod
    def compute_help(cls, sources_name: str = "sources") -> str:
        """The help of `compute`: its arguments, results and examples."""
        arguments = [
            "predictions (list of str): the summaries to judge.",
            f"{sources_name} (list of str): for each summary, the text it was written from. Texts may repeat.",
            f"contexts (list of list of str): instead of {sources_name}: for each summary, a list of passages.",
            *(
                _help_line(field.name, field, about)
                for field, about in options_of(cls.config_type)
                if about.is_per_call
            ),
            f"return_{cls.items_field} (bool): also return the questions and answers behind every score.",
            "An option that is None keeps the value it had when the metric was loaded.",
        ]
        return f"\nArgs:\n{_indented(arguments)}\nReturns:\n{cls.returns}Examples:\n\n{cls.examples}"

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.description_text,
            citation=self.citation_text,
            inputs_description=self.compute_help(self.sources_name),
            # A source is stored as the list of its passages. One that is a text is a single passage.
            features=datasets.Features({"predictions": text, self.sources_name: datasets.Sequence(text)}),
            reference_urls=[self.reference_url],
            license="Apache-2.0",
        )

    def _download_and_prepare(self, dl_manager: Any) -> None:
        """Load the models when `evaluate.load` asks for it, so that a wrong name is an error there."""
        loaded(self.make_scorer, self.config, calibration_digest(self.config.calibration))

    def compute(self, **inputs: Any) -> dict[str, Any] | None:
        """Score the summaries that are given here or were added before.

        A wrong option is an error before evaluate closes its file, so the summaries that were added are kept.
        """
        self._check_names(inputs)
        texts = {"predictions", "references", "sources", "contexts", self.sources_name, f"return_{self.items_field}"}
        config = self._configured({name: value for name, value in inputs.items() if name not in texts})
        if self.process_id == 0:  # the process that scores
            loaded(self.make_scorer, config, calibration_digest(config.calibration))
        if self.sources_name == "references":
            inputs.pop("sources", None)  # None, or it was refused above
        if inputs.get("contexts") is not None:  # evaluate has no column of that name, so they are added first
            columns = {name: inputs.pop(name, None) for name in ("predictions", self.sources_name, "contexts")}
            self.add_batch(**columns)
            inputs.pop("references", None)  # of another metric
        inputs.pop("contexts", None)
        computed: dict[str, Any] | None = super().compute(**inputs)
        return computed

    def add_batch(self, *, predictions: Iterable[str] = (), **columns: Any) -> None:
        """Add summaries with their `sources`, or with their `contexts`; `compute()` scores all that were added."""
        self._check_names(columns)
        contexts = columns.pop("contexts", None)
        sources = columns.pop(self.sources_name, () if contexts is None else None)
        super().add_batch(**storable_texts(predictions, sources, contexts, self.sources_name), **columns)

    def add(self, *, prediction: str | None = None, **texts: Any) -> None:
        """Add one summary and its source, or its `contexts`, checked as `add_batch` checks them."""
        self._check_names({"references": texts.get("reference"), **texts})
        name = self.sources_name.replace("references", "reference")  # as evaluate calls a single one
        source, contexts = texts.pop(name, None), texts.pop("contexts", None)
        sources: Any = None if source is None and contexts is not None else [source]  # [None] is refused
        columns = storable_texts(
            [prediction],  # type: ignore[list-item]  # and so is None here
            sources,
            None if contexts is None else [contexts],
            self.sources_name,
        )
        super().add(prediction=columns["predictions"][0], **{name: columns[self.sources_name][0]}, **texts)

    def _check_names(self, columns: Mapping[str, Any]) -> None:
        """Raise ValueError if the sources have the name that this metric does not read."""
        has_sources, has_references, has_contexts = (
            columns.get(name) is not None for name in ("sources", "references", "contexts")
        )
        if self.sources_name == "references" and has_sources:
            raise ValueError(
                f"{self.metric}: sources must not be given, because the metric was loaded with "
                f"references_are_sources=True. Give the sources as references, or load it without that option"
            )
        if self.sources_name == "sources" and has_references and not (has_sources or has_contexts):
            raise ValueError(
                f"{self.metric}: sources must be given: the texts that the summaries were written from. References "
                f"alone are not read. If your references are the sources, load the metric with "
                f"references_are_sources=True"
            )

    def _configured(self, overrides: Mapping[str, Any]) -> ModelOptions:
        """The configuration with the options of a call.

        Raises:
            TypeError: if an option is unknown.
            ValueError: if a value is not allowed, or contradicts another one.
        """
        refuse_unknown(self.metric, overrides, {field.name for field, _ in _per_call(self.config_type)})
        return with_options(self.config, overrides)

    def _compute(self, predictions: Sequence[str], **columns: Any) -> dict[str, Any]:
        passages, overrides = columns.pop(self.sources_name), columns
        with_items = overrides.pop(f"return_{self.items_field}", False)
        config = self._configured(overrides)
        scorer = loaded(self.make_scorer, config, calibration_digest(config.calibration))
        sources = [texts[0] if len(texts) == 1 else texts for texts in passages]
        result = scorer.score(summaries=list(predictions), **texts_of_scorer(sources))
        output = self.outputs(result)
        if result.probabilities is not None:
            output["probabilities"] = result.probabilities
        if with_items:
            output[self.items_field] = [[asdict(item) for item in summary.items] for summary in result.summaries]
        return output


@lru_cache(maxsize=8)
def loaded(load: Callable[[Any], Loaded], options: Any, version: str = "") -> Loaded:
    """The model or scorer that `load` makes from `options`. All metrics of a process share it.

    `version` differs where the same options stand for something else, as when a calibration file was made again.
    """
    return load(options)


def choose_model(metric: str, config_name: str | None, model: str | None, presets: Mapping[str, Any]) -> str:
    """The name of the model: `config_name`, which is a preset, or `model`; "embedded" if both are None.

    Raises ValueError if neither is None, or `config_name` is no preset.
    """
    if config_name in (None, "default"):
        return "embedded" if model is None else model
    if model is not None:
        raise ValueError(
            f"{metric}: give config_name or model, not both; got config_name={config_name!r}, model={model!r}"
        )
    if config_name not in presets:
        raise ValueError(
            f"{metric}: config_name must be a preset ({', '.join(presets)}), got {config_name!r}; "
            f"for a model on the Hub or in a folder use model={config_name!r}"
        )
    return config_name


def storable_texts(
    predictions: Iterable[str],
    sources: Iterable[str] | None,
    contexts: Iterable[Iterable[str]] | None = None,
    sources_name: str = "sources",
) -> dict[str, list[Any]]:
    """The checked summaries and lists of passages under evaluate's names; a source is a single passage.

    They are without lone surrogates, which evaluate's Arrow file cannot hold. evaluate itself checks the first text
    only, and would read a string as a list of its characters.
    """
    summaries, passages = check_passages(predictions, sources, contexts, ("predictions", sources_name))
    return {
        "predictions": [without_surrogates(text) for text in summaries],
        sources_name: [[without_surrogates(text) for text in texts] for texts in passages],
    }


def _per_call(config_type: type[ModelOptions]) -> list[tuple[Any, Option]]:
    """The options that `compute` may override."""
    return [(field, about) for field, about in options_of(config_type) if about.is_per_call]


def _evaluate_names(config_type: type[ModelOptions]) -> dict[str, str]:
    """The options that evaluate has: their names there, each with the name of its field."""
    offered = [(field, about) for field, about in options_of(config_type) if about.evaluate_name is not None]
    return {about.evaluate_name or field.name: field.name for field, about in offered}


def _constructor_signature(config_type: type[ModelOptions]) -> inspect.Signature:
    """`(config_name=None, *, references_are_sources=False, model=None, …, **evaluate_options)`."""
    kinds = inspect.Parameter
    return inspect.Signature(
        [
            kinds("config_name", kinds.POSITIONAL_OR_KEYWORD, default=None),
            kinds("references_are_sources", kinds.KEYWORD_ONLY, default=False),
            *(kinds(name, kinds.KEYWORD_ONLY, default=None) for name in _evaluate_names(config_type)),
            kinds("evaluate_options", kinds.VAR_KEYWORD),
        ]
    )


def _constructor_help(config_type: type[ModelOptions]) -> str:
    """The arguments of a metric's constructor, from the fields of its configuration."""
    fields = {field.name: (field, about) for field, about in options_of(config_type)}
    lines = ['config_name: Preset\'s name; None: "embedded", which needs no network.']
    lines += ["references_are_sources: Read the sources from `references`. Default: False."]
    lines += [_help_line(name, *fields[own]) for name, own in _evaluate_names(config_type).items()]
    lines += ["**evaluate_options: Options of `evaluate.Metric`: keep_in_memory, cache_dir, experiment_id, seed, …"]
    errors = [
        "TypeError: if an option is unknown.",
        "ValueError: if `config_name` is no preset or stands beside a `model`, or an option is out of its range.",
        "ImportError, OSError: on loading or the first `compute`, if a model or the cache cannot be loaded.",
    ]
    return f"Args:\n{_indented(lines)}\n\nRaises:\n{_indented(errors)}\n"


def _help_line(name: str, field: Any, about: Option) -> str:
    default = default_text(field, about)
    return f"{name}: {about.help}" + (f" Default: {default}." if default else "")


def _indented(lines: Sequence[str]) -> str:
    wrapped = (textwrap.fill(line, 110, subsequent_indent="    ", break_on_hyphens=False) for line in lines)
    return textwrap.indent("\n".join(wrapped), "    ")
