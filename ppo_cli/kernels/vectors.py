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
_FLOATS, _WORDS, _HALVES = (ir.VectorType(kind, LANES) for kind in (FLOAT, INT, ir.IntType(16)))
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
        if _HAS_BFLOAT:
            pairs = ir.VectorType(_BFLOAT, 2 * LANES)
            kind = ir.FunctionType(_FLOATS, [_FLOATS, pairs, pairs])
            dot = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.x86.avx512bf16.dpbf16ps.512")
            both = [self.builder.bitcast(vector.value, pairs) for vector in (x, y)]
            return Vector(self.builder, self.builder.call(dot, [self.value, *both]))
        (x_even, x_odd), (y_even, y_odd) = x.unpaired(), y.unpaired()
        return self + x_odd * y_odd + x_even * y_even

    def unpaired(self) -> tuple[Vector, Vector]:
        """The first and the second bfloat16 of each lane."""
        bits = self.builder.bitcast(self.value, _WORDS)
        lower, upper = self.builder.shl(bits, _all(_WORDS, 16)), self.builder.and_(bits, _all(_WORDS, 0xFFFF0000))
        even, odd = (self.builder.bitcast(half, _FLOATS) for half in (lower, upper))
        return Vector(self.builder, even), Vector(self.builder, odd)

    def unless_negative(self) -> Vector:
        """Zero where negative; NaN stays."""
        zeros = _all(_FLOATS, 0.0)
        is_negative = self.builder.fcmp_ordered("<", self.value, zeros)
        return Vector(self.builder, self.builder.select(is_negative, zeros, self.value))

    def where_positive(self, other: Vector) -> Vector:
        """Zero where ``other`` is not positive."""
        zeros = _all(_FLOATS, 0.0)
        is_positive = self.builder.fcmp_ordered(">", other.value, zeros)
        return Vector(self.builder, self.builder.select(is_positive, self.value, zeros))

    def __rmul__(self, factor: float) -> Vector:
        return Vector(self.builder, self.builder.fmul(_all(_FLOATS, factor), self.value, flags=_FUSED))


class Memory:
    """Reads and writes vectors: whole ones, or where there is a ``mask`` the lanes it names."""

    def __init__(self, context: Any, builder: Any, mask: Any = None) -> None:
        self.context, self.builder, self.mask = context, builder, mask

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
        return Vector(self.builder, splat(self.builder, self.builder.load(pointer, align=4)))

    def load(self, pointer: Any) -> Vector:
        """Floats; zeros in lanes that the mask leaves out."""
        pointer = self.builder.bitcast(pointer, _FLOATS.as_pointer())
        if self.mask is None:
            return Vector(self.builder, self.builder.load(pointer, align=4))
        zeros = _all(_FLOATS, 0.0)
        load = self._masked("load", _FLOATS, [pointer.type, INT, self.mask.type, _FLOATS])
        return Vector(self.builder, self.builder.call(load, [pointer, ir.Constant(INT, 4), self.mask, zeros]))

    def store(self, vector: Vector, pointer: Any) -> None:
        """Write floats; lanes that the mask leaves out stay as they are."""
        pointer = self.builder.bitcast(pointer, _FLOATS.as_pointer())
        if self.mask is None:
            self.builder.store(vector.value, pointer, align=4)
            return
        store = self._masked("store", ir.VoidType(), [_FLOATS, pointer.type, INT, self.mask.type])
        self.builder.call(store, [vector.value, pointer, ir.Constant(INT, 4), self.mask])

    def load_bits(self, pointer: Any) -> Vector:
        """Bits of bfloat16, the upper half of a float32."""
        bits = self.builder.load(self.builder.bitcast(pointer, _HALVES.as_pointer()), align=2)
        raised = self.builder.shl(self.builder.zext(bits, _WORDS), _all(_WORDS, 16))
        return Vector(self.builder, self.builder.bitcast(raised, _FLOATS))

    def store_bits(self, vector: Vector, pointer: Any) -> None:
        """The nearest bfloat16, ties to even."""
        bits = self._rounded(vector)
        self.builder.store(bits, self.builder.bitcast(pointer, bits.type.as_pointer()), align=2)

    def store_pairs(self, even: Vector, odd: Vector, pointer: Any) -> None:
        """The nearest bfloat16 of two vectors, side by side in each lane."""
        lanes = [lane + number * LANES for lane in range(LANES) for number in range(2)]
        order = ir.Constant(ir.VectorType(INT, 2 * LANES), lanes)
        bits = self.builder.shuffle_vector(self._rounded(even), self._rounded(odd), order)
        self.builder.store(bits, self.builder.bitcast(pointer, bits.type.as_pointer()), align=4)

    def _rounded(self, vector: Vector) -> Any:
        if _HAS_BFLOAT:
            return self.builder.bitcast(self.builder.fptrunc(vector.value, ir.VectorType(_BFLOAT, LANES)), _HALVES)
        bits = self.builder.bitcast(vector.value, _WORDS)
        odd = self.builder.and_(self.builder.lshr(bits, _all(_WORDS, 16)), _all(_WORDS, 1))
        raised = self.builder.add(self.builder.add(bits, _all(_WORDS, 0x7FFF)), odd)
        return self.builder.trunc(self.builder.lshr(raised, _all(_WORDS, 16)), _HALVES)

    def _masked(self, name: str, returned: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(returned, arguments)
        return cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.masked.{name}.v{LANES}f32.p0")


def splat(builder: Any, scalar: Any) -> Any:
    """LLVM's vector whose lanes are all ``scalar``."""
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(INT, 0))
    return builder.shuffle_vector(first, undefined, _all(_WORDS, 0))


def _all(kind: Any, number: float) -> Any:
    return ir.Constant(kind, [number] * LANES)


def plus(builder: Any, index: Any, offset: int) -> Any:
    """An index further on."""
    return builder.add(index, ir.Constant(INDEX, offset))
