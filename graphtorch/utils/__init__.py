"""Helpers around tensors and modules: data loading, hooks."""
