"""Every op, by name: ``from graphtorch.ir import ops; ops.add(x, y)``.

Names such as `sum`, `abs` and `all` are ops here, not Python's builtins.
"""

from __future__ import annotations

# ruff: noqa: F403 - each family names its ops in __all__
from .activation import *
from .attention import *
from .binary import *
from .bits import *
from .channels_last import *
from .control import *
from .conv import *
from .draws import *
from .dropped_attention import *
from .elementwise import *
from .factor import *
from .gamma import *
from .index import *
from .linalg import *
from .loss import *
from .mersenne import *
from .narrow import *
from .norm import *
from .pool import *
from .random import *
from .reduce import *
from .require import *
from .shape import *
from .special import *
from .spectral import *
from .update import *
from .vision import *
from .winograd import *
from .words import *
