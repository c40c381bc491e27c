"""Vectors while a kernel is written: their arithmetic writes LLVM's instructions, so that formulas read as formulas."""

# ruff: noqa: ANN401 (LLVM's values have no types in Python)

from __future__ import annotations

from typing import Any, Self

from llvmlite import binding, ir
from numba.core import cgutils as untyped_cgutils
from numba.core.errors import TypingError

cgutils: Any = untyped_cgutils

LANES = 16 if binding.get_host_cpu_features().get("avx512f", False) else 8
"""Floats that are computed together: a vector register's, or two narrow ones'."""

_ROUNDS = LANES == 16 and binding.get_host_cpu_features().get("avx512bf16", False)
"""Whether an instruction rounds a whole vector to bfloat16; it takes the smallest numbers (below 1e-38) for zero."""

INDEX, INT, FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
_HALF = ir.IntType(16)
_FUSED = ("contract",)
"""A product and a sum may be one operation."""


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"


class Vector:
    """Numbers in float32, one in each lane."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: Self) -> Vector:
        return Vector(self.builder, self.builder.fadd(self.value, other.value, flags=_FUSED))

    def __sub__(self, other: Self) -> Vector:
        return Vector(self.builder, self.builder.fsub(self.value, other.value, flags=_FUSED))

    def __mul__(self, other: Self) -> Vector:
        return Vector(self.builder, self.builder.fmul(self.value, other.value, flags=_FUSED))

    def __rmul__(self, factor: float) -> Vector:
        kind = self.value.type
        factors = ir.Constant(kind, [factor] * kind.count)
        return Vector(self.builder, self.builder.fmul(factors, self.value, flags=_FUSED))


class Memory:
    """Reads and writes vectors of so many ``lanes``: whole ones, or where there is a ``mask`` the lanes it names."""

    def __init__(self, context: Any, builder: Any, lanes: int = LANES, mask: Any = None) -> None:
        self.context, self.builder, self.lanes, self.mask = context, builder, lanes, mask
        self.kind = ir.VectorType(FLOAT, lanes)

    def address(self, kind: Any, array: Any, *indices: Any) -> Any:
        """Of an element of an array of this ``kind``, which is Numba's.

        Raises:
            TypingError: its elements may have gaps between them, while the kernel is compiled.
        """
        if kind.layout != "C":
            raise TypingError(f"vectors are read from contiguous memory, not from {kind}")
        made = self.context.make_array(kind)(self.context, self.builder, array)
        return cgutils.get_item_pointer(self.context, self.builder, kind, made, indices)

    def scalar(self, pointer: Any) -> Vector:
        """One float in every lane."""
        return Vector(self.builder, splat(self.builder, self.builder.load(pointer, align=4), self.lanes))

    def load(self, pointer: Any) -> Vector:
        """Floats; zeros in lanes that the mask leaves out."""
        pointer = self.builder.bitcast(pointer, self.kind.as_pointer())
        if self.mask is None:
            return Vector(self.builder, self.builder.load(pointer, align=4))
        zeros = ir.Constant(self.kind, [0.0] * self.lanes)
        load = self._masked("load", self.kind, [pointer.type, INT, self.mask.type, self.kind])
        return Vector(self.builder, self.builder.call(load, [pointer, ir.Constant(INT, 4), self.mask, zeros]))

    def store(self, vector: Vector, pointer: Any) -> None:
        """Write floats; lanes that the mask leaves out stay as they are."""
        pointer = self.builder.bitcast(pointer, self.kind.as_pointer())
        if self.mask is None:
            self.builder.store(vector.value, pointer, align=4)
            return
        store = self._masked("store", ir.VoidType(), [self.kind, pointer.type, INT, self.mask.type])
        self.builder.call(store, [vector.value, pointer, ir.Constant(INT, 4), self.mask])

    def load_bits(self, pointer: Any) -> Vector:
        """Bits of bfloat16, the upper half of a float32."""
        halves, words = ir.VectorType(_HALF, self.lanes), ir.VectorType(INT, self.lanes)
        bits = self.builder.load(self.builder.bitcast(pointer, halves.as_pointer()), align=2)
        raised = self.builder.shl(self.builder.zext(bits, words), self._all(words, 16))
        return Vector(self.builder, self.builder.bitcast(raised, self.kind))

    def store_bits(self, vector: Vector, pointer: Any) -> None:
        """The nearest bfloat16, ties to even."""
        halves, words = ir.VectorType(_HALF, self.lanes), ir.VectorType(INT, self.lanes)
        if _ROUNDS and self.lanes == LANES:
            upper = self.builder.fptrunc(vector.value, ir.VectorType(_BFloat(), self.lanes))
            self.builder.store(upper, self.builder.bitcast(pointer, upper.type.as_pointer()), align=2)
            return
        bits = self.builder.bitcast(vector.value, words)
        odd = self.builder.and_(self.builder.lshr(bits, self._all(words, 16)), self._all(words, 1))
        raised = self.builder.add(self.builder.add(bits, self._all(words, 0x7FFF)), odd)
        upper = self.builder.trunc(self.builder.lshr(raised, self._all(words, 16)), halves)
        self.builder.store(upper, self.builder.bitcast(pointer, halves.as_pointer()), align=2)

    def _all(self, kind: Any, number: int) -> Any:
        return ir.Constant(kind, [number] * self.lanes)

    def _masked(self, name: str, returned: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(returned, arguments)
        return cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.masked.{name}.v{self.lanes}f32.p0")


def splat(builder: Any, scalar: Any, lanes: int = LANES) -> Any:
    """LLVM's vector whose lanes are all ``scalar``."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT, lanes), [0] * lanes))


def plus(builder: Any, index: Any, offset: int) -> Any:
    """An index further on."""
    return builder.add(index, ir.Constant(INDEX, offset))
