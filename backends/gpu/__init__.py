"""Graphs as CUDA kernels: C text, which NVRTC compiles for GPUs, and a C++ compiler for the
emulated device.

devices.py says which devices there are. A device (device.py) is a GPU through CuPy (cupy_device.py)
or the emulated one (emulated.py); compiler.py makes a program of a graph for either, executable.py
calls it. tools/gpu.py compares all of it with NumPy and PyTorch on a machine that has a GPU.

The room is not called ``cuda``: ``torch.backends.cuda`` is a module of flags, which stands at that
path.
"""
