"""Programs of the libraries around PyTorch, to run on graphtorch and on PyTorch and compare."""
