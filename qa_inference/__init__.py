"""Ask, answer and score questions with Hugging Face models, fast; names no metric.

- `decoding`: diverse beam search, beam search and sampling over a step function
- `rows`: which rows a search runs, and the hypotheses they become
- `likelihood`: teacher-forced token log-probabilities
- `attention`: cross-attention that shares one source among many rows
- `engine`, `spread`: batches by token budget, on one process or spread over many
- `tokenization`: texts as data, with offsets
- `formats`, `presets`: how a checkpoint writes a question, with its answer or to a given one; known checkpoints
- `pretrained`: a model and its tokenizer, loaded
- `seq2seq`, `causal`: an encoder-decoder, or a decoder-only model, that generates and scores
- `reader`, `spans`: the answer to a question, in a text
- `cache`: results kept on disk
- `windows`: a long text as overlapping windows
- `results`, `resampling`: what the results of the metrics share; bootstrap and randomization
- `options`: what callers ask for, checked
- `lazy`: public names that cost nothing until they are used

Importing this package imports none of them.
"""

__version__ = "0.1.0"  # of the distribution, quals-metric
