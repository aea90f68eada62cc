"""One page per file; common.py holds what pages share, charts.py builds figures, forms.py the inputs of Plan."""
