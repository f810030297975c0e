"""Writes at positions that are data: scatter, scatter_add, index_put and the gradient of a max pool."""
