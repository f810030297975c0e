"""``torch.distributed.checkpoint``: names for several processes; using one is an error."""

from __future__ import annotations

from .._torch.absent import attribute_of
from ._parts import parts

globals().update(
    parts(
        "torch.distributed.checkpoint",
        classes="FileSystemReader FileSystemWriter StateDictOptions DefaultLoadPlanner "
        "HuggingFaceStorageReader HuggingFaceStorageWriter",
        functions="load save load_state_dict save_state_dict get_model_state_dict "
        "set_model_state_dict get_optimizer_state_dict set_optimizer_state_dict get_state_dict "
        "consolidate_safetensors_files",
    )
)
__getattr__ = attribute_of(__name__)
