"""Ask, answer and score questions with Hugging Face models. This package names no metric.

- `models/`: loads models, generates with them and computes likelihoods; reads answers
- `decoding`: diverse beam search, beam search and sampling over a step function
- `tokenization`: texts as data: ids with offsets, overlapping windows of long texts, padded rows of ids
- `formats`, `presets`: the formats of checkpoints; the known checkpoints
- `batching`, `distributed`: batches by token budget; one map on several processes
- `cache`: results on disk
- `answer_candidates`: the names and noun phrases of a text
- `language`: a guess whether texts are English
- `overlap`: the share of copied n-grams
- `significance`: bootstrap and randomization tests
- `metric_base/`: the options, results, key and signature that all metrics have
- `evaluate_metric`: the class for evaluate that all metrics extend
- `checks`: checks of single values
- `lazy`: names of a package that are imported when they are first used
- `checkpoints/`: the embedded models

Importing this package imports none of them.
"""

__version__ = "0.1.0"  # of the distribution, quals-metric
