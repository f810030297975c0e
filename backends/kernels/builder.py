"""Writing kernels: statements one after another, in blocks that `with` opens."""

from __future__ import annotations

from graphtorch.ir.dtype import DType, boolean

from .ir import (
    Assign,
    Barrier,
    Buffer,
    Call,
    Const,
    Expr,
    Fail,
    For,
    If,
    Kernel,
    KType,
    Let,
    Name,
    Operand,
    Ref,
    Scratch,
    Stmt,
    Store,
    Stream,
    Var,
    While,
    as_expr,
    binary,
    load,
    warp_reduce,
)


class Builder:
    """Appends statements to nested blocks; `with b.loop(...) as i:` opens a loop.

    Names are made unique, so golden texts stay readable: ``i``, ``i_1``, ``i_2``, ...
    """

    def __init__(self) -> None:
        self.body: list[Stmt] = []
        self._blocks = [self.body]
        self._names: dict[str, int] = {}

    def fresh(self, hint: str) -> str:
        count = self._names.get(hint, -1) + 1
        name = hint if count == 0 else f"{hint}_{count}"
        while name in self._names and name != hint:  # it was itself a hint
            count += 1
            name = f"{hint}_{count}"
        self._names[hint] = count
        self._names.setdefault(name, 0)
        return name

    def emit(self, stmt: Stmt) -> None:
        self._blocks[-1].append(stmt)

    @property
    def depth(self) -> int:
        """Number of blocks around the next statement; 0 in the kernel's body."""
        return len(self._blocks) - 1

    def is_open(self, block: list[Stmt]) -> bool:
        """Whether statements of `block` dominate the next statement."""
        return any(b is block or getattr(b, "target", None) is block for b in self._blocks)

    def block(self, depth: int) -> list[Stmt]:
        """The open block at nesting depth `depth`."""
        block = self._blocks[depth]
        return block.target if isinstance(block, _Ahead) else block

    def hoisted(self, depth: int) -> Block:
        """Statements emitted inside go to the open block at `depth`, ahead of the loop open in
        it."""
        block = self.block(depth)
        if block is self.block(self.depth):
            return Block(self, self._blocks[self.depth], None)
        return Block(self, _Ahead(block), None)

    def loop(
        self, hi: Operand, kind: str = "serial", name: str = "i", lo: Operand = 0, step: Operand = 1
    ) -> Block:
        var = Name(self.fresh(name))
        stmt = For(var, as_expr(lo), as_expr(hi), as_expr(step), kind)
        self.emit(stmt)
        return Block(self, stmt.body, var)

    def block_loop(
        self, hi: Operand, threads: int, name: str = "block", resident: int = 0
    ) -> Block:
        """The body is run by a block of `threads` threads for each iteration. `resident`: as
        `For` has it."""
        opened = self.loop(hi, "block", name)
        stmt = self._blocks[-1][-1]
        assert isinstance(stmt, For)
        stmt.threads, stmt.resident = threads, resident
        return opened

    def when(self, condition: Expr) -> Block:
        """The block that runs where `condition` holds."""
        stmt = If(condition)
        self.emit(stmt)
        return Block(self, stmt.then, None)

    def otherwise(self) -> Block:
        """The else block of the `when` just closed."""
        stmt = self._blocks[-1][-1]
        assert isinstance(stmt, If), "otherwise() follows the block of when()"
        return Block(self, stmt.orelse, None)

    def repeat(self, condition: Expr) -> Block:
        """The block that runs as long as `condition`, an expression of registers, holds."""
        stmt = While(condition)
        self.emit(stmt)
        return Block(self, stmt.body, None)

    def let(self, value: Operand, name: str = "t") -> Expr:
        expr = as_expr(value)
        if isinstance(expr, (Const, Name)):
            return expr
        label = Name(self.fresh(name), expr.type)
        self.emit(Let(label, expr))
        return label

    def var(self, value: Expr, name: str = "acc") -> Name:
        label = Name(self.fresh(name), value.type)
        self.emit(Var(label, value))
        return label

    def assign(self, name: Name, value: Expr) -> None:
        self.emit(Assign(name, value))

    def store(self, buffer: Buffer, index: Operand, value: Expr, mask: Expr | None = None) -> None:
        self.emit(Store(buffer, as_expr(index), value, mask))

    def stream(self, buffer: Buffer, index: Operand, count: Operand, source: Buffer) -> None:
        self.emit(Stream(buffer, as_expr(index), as_expr(count), source))

    def scratch(self, dtype: DType, size: int, name: str = "s") -> Buffer:
        buffer = Buffer(self.fresh(name), dtype, "readwrite", 64)
        self.emit(Scratch(buffer, size))
        return buffer

    def shared(self, dtype: DType, size: int, name: str = "s", align: int = 16) -> Buffer:
        """Memory that the threads of a block share, at a multiple of `align` bytes."""
        buffer = Buffer(self.fresh(name), dtype, "readwrite", align)
        self.emit(Scratch(buffer, size, "shared"))
        return buffer

    def barrier(self) -> None:
        self.emit(Barrier())

    def block_reduce(self, op: str, value: Expr, threads: int) -> Expr:
        """`value` of all threads of a block combined by `op` in each of them, in a fixed order.

        It stands in a block loop of `threads` threads, outside of its thread loops. Where another
        loop is around it, a barrier has to follow before it comes round again.
        """
        mine = self.let(warp_reduce(op, value), "warp")
        warps = threads // 32
        if warps == 1:
            return mine
        held = self.shared(value.type.dtype, warps, "warps")
        with self.loop(threads, "thread", "t") as thread, self.when(binary("eq", thread % 32, 0)):
            self.store(held, thread // 32, mine)
        self.barrier()
        total = self.let(load(held, 0), "total")
        for warp in range(1, warps):
            total = self.let(binary(op, total, load(held, warp)), "total")
        return total

    def call(self, kernel: Kernel, *args: Ref | Expr) -> None:
        self.emit(Call(kernel, args))

    def fail(self, site: Operand) -> None:
        self.emit(Fail(as_expr(site)))


class _Ahead(list):  # type: ignore[type-arg]
    """Stands for a block whose last statement is still open: new statements go in front of it."""

    def __init__(self, target: list[Stmt]):
        super().__init__()
        self.target = target

    def append(self, stmt: Stmt) -> None:
        self.target.insert(len(self.target) - 1, stmt)


class Block:
    """An open block of a `Builder`: statements emitted inside ``with`` go there."""

    def __init__(self, builder: Builder, body: list[Stmt], var: Name | None):
        self._builder = builder
        self._body = body
        self._var = var

    def __enter__(self) -> Expr:
        self._builder._blocks.append(self._body)
        return self._var if self._var is not None else Const(True, KType(boolean))

    def __exit__(self, *exc: object) -> None:
        self._builder._blocks.pop()
