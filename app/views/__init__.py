"""One page per file; common.py and pick.py hold what pages share, charts.py builds figures."""
