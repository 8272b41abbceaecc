"""Models that write, score and answer questions."""
