"""The cache of a search: the same keys and values as one that is made anew at every step, in memory that is reused."""

from __future__ import annotations

import random

import torch

from qa_inference.models.shared_rows import new_cache

LAYERS, HEADS, WIDTH = 3, 2, 4


def test_rows_that_part_end_and_grow_keep_what_they_have() -> None:
    """Against the library's way: concatenate, and index."""
    draw = random.Random(5)
    torch.manual_seed(5)
    for _ in range(20):
        cache, expected = new_cache().self_attention_cache, [[torch.empty(0)] * 2 for _ in range(LAYERS)]
        rows = draw.randint(1, 3)
        for step in range(30):
            new = torch.randn(LAYERS, 2, rows, HEADS, draw.choice((1, 1, 1, 3)), WIDTH)
            for layer, both in enumerate(expected):
                found = cache.update(*new[layer], layer)
                both[:] = [
                    torch.cat([old, fresh], 2) if step else fresh for old, fresh in zip(both, new[layer], strict=True)
                ]
                assert all(torch.equal(one, other) for one, other in zip(found, both, strict=True))
            if draw.random() < 0.6:
                indices = torch.tensor([draw.randrange(rows) for _ in range(draw.randint(1, 40))])
                cache.batch_select_indices(indices)
                rows, expected = len(indices), [[states[indices] for states in both] for both in expected]
                for layer, both in zip(cache.layers, expected, strict=True):
                    assert torch.equal(layer.keys, both[0]) and torch.equal(layer.values, both[1])


def test_memory_is_handed_on() -> None:
    """What stays below its largest size takes a block for each part, and one to copy into."""
    cache, held = new_cache().self_attention_cache, []
    rows = 40
    for fewer in (30, 20, 10, 25, 5):
        for layer in range(LAYERS):
            cache.update(*torch.zeros(2, rows, HEADS, 1, WIDTH), layer)
        cache.batch_select_indices(torch.zeros(fewer, dtype=torch.long))
        rows = fewer
        # held, so that no other block can come to lie where one was
        held += [states for layer in cache.layers for states in (layer.keys, layer.values)]
    assert len({states.untyped_storage().data_ptr() for states in held}) <= 2 * LAYERS + 1


def test_layers_of_unlike_types_do_not_share() -> None:
    cache = new_cache().self_attention_cache
    for step in range(12):
        for layer, dtype in enumerate((torch.float32, torch.bfloat16)):
            keys, _ = cache.update(*torch.full((2, 3, HEADS, 1, WIDTH), step, dtype=dtype), layer)
            assert keys.dtype == dtype and keys[0, 0, :, 0].tolist() == list(range(step + 1))
        cache.batch_select_indices(torch.tensor([2, 1, 0]))
