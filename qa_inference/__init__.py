"""Ask, answer and score questions with Hugging Face models, fast; names no metric.

- `decoding`: diverse beam search, beam search and sampling over a step function
- `rows`: which rows a search runs, and the hypotheses they become
- `likelihood`: teacher-forced token log-probabilities
- `attention`: cross-attention that shares one source among many rows
- `engine`, `spread`: batches by token budget, on one process or spread over many
- `tokenization`: texts as data, with offsets
- `formats`: how a checkpoint writes a question, with its answer or to a given one; presets
- `seq2seq`: an encoder-decoder that generates and scores
- `windows`: a long text as overlapping windows
- `results`, `resampling`: what the results of the metrics share; bootstrap and randomization
- `options`: what callers ask for, checked

Importing this package imports none of them.
"""

__version__ = "0.1.0"  # of the distribution, quals-metric
