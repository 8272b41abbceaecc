"""Summaries by a model's own `generate`, against calling it plainly, one document at a time."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from quals_metric.training import GenerationSettings, generate_summaries
from quals_metric.training.examples import TextEncoder
from tests import tiny
from tests.quals_metric.training.callback_toys import gpt2

TEXTS = [tiny.CORPUS[0], "Klitschko", tiny.CORPUS[3], tiny.CORPUS[1]]


@pytest.mark.parametrize("name", ["bart", "bart-bpe", "t5", "marian", "encoder-decoder"])
@pytest.mark.parametrize("beams", [1, 3])
def test_encoder_decoders(name: str, beams: int) -> None:
    model, tokenizer = tiny.checkpoint(name)
    found = generate_summaries(
        model, tokenizer, TEXTS, GenerationSettings(max_new_tokens=8, num_beams=beams, batch_size=3)
    )
    model.eval()
    for text, summaries in zip(TEXTS, found, strict=True):
        ids = tokenizer([text], return_tensors="pt")["input_ids"]
        plain = model.generate(ids, max_new_tokens=8, num_beams=beams, do_sample=False)
        assert summaries == [tokenizer.decode(plain[0], skip_special_tokens=True).strip()]
    assert len({summary for summaries in found for summary in summaries}) > 1


def test_decoder_only_models() -> None:
    """The prompt is padded on the left and cut off, though the tokenizer has no padding token and pads on the right."""
    model, tokenizer = gpt2()
    model.train()
    texts = ["Klitschko", "Anthony Joshua beat Wladimir Klitschko.", "a bridge", "Beyoncé O'Neill"]
    settings = GenerationSettings(max_new_tokens=8, template="{text} TL;DR:", batch_size=4)
    found = generate_summaries(model, tokenizer, texts, settings)
    assert model.training and tokenizer.pad_token is None and tokenizer.padding_side == "right"
    model.eval()
    for text, summaries in zip(texts, found, strict=True):
        ids = torch.tensor([tokenizer(f"{text} TL;DR:")["input_ids"][:-1]])  # without the end that the toy puts there
        plain = model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=2, attention_mask=ids * 0 + 1)
        assert summaries == [tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True).strip()]
    assert len({summary for summaries in found for summary in summaries}) > 1


def test_21_b12_virtual_tokens_take_positions() -> None:
    """A prompt-tuned encoder-decoder (PEFT) puts trained vectors before the input."""
    model, tokenizer = tiny.checkpoint("bart-bpe")
    generate, widths = model.generate, []

    def generate_prompt_tuned(*, input_ids: torch.Tensor, attention_mask: torch.Tensor, **more: Any) -> torch.Tensor:
        text = model.get_input_embeddings()(input_ids)
        embeds = torch.cat([torch.zeros(len(text), 6, text.shape[2]), text], dim=1)
        mask = torch.cat([torch.ones(len(text), 6, dtype=torch.long), attention_mask], dim=1)
        widths.append(embeds.shape[1])
        return generate(inputs_embeds=embeds, attention_mask=mask, **more)

    positions = model.config.max_position_embeddings
    model.generate = generate_prompt_tuned
    model.active_peft_config = SimpleNamespace(num_virtual_tokens=6, peft_type="PROMPT_TUNING")
    settings = GenerationSettings(max_new_tokens=4)
    generate_summaries(model, tokenizer, [tiny.CORPUS[0] * 50], settings)
    assert widths == [positions]
    with pytest.raises(ValueError, match=r"prompt or prefix tuning .* of the type PROMPT_TUNING\. Use .* LoRA"):
        TextEncoder(model, tokenizer)


@pytest.mark.parametrize("kind", ["decoder-only", "encoder-decoder"])
def test_a_long_document_loses_its_end_and_the_template_nothing(kind: str) -> None:
    model, tokenizer = gpt2() if kind == "decoder-only" else tiny.checkpoint("bart-bpe")
    seen: list[torch.Tensor] = []
    generate = model.generate

    def watch(**inputs: Any) -> torch.Tensor:
        seen.append(inputs["input_ids"])
        return generate(**inputs)

    model.generate = watch
    document = " ".join(f"Joshua beat {i}" for i in range(60))
    generate_summaries(model, tokenizer, [document], GenerationSettings(max_new_tokens=8, template="{text} TL;DR:"))
    (ids,) = seen[0].tolist()
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert len(ids) == (64 - 8 if kind == "decoder-only" else 64)
    assert text.startswith("Joshua beat 0 Joshua beat 1") and text.endswith("TL;DR:")
    assert document.startswith(text.removesuffix(" TL;DR:"))


def test_special_tokens_in_a_document_are_text() -> None:
    model, tokenizer = tiny.checkpoint("bart")
    seen: list[torch.Tensor] = []
    model.generate = lambda **inputs: seen.append(inputs["input_ids"]) or torch.zeros((1, 1), dtype=torch.long)  # type: ignore[func-returns-value]
    generate_summaries(model, tokenizer, ["a [SEP] b"])
    assert seen[0][0].tolist().count(tokenizer.sep_token_id) == 1


def test_samples_do_not_depend_on_batches_or_the_run() -> None:
    model, tokenizer = tiny.checkpoint("bart")
    settings = GenerationSettings(max_new_tokens=8, do_sample=True, top_k=50, num_return_sequences=6, seed=4)
    whole = generate_summaries(model, tokenizer, TEXTS, settings)
    torch.rand(17)
    assert generate_summaries(model, tokenizer, TEXTS[2:], settings, seeds=[2, 3]) == whole[2:]
    assert all(len(set(samples)) > 3 for samples in whole) and whole[0] != whole[1]
    assert generate_summaries(model, tokenizer, TEXTS[2:], settings, seeds=[7, 3])[0] != whole[2]
    twice = generate_summaries(model, tokenizer, [TEXTS[0]] * 2, settings)
    assert twice[0] != twice[1]


def test_the_models_own_settings_hold() -> None:
    """A model that would sample or stop early by itself: not sampled, its beams kept, 20 tokens not the end."""
    model, tokenizer = tiny.checkpoint("t5")
    own = model.generation_config
    own.do_sample, own.temperature, own.top_p, own.num_beams, own.max_length = True, 0.3, 0.9, 2, 5
    before = own.to_dict()
    seen: list[Any] = []
    generate = model.generate
    model.generate = lambda **inputs: seen.append(inputs["generation_config"]) or generate(**inputs)  # type: ignore[func-returns-value]
    first = generate_summaries(model, tokenizer, TEXTS, GenerationSettings(max_new_tokens=8))
    assert first == generate_summaries(model, tokenizer, TEXTS, GenerationSettings(max_new_tokens=8))
    assert (seen[0].num_beams, seen[0].do_sample, seen[0].max_new_tokens, seen[0].use_cache) == (2, False, 8, True)
    assert model.generation_config is own and own.to_dict() == before
    generate_summaries(model, tokenizer, TEXTS[:1], GenerationSettings(max_new_tokens=3, more={"min_new_tokens": 3}))


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was(fails: bool) -> None:
    model, tokenizer = tiny.checkpoint("bart")
    model.train()
    model.config.use_cache = False
    if fails:
        model.generate = lambda **_: 1 / 0
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    saved = tokenizer.backend_tokenizer.to_str()
    try:
        generate_summaries(model, tokenizer, TEXTS, GenerationSettings(max_new_tokens=4, do_sample=True))
    except ZeroDivisionError:
        assert fails
    assert model.training and model.config.use_cache is False and torch.is_grad_enabled()
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert tokenizer.backend_tokenizer.to_str() == saved


def test_default_length_fits_the_positions() -> None:
    for model, tokenizer in (tiny.checkpoint("bart"), gpt2()):  # 64 positions
        assert len(generate_summaries(model, tokenizer, [TEXTS[0]])) == 1


def test_no_documents() -> None:
    assert generate_summaries(*tiny.checkpoint("bart"), []) == []


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"batch_size": 0}, "batch_size: must be an integer of at least 1; got 0"),
        ({"max_new_tokens": 2.5}, "max_new_tokens: must be an integer"),
        ({"template": "summarize:"}, "template: must contain"),
        ({"num_return_sequences": 6}, "needs do_sample=True or as many beams"),
    ],
)
def test_bad_settings(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        GenerationSettings(**settings)


def test_no_room() -> None:
    model, tokenizer = tiny.checkpoint("bart")
    with pytest.raises(ValueError, match="must leave room for a document beside the template's"):
        generate_summaries(model, tokenizer, TEXTS, GenerationSettings(max_source_tokens=2))
    with pytest.raises(ValueError, match="must fit in the decoder's 64 positions; got 64"):
        generate_summaries(model, tokenizer, TEXTS, GenerationSettings(max_new_tokens=64))
    with pytest.raises(ValueError, match="one per document; got 1 for 4"):
        generate_summaries(model, tokenizer, TEXTS, seeds=[1])
