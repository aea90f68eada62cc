"""One trial's process, its limits and its end, for whoever runs trials: the supervisor, or a study
without it. Knows no store.
"""
