"""Ask, answer and score questions with Hugging Face models, fast; names no metric.

- `models`: loads, searches and scores with an encoder-decoder or a decoder-only model; reads answers with a reader
- `decoding`: diverse beam search, beam search and sampling over a step function
- `tokenization`: texts as data: ids with offsets, a long text as overlapping windows, padded rows of ids
- `formats`, `presets`: how a checkpoint reads a text and writes a question; the known checkpoints
- `batching`, `distributed`: batches by token budget, on one process or spread over many
- `cache`: results kept on disk
- `answer_candidates`: the names and noun phrases of a text
- `significance`: bootstrap and randomization
- `metric_base`, `evaluate_metric`: what every metric is: options, results, its key and signature; its face for evaluate
- `lazy`: public names that cost nothing until they are used

Importing this package imports none of them.
"""

__version__ = "0.1.0"  # of the distribution, quals-metric
