"""What this machine can do at most: record.py keeps it, measure.py measures it (with torch).

core.machine.calibrate is the face that others import.
"""
