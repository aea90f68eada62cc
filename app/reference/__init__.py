"""The reference study: what was measured on a real GPU and ships with the product, as journals with
a manifest. Until there is one, `data/` is not there.
"""
