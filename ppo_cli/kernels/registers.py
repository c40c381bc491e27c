"""Blocks of a matrix that stay in registers, in LLVM's own language: the compiler's loops put sums back into memory.

A block has `ROWS` rows of two vectors, `COLUMNS` floats: eight sums that do not wait for each other, as many as the
smallest set of vector registers holds beside what is added to them.
"""

# ruff: noqa: ANN401 (LLVM's values have no types in Python)

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils as untyped_cgutils

from ppo_cli.kernels.compiled import in_llvm

cgutils: Any = untyped_cgutils

LANES = 16 if binding.get_host_cpu_features().get("avx512f", False) else 8
"""Floats that are computed together: a vector register's, or two narrow ones'."""

ROWS, COLUMNS = 4, 2 * LANES

_INDEX, _INT, _FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()
_VECTOR, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_ALIGNMENT = 4
_FUSED = ("contract",)
"""A product and a sum may be one operation."""


def _constant(value: int) -> Any:
    return ir.Constant(_INDEX, value)


def _splat(builder: Any, scalar: Any, kind: Any) -> Any:
    """A vector whose lanes are all ``scalar``."""
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INTS, [0] * LANES))


class _Memory:
    """Reads and writes vectors: whole ones, or where there is a ``mask`` the lanes that it names."""

    def __init__(self, context: Any, builder: Any, mask: Any = None) -> None:
        self.context, self.builder, self.mask = context, builder, mask

    def address(self, kind: Any, array: Any, *indices: Any) -> Any:
        """Of an element, as a pointer to a vector."""
        made = self.context.make_array(kind)(self.context, self.builder, array)
        pointer = cgutils.get_item_pointer(self.context, self.builder, kind, made, indices)
        return self.builder.bitcast(pointer, _VECTOR.as_pointer())

    def scalar(self, kind: Any, array: Any, index: Any) -> Any:
        """One float in every lane."""
        pointer = self.builder.bitcast(self.address(kind, array, index), _FLOAT.as_pointer())
        return _splat(self.builder, self.builder.load(pointer, align=_ALIGNMENT), _VECTOR)

    def load(self, pointer: Any) -> Any:
        """A vector; zeros in lanes that the mask leaves out."""
        if self.mask is None:
            return self.builder.load(pointer, align=_ALIGNMENT)
        zeros, size = ir.Constant(_VECTOR, [0.0] * LANES), ir.Constant(_INT, _ALIGNMENT)
        return self.builder.call(self._masked("load", _VECTOR, zeros.type), [pointer, size, self.mask, zeros])

    def store(self, vector: Any, pointer: Any) -> None:
        """Write a vector; lanes that the mask leaves out stay as they are."""
        if self.mask is None:
            self.builder.store(vector, pointer, align=_ALIGNMENT)
            return
        size = ir.Constant(_INT, _ALIGNMENT)
        self.builder.call(self._masked("store", ir.VoidType()), [vector, pointer, size, self.mask])

    def _masked(self, name: str, returned: Any, *last: Any) -> Any:
        first = [] if last else [_VECTOR]
        kind = ir.FunctionType(returned, [*first, _VECTOR.as_pointer(), _INT, self.mask.type, *last])
        return cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.masked.{name}.v{LANES}f32.p0")


def _adder(rows: int, vectors: int, *, is_end: bool) -> Any:
    """A function that adds a product to a block of ``rows`` and ``vectors``."""

    def add(
        typing_context: Any, out: Any, i: Any, j: Any, end: Any, coefficients: Any, at: Any, row: Any, column: Any,
        x: Any, inner: Any,
    ) -> Any:  # fmt: skip
        """out[i + r, j:] += sum_p coefficients[at + r * row + p * column] x[p, j:], in a block's rows and columns.

        At the end of the rows, columns from ``end`` on are left alone.
        """
        kinds = (out, *[types.int64] * 3, coefficients, *[types.int64] * 3, x, types.int64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, i, j, end, coefficients, at, row, column, x, inner = arguments
            mask = None
            if is_end:
                left = builder.trunc(builder.sub(end, j), _INT)
                mask = builder.icmp_signed("<", ir.Constant(_INTS, list(range(LANES))), _splat(builder, left, _INTS))
            memory = _Memory(context, builder, mask)
            starts = [builder.add(j, _constant(v * LANES)) for v in range(vectors)]
            places = [
                memory.address(signature.args[0], out, builder.add(i, _constant(r)), start)
                for r in range(rows)
                for start in starts
            ]
            sums = [cgutils.alloca_once_value(builder, memory.load(place)) for place in places]
            with cgutils.for_range(builder, inner, intp=_INDEX) as loop:
                xs = [memory.load(memory.address(signature.args[8], x, loop.index, start)) for start in starts]
                at_inner = builder.add(at, builder.mul(loop.index, column))
                for r in range(rows):
                    index = builder.add(at_inner, builder.mul(row, _constant(r)))
                    factor = memory.scalar(signature.args[4], coefficients, index)
                    for total, vector in zip(sums[r * vectors : (r + 1) * vectors], xs, strict=True):
                        product = builder.fmul(factor, vector, flags=_FUSED)
                        builder.store(builder.fadd(builder.load(total), product, flags=_FUSED), total)
            for total, place in zip(sums, places, strict=True):
                memory.store(builder.load(total), place)
            return context.get_dummy_value()

        return types.void(*kinds), generate

    return in_llvm(add)


add_block = _adder(ROWS, 2, is_end=False)
add_row = _adder(1, 2, is_end=False)
add_block_end = _adder(ROWS, 1, is_end=True)
add_row_end = _adder(1, 1, is_end=True)


@in_llvm
def transpose_block(typing_context: Any, x: Any, i: Any, j: Any, out: Any) -> Any:
    """out[j:, i:] = x[i:, j:]^T for `LANES` rows and columns."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, i, j, out = arguments
        memory = _Memory(context, builder)
        rows = [
            memory.load(memory.address(signature.args[0], x, builder.add(i, _constant(r)), j)) for r in range(LANES)
        ]
        step = 1
        while step < LANES:  # swaps the off-diagonal quarters of all blocks of 2 * step rows and columns
            above = [lane if not lane & step else lane - step + LANES for lane in range(LANES)]
            below = [lane + step if not lane & step else lane + LANES for lane in range(LANES)]
            swapped = list(rows)
            for r in range(LANES):
                if not r & step:
                    pair = rows[r], rows[r + step]
                    swapped[r] = builder.shuffle_vector(*pair, ir.Constant(_INTS, above))
                    swapped[r + step] = builder.shuffle_vector(*pair, ir.Constant(_INTS, below))
            rows, step = swapped, 2 * step
        for r, vector in enumerate(rows):
            memory.store(vector, memory.address(signature.args[3], out, builder.add(j, _constant(r)), i))
        return context.get_dummy_value()

    return types.void(x, types.int64, types.int64, out), generate
