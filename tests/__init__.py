"""Tests, and in evidence/ the scripts that print the figures which the README states."""
