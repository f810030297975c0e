"""Types that TorchScript knows, by the names under which older programs import them."""

from typing import Any, Dict, List, Optional, Tuple, Union  # noqa: UP035

BroadcastingList1 = BroadcastingList2 = BroadcastingList3 = list  # a list, or one number for all its places

__all__ = ["Any", "Dict", "List", "Optional", "Tuple", "Union"]
