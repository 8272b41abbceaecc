"""Toy decoder-only checkpoints, made in code: random weights, a byte-level tokenizer of a few words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from qa_inference.formats import CausalFormat
from qa_inference.tokenization import TextTokenizer
from tests.tiny import CORPUS, PAIRS, WORDS, train

SHARING = ("llama", "gemma2", "gemma3", "gpt2", "qwen2", "qwen3", "cohere")
ARCHITECTURES = (*SHARING, "bloom")

_CHAT = (
    "{{ bos_token }}{% for m in messages %}<turn>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)


def tokenizer(*, chat: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that merges the words of the corpus and, as real ones do, two line breaks."""
    special = ["<s>", "</s>", "<pad>", "<turn>", "<end>"]
    words = (*WORDS, "Text", "Question", "Answer")
    merges = dict.fromkeys(
        (w[:i], w[i]) for word in words if word.isascii() for w in (f"Ġ{word}",) for i in range(1, len(w))
    )
    merges |= dict.fromkeys((w[:i], w[i]) for w in ("Text", "Question", "Answer") for i in range(1, len(w)))
    merges[("Ċ", "Ċ")] = None
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(left + right for left, right in merges)]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    inner = Tokenizer(models.BPE(vocab, list(merges)))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    inner.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    found = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=512
    )
    found.chat_template = _CHAT if chat else None
    return found


def checkpoint(name: str) -> tuple[Any, PreTrainedTokenizerFast]:
    """A toy model and its tokenizer by architecture: the same weights at every call."""
    torch.manual_seed(7)
    made = tokenizer()
    shape: dict[str, Any] = {
        "vocab_size": len(made), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
        "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "tie_word_embeddings": False,
    }  # fmt: skip
    layers = ["sliding_attention", "full_attention", "sliding_attention"]
    if name == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape)), made
    if name == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**shape)), made
    if name == "qwen2":
        shape.pop("head_dim")
        return Qwen2ForCausalLM(Qwen2Config(**shape)), made
    if name == "cohere":  # scales its logits
        shape.pop("head_dim")
        return CohereForCausalLM(CohereConfig(**shape)), made
    if name == "gemma2":  # bends its scores and logits
        config = Gemma2Config(**shape, sliding_window=5, layer_types=layers, final_logit_softcapping=3.0)
        config.attn_logit_softcapping = 2.0
        return Gemma2ForCausalLM(config), made
    if name == "gemma3":  # windows shorter than any prompt
        return Gemma3ForCausalLM(Gemma3TextConfig(**shape, sliding_window=5, layer_types=layers)), made
    if name == "gpt2":
        config = GPT2Config(
            vocab_size=len(made), n_positions=512, n_embd=32, n_layer=3, n_head=4, initializer_range=0.3,
            bos_token_id=0, eos_token_id=1, pad_token_id=2,
        )  # fmt: skip
        return GPT2LMHeadModel(config), made
    if name == "bloom":  # positions from the mask, and an attention function of its own
        config = BloomConfig(
            vocab_size=len(made), hidden_size=32, n_layer=3, n_head=4, initializer_range=0.3,
            bos_token_id=0, eos_token_id=1, pad_token_id=2,
        )  # fmt: skip
        return BloomForCausalLM(config), made
    raise ValueError(name)


def save(name: str, folder: Path) -> Path:
    """Write a toy checkpoint as a `from_pretrained` folder."""
    model, made = checkpoint(name)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


SHORT = CausalFormat(template="Text: {text}\nQuestion:")  # the toys' words are bytes, and their positions few


def trained(folder: Path) -> Path:
    """A toy Llama taught for a few seconds to write the pairs of the corpus in the short format, as a folder."""
    model, made = checkpoint("llama")
    rows = []
    for i, question, answer in PAIRS:
        encoded = SHORT.encode(TextTokenizer(made), CORPUS[i])
        given = [*encoded.head, *encoded.ids, *encoded.tail]
        written = made(f" {question} Answer: {answer}\n", add_special_tokens=False)["input_ids"]
        rows.append((given, written))
    width = max(len(given) + len(written) for given, written in rows)
    ids = torch.tensor([[*given, *written] + [2] * (width - len(given) - len(written)) for given, written in rows])
    hidden = torch.tensor([[-100] * len(given) + [0] * len(written) + [-100] * (width - len(given) - len(written))
                           for given, written in rows])  # fmt: skip
    labels = torch.where(hidden == 0, ids, hidden)
    train(model, {"input_ids": ids, "labels": labels}, 120, mode=True)
    model.save_pretrained(folder)
    made.save_pretrained(folder)
    return folder


def save_gguf(file: Path) -> None:
    """Write the toy Qwen2 as a GGUF file, weights in float32."""
    from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map

    model, made = checkpoint("qwen2")
    config = model.config
    writer = GGUFWriter(file, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    inner = json.loads(made.backend_tokenizer.to_str())
    tokens = sorted(inner["model"]["vocab"], key=inner["model"]["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if index < 5 else 1 for index in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in inner["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)
    names = get_tensor_name_map(MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        stem, _, kind = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{kind}", tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
