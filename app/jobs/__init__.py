"""The supervisor of trials: their processes, limits and ends. Knows no page."""
