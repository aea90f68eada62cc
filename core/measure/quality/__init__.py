"""Quality of the very artefact that was timed, always in pairs with the unchanged model.

measure.py chooses the data; text.py, tasks.py, images.py and lm_eval_adapter.py measure on it;
scores.py is how a model is read. What a difference means is core.statistics.paired's and
core.margin's.
"""
