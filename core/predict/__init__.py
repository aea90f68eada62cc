"""Owns what a plan will probably do, before it runs: times, bytes, cost, and whether it fits at
all.

Every number is an interval from a roofline; nothing here is measured, and quality is never
predicted. Imports no torch.
"""

from core.predict.capacity import fit
from core.predict.estimate import predict
from core.predict.projection import project

__all__ = ["fit", "predict", "project"]
