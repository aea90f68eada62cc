"""Tests of the shape of the code: imports, sizes, contracts and what the README says of them."""
