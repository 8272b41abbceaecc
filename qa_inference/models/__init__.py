"""Models that write, score and answer questions.

- `loading`: loads a checkpoint, and finds its special tokens and its limit of positions
- `devices`, `memory`: which device and dtype, and whether the weights fit
- `inference`: an operation in the model's own numeric types, with checked ids and numbers
- `projection`: from hidden states to log-probabilities of tokens
- `shared_rows`: many rows over one source: targets to score, rows of a search, their memory
- `encoder_decoder`, `decoder_only`: `generate` and `log_likelihood` of the two kinds of generators
- `_shared_prefix`: the attention of a decoder-only model over a shared prefix
- `reader`: extractive question answering
"""
