"""What the code of a function loads and stores: chains of names, read off its bytecode."""

from __future__ import annotations

import dis
import types
from typing import Any

DEPTH = 6  # containers in containers are compared so far
Chain = tuple[str, str, tuple[tuple[str, Any], ...]]  # kind of root, its name, steps


class Code:
    """What the code of a function loads and stores."""

    __slots__ = ("inner", "loads", "names", "stores", "watches_all")

    def __init__(self, code: types.CodeType):
        self.inner = {c for c in code.co_consts if isinstance(c, types.CodeType)}
        arguments = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + 2])
        self.names = all_names(code)
        self.watches_all = bool({"getattr", "vars", "hasattr", "setattr"} & set(code.co_names))
        # and whether what it leads to is used as a whole
        loads: dict[tuple[Chain, bool], None] = {}
        stores: dict[Chain, None] = {}
        aliases: dict[str, set[Chain]] = {}
        # a local name stands for the chains assigned to it; those may start at others
        for _ in range(3):
            before = len(loads), sum(map(len, aliases.values()))
            _Scan(arguments, aliases, loads, stores).run(code)
            if before == (len(loads), sum(map(len, aliases.values()))):
                break
        self.loads, self.stores = tuple(loads), tuple(stores)


codes: dict[types.CodeType, Code] = {}
_KEEPS = frozenset(
    ("CACHE", "PRECALL", "PUSH_NULL", "RESUME", "COPY", "EXTENDED_ARG", "NOP", "KW_NAMES")
)


class _Scan:
    """One pass over the instructions of a code, which notes the chains that are loaded and
    stored."""

    def __init__(
        self,
        arguments: set[str],
        aliases: dict[str, set[Chain]],
        loads: dict[tuple[Chain, bool], None],
        stores: dict[Chain, None],
    ):
        self.arguments, self.aliases, self.loads, self.stores = arguments, aliases, loads, stores
        self.now: list[Chain] = []  # chains that the value on top may have come from
        self.last: list[Chain] = []  # those of the value below
        self.constant: Any = _NONE  # the value above them both, if it is a name or a number
        # what ``owner.name += 1`` stores to, which was copied before it was read
        self.held: list[Chain] = []
        self.swapped = False  # whether what was copied is on top again

    def run(self, code: types.CodeType) -> None:
        """Go through a code."""
        for ins in dis.get_instructions(code):
            name = ins.opname
            if name == "COPY":
                self.held = self.now if ins.arg == 1 or self.constant is not _NONE else self.last
            if name in _KEEPS:
                continue
            if name == "SWAP":
                self.swapped = True
                continue
            if self.swapped and name in ("STORE_ATTR", "STORE_SUBSCR"):
                self.now = self.last = self.held
            self.swapped = False
            is_item = name == "BINARY_SUBSCR" or (name == "BINARY_OP" and ins.argrepr == "[]")
            if self.constant is not _NONE and self._took_constant(name, is_item):
                continue
            if is_item:
                self._element()
            elif not self._load(name, ins.argval) and not self._store(name, ins.argval):
                self._push([])
        self._end()

    def _end(self) -> None:
        for chain in self.now:
            self.loads[chain, True] = None

    def _push(self, chains: list[Chain]) -> None:
        self._end()
        self.last, self.now = self.now, chains

    def _took_constant(self, name: str, is_item: bool) -> bool:
        """An entry that is read or stored under a constant; else that is a value like others."""
        constant, self.constant = self.constant, _NONE
        if is_item:
            self.now = _further(self.now, "item", constant)
        elif name == "STORE_SUBSCR":
            self._note_stores(self.now, "item", constant)
            self.now = []
        else:
            self._push([])
            return False
        return True

    def _element(self) -> None:
        self._end()
        self.now, self.last = _further(self.last, "each", None, DEPTH), []

    def _load(self, name: str, value: Any) -> bool:
        if name in ("LOAD_GLOBAL", "LOAD_NAME"):
            self._push([("global", value, ())])
        elif name in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_CLOSURE"):
            self._push([("cell", value, ())])
        elif name.startswith("LOAD_FAST"):
            # some versions load two at once
            for n in value if isinstance(value, tuple) else (value,):
                roots: list[Chain] = [("local", n, ())] if n in self.arguments else []
                self._push([*roots, *self.aliases.get(n, ())])
        elif name in ("LOAD_ATTR", "LOAD_METHOD") and self.now:
            self.now = _further(self.now, "attr", value)
        elif name == "LOAD_CONST" and self.now and isinstance(value, (str, int)):
            self.constant = value
        elif name in ("GET_ITER", "UNPACK_SEQUENCE") and self.now:
            self._end()
            self.now = _further(self.now, "each", None, DEPTH)
        else:
            return name == "FOR_ITER"  # what follows stores an element
        return True

    def _store(self, name: str, value: Any) -> bool:
        if name == "STORE_FAST":
            self._end()
            if self.now:
                self.aliases.setdefault(value, set()).update(
                    c for c in self.now if len(c[2]) < DEPTH
                )
            self.last = []
            return True
        if name in ("STORE_ATTR", "DELETE_ATTR"):
            self._note_stores(self.now, "attr", value)
        elif name in ("STORE_GLOBAL", "STORE_DEREF"):
            self._end()
            self.stores["global" if name == "STORE_GLOBAL" else "cell", value, ()] = None
        elif name in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            self._note_stores(self.last, "each", None)
            self._end()
        else:
            return False
        self.last, self.now = [], []
        return True

    def _note_stores(self, chains: list[Chain], step: str, key: Any) -> None:
        self.stores.update(dict.fromkeys(_further(chains, step, key)))


_NONE: Any = object()


def _further(chains: list[Chain], step: str, key: Any, limit: int = 1 << 30) -> list[Chain]:
    """Chains shorter than `limit` with one more step."""
    return [
        (kind, root, (*steps, (step, key))) for kind, root, steps in chains if len(steps) < limit
    ]


def all_names(code: types.CodeType) -> set[str]:
    return set(code.co_names).union(
        *[all_names(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    )
