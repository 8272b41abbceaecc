"""Scoring files: rows are read, scored in shards and written, whatever happens on the way."""
