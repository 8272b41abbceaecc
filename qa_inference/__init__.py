"""Ask, answer and score questions with Hugging Face models, fast; names no metric.

- `decoding`: diverse beam search, beam search and sampling over a step function
- `likelihood`: teacher-forced token log-probabilities
- `attention`: cross-attention that shares one source among many rows
- `engine`: batches by token budget, spread over processes
- `tokenization`: texts as data, with offsets
- `formats`: how a checkpoint writes a question and its answer; presets
- `seq2seq`: an encoder-decoder that generates and scores
- `windows`: a long text as overlapping windows
- `results`: what the results of the metrics share

Importing this package imports none of them.
"""
