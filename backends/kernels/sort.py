"""Stable sorting of lines, and binary search in sorted lines."""
