"""Graphs as CUDA kernels: C text, compiled by NVRTC for a GPU, or by the C++ compiler for the emulated one.

The room is not called ``cuda``: ``torch.backends.cuda`` is a module of flags, which stands at that path.
"""
