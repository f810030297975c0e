"""Programs written for PyTorch: the import hook, running scripts, names that are absent or old."""
