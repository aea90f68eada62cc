"""Figures of plotly, drawn from plain data. Imports nothing of the pages."""
