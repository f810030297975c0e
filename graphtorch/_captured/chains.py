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
        loads: dict[tuple[Chain, bool], None] = {}  # and whether what it leads to is used as a whole
        stores: dict[Chain, None] = {}
        aliases: dict[str, set[Chain]] = {}
        for _ in range(3):  # a local name stands for the chains assigned to it; those may start at others
            before = len(loads), sum(map(len, aliases.values()))
            _scan(code, arguments, aliases, loads, stores)
            if before == (len(loads), sum(map(len, aliases.values()))):
                break
        self.loads, self.stores = tuple(loads), tuple(stores)


codes: dict[types.CodeType, Code] = {}
_KEEPS = frozenset(("CACHE", "PRECALL", "PUSH_NULL", "RESUME", "COPY", "EXTENDED_ARG", "NOP", "KW_NAMES"))


def _scan(
    code: types.CodeType,
    arguments: set[str],
    aliases: dict[str, set[Chain]],
    loads: dict[tuple[Chain, bool], None],
    stores: dict[Chain, None],
) -> None:
    now: list[Chain] = []  # chains that the value on top may have come from
    last: list[Chain] = []  # those of the value below
    constant: Any = None
    has_constant = False

    def end(whole: bool) -> None:
        for chain in now:
            loads[chain, whole] = None

    for ins in dis.get_instructions(code):
        name = ins.opname
        if name in _KEEPS:
            continue
        if has_constant:
            has_constant = False
            if name in ("BINARY_SUBSCR", "STORE_SUBSCR") or (name == "BINARY_OP" and ins.argrepr == "[]"):
                if name == "STORE_SUBSCR":
                    for kind, root, steps in now:
                        stores[kind, root, (*steps, ("item", constant))] = None
                    now = []
                else:
                    now = [(kind, root, (*steps, ("item", constant))) for kind, root, steps in now]
                continue
            end(True)
            last, now = now, []
        if name in ("LOAD_GLOBAL", "LOAD_NAME"):
            end(True)
            last, now = now, [("global", ins.argval, ())]
        elif name in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_CLOSURE"):
            end(True)
            last, now = now, [("cell", ins.argval, ())]
        elif name.startswith("LOAD_FAST"):
            names = ins.argval if isinstance(ins.argval, tuple) else (ins.argval,)
            for n in names:  # some versions load two at once
                end(True)
                roots: list[Chain] = [("local", n, ())] if n in arguments else []
                last, now = now, [*roots, *aliases.get(n, ())]
        elif name in ("LOAD_ATTR", "LOAD_METHOD") and now:
            now = [(kind, root, (*steps, ("attr", ins.argval))) for kind, root, steps in now]
        elif name == "LOAD_CONST" and now and isinstance(ins.argval, (str, int)):
            constant, has_constant = ins.argval, True
        elif name in ("GET_ITER", "UNPACK_SEQUENCE") and now:
            end(True)
            now = [(kind, root, (*steps, ("each", None))) for kind, root, steps in now if len(steps) < DEPTH]
        elif name == "FOR_ITER":
            pass  # what follows stores an element
        elif name == "BINARY_SUBSCR" or (name == "BINARY_OP" and ins.argrepr == "[]"):
            end(True)
            now = [(k, r, (*steps, ("each", None))) for k, r, steps in last if len(steps) < DEPTH]
            last = []
        elif name == "STORE_FAST":
            end(True)
            if now:
                aliases.setdefault(ins.argval, set()).update(c for c in now if len(c[2]) < DEPTH)
            last = []
        elif name in ("STORE_ATTR", "DELETE_ATTR"):
            for kind, root, steps in now:
                stores[kind, root, (*steps, ("attr", ins.argval))] = None
            last, now = [], []
        elif name in ("STORE_GLOBAL", "STORE_DEREF"):
            end(True)
            stores["global" if name == "STORE_GLOBAL" else "cell", ins.argval, ()] = None
            last, now = [], []
        elif name in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            for chain in last:
                stores[(*chain[:2], (*chain[2], ("each", None)))] = None
            end(True)
            last, now = [], []
        else:
            end(True)
            last, now = now, []
    end(True)


def all_names(code: types.CodeType) -> set[str]:
    return set(code.co_names).union(*[all_names(c) for c in code.co_consts if isinstance(c, types.CodeType)])
