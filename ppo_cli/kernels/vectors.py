"""Vectors while a kernel is written: their arithmetic writes LLVM's instructions, so that formulas read as formulas."""

# ruff: noqa: ANN401 (LLVM's values have no types in Python)

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils as untyped_cgutils
from numba.core.errors import TypingError

cgutils: Any = untyped_cgutils

LANES = 16 if binding.get_host_cpu_features().get("avx512f", False) else 8
"""Floats that are computed together: a vector register's, or two narrow ones'."""

_HAS_BFLOAT = LANES == 16 and binding.get_host_cpu_features().get("avx512bf16", False)
"""Whether instructions round to bfloat16 and multiply it; they take the smallest numbers (below 1e-38) for zero."""

INDEX, INT, FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
_HALF = ir.IntType(16)
_FUSED = ("contract",)
"""A product and a sum may be one operation."""


class _BFloat(ir.Type):  # type: ignore[misc]
    """LLVM's bfloat, which llvmlite does not name."""

    def _to_string(self) -> str:
        return "bfloat"


_BFLOAT = _BFloat()


class Vector:
    """Numbers in float32, one in each lane."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fadd(self.value, other.value, flags=_FUSED))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fsub(self.value, other.value, flags=_FUSED))

    def __mul__(self, other: Vector) -> Vector:
        return Vector(self.builder, self.builder.fmul(self.value, other.value, flags=_FUSED))

    def plus_pairs(self, x: Vector, y: Vector) -> Vector:
        """The products of x and y added, whose lanes hold two bfloat16 each instead of a float32."""
        if _HAS_BFLOAT and self.value.type.count == LANES:
            pairs = ir.VectorType(_BFLOAT, 2 * LANES)
            kind = ir.FunctionType(self.value.type, [self.value.type, pairs, pairs])
            dot = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512")
            both = [self.builder.bitcast(vector.value, pairs) for vector in (x, y)]
            return Vector(self.builder, self.builder.call(dot, [self.value, *both]))
        (x_even, x_odd), (y_even, y_odd) = x.unpaired(), y.unpaired()
        return self + x_odd * y_odd + x_even * y_even

    def unpaired(self) -> tuple[Vector, Vector]:
        """The first and the second bfloat16 of each lane."""
        words = ir.VectorType(INT, self.value.type.count)
        bits = self.builder.bitcast(self.value, words)
        lower = self.builder.shl(bits, ir.Constant(words, [16] * words.count))
        upper = self.builder.and_(bits, ir.Constant(words, [0xFFFF0000] * words.count))
        even, odd = (self.builder.bitcast(half, self.value.type) for half in (lower, upper))
        return Vector(self.builder, even), Vector(self.builder, odd)

    def unless_negative(self) -> Vector:
        """Zero where negative; NaN stays."""
        zeros = ir.Constant(self.value.type, [0.0] * self.value.type.count)
        is_negative = self.builder.fcmp_ordered("<", self.value, zeros)
        return Vector(self.builder, self.builder.select(is_negative, zeros, self.value))

    def where_positive(self, other: Vector) -> Vector:
        """Zero where ``other`` is not positive."""
        zeros = ir.Constant(self.value.type, [0.0] * self.value.type.count)
        is_positive = self.builder.fcmp_ordered(">", other.value, zeros)
        return Vector(self.builder, self.builder.select(is_positive, self.value, zeros))

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
        pointer = self.builder.bitcast(pointer, FLOAT.as_pointer())
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
        bits = self._rounded(vector)
        self.builder.store(bits, self.builder.bitcast(pointer, bits.type.as_pointer()), align=2)

    def store_pairs(self, even: Vector, odd: Vector, pointer: Any) -> None:
        """The nearest bfloat16 of two vectors, side by side in each lane."""
        lanes = [lane + number * self.lanes for lane in range(self.lanes) for number in range(2)]
        order = ir.Constant(ir.VectorType(INT, 2 * self.lanes), lanes)
        bits = self.builder.shuffle_vector(self._rounded(even), self._rounded(odd), order)
        self.builder.store(bits, self.builder.bitcast(pointer, bits.type.as_pointer()), align=4)

    def _rounded(self, vector: Vector) -> Any:
        halves, words = ir.VectorType(_HALF, self.lanes), ir.VectorType(INT, self.lanes)
        if _HAS_BFLOAT and self.lanes == LANES:
            return self.builder.bitcast(self.builder.fptrunc(vector.value, ir.VectorType(_BFLOAT, self.lanes)), halves)
        bits = self.builder.bitcast(vector.value, words)
        odd = self.builder.and_(self.builder.lshr(bits, self._all(words, 16)), self._all(words, 1))
        raised = self.builder.add(self.builder.add(bits, self._all(words, 0x7FFF)), odd)
        return self.builder.trunc(self.builder.lshr(raised, self._all(words, 16)), halves)

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
