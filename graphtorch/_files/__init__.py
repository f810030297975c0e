"""Tensors as files, pickles and shared memory."""
