"""Tests. Time decides nothing in them: waits end on events, and clocks are injected."""

# Seconds after which a process that hangs is ended. Load must never reach it.
PATIENCE = 1800
