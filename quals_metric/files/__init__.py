"""Scoring files: rows are read, scored in shards and written, so that no interruption loses more than a shard.

- `tables`: reading rows
- `scored_rows`: writing scored rows
- `durable`: files that appear whole or not at all
- `shards`: a long job in parts
- `scoring`: `score_files`
- `groups`: the means of all rows and of groups of them
- `scored_files`: reading the files that `score_files` wrote
- `compare`: the scores of two or more systems
"""
