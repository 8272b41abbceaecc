"""The base of every metric.

- `options`: fields of a configuration, with help and checks
- `texts`: the check of summaries, sources and passages
- `question_scorer`: the base of every scorer
- `results`: scored summaries and corpora
- `key`: everything that a number depends on; the signature

These files are fast to import: they import neither torch nor transformers.
"""
