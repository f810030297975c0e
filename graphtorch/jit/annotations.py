"""Types that TorchScript knows, by the names under which older programs import them."""

from typing import Any, Dict, List, Optional, Tuple, Union  # noqa: UP035

# a list, or one number for all its places
BroadcastingList1 = BroadcastingList2 = BroadcastingList3 = list

__all__ = ["Any", "Dict", "List", "Optional", "Tuple", "Union"]
