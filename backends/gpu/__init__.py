"""Graphs as CUDA kernels: C text, which NVRTC compiles for GPUs, and a C++ compiler for the emulated device.

So far programs run on the emulated device alone: there is none yet that loads NVRTC's code on a GPU, and no
tensor of the front end lives on either. Each element, or row of a reduction, is one thread's.

The room is not called ``cuda``: ``torch.backends.cuda`` is a module of flags, which stands at that path.
"""
