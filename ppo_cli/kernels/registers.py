"""Blocks of a matrix that stay in registers: the loops of a compiler put their sums back into memory.

A block has `ROWS` rows of two vectors, `COLUMNS` floats: eight sums that do not wait for each other, as many as the
smallest set of vector registers holds beside what is added to them.
"""

# ruff: noqa: ANN401 (LLVM's values have no types in Python)

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from ppo_cli.kernels.compiled import in_llvm
from ppo_cli.kernels.vectors import INDEX, INT, LANES, Memory, Vector, cgutils, plus, splat

ROWS, COLUMNS = 4, 2 * LANES

_INTS = ir.VectorType(INT, LANES)


def _product(rows: int, vectors: int, *, is_end: bool = False) -> Any:
    """A function that computes a product in a block of ``rows`` and ``vectors``."""

    def product(
        typing_context: Any, out: Any, i: Any, j: Any, end: Any, begin: Any, coefficients: Any, at: Any, row: Any,
        column: Any, x: Any, inner: Any,
    ) -> Any:  # fmt: skip
        """out[i + r, j:] = b_r + sum_p coefficients[at + r * row + p * column] x[p, j:], in a block's rows and columns.

        ``begin`` is None, where b_r is out[i + r, j:], or array, offset and stride: array[offset + (i + r) * stride].
        At the end of the rows, columns from ``end`` on are left alone. Where coefficients are integers, they and x are
        pairs of bfloat16, and each product is the sum of two.
        """
        kinds = (out, *[types.int64] * 3, begin, coefficients, *[types.int64] * 3, x, types.int64)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            out, i, j, end, begin, coefficients, at, row, column, x, inner = arguments
            out_kind, begin_kind, coefficients_kind, x_kind = (signature.args[k] for k in (0, 4, 5, 9))
            mask = None
            if is_end:
                left = builder.trunc(builder.sub(end, j), INT)
                mask = builder.icmp_signed("<", ir.Constant(_INTS, list(range(LANES))), splat(builder, left))
            memory = Memory(context, builder, mask=mask)
            has_pairs = coefficients_kind.dtype == types.uint32

            def scalar(kind: Any, array: Any, offset: Any, stride: Any, r: Any) -> Vector:
                return memory.scalar(memory.address(kind, array, builder.add(offset, builder.mul(stride, r))))

            columns = [plus(builder, j, v * LANES) for v in range(vectors)]
            places = [
                memory.address(out_kind, out, plus(builder, i, r), start) for r in range(rows) for start in columns
            ]
            if begin_kind == types.none:
                begins = [memory.load(place) for place in places]
            else:
                array, offset, stride = (builder.extract_value(begin, k) for k in range(3))
                each = [scalar(begin_kind[0], array, offset, stride, plus(builder, i, r)) for r in range(rows)]
                begins = [first for first in each for _ in columns]
            sums = [cgutils.alloca_once_value(builder, first.value) for first in begins]
            with cgutils.for_range(builder, inner, intp=INDEX) as loop:
                xs = [memory.load(memory.address(x_kind, x, loop.index, start)) for start in columns]
                at_inner = builder.add(at, builder.mul(loop.index, column))
                for r in range(rows):
                    factor = scalar(coefficients_kind, coefficients, at_inner, row, ir.Constant(INDEX, r))
                    for place, vector in zip(sums[r * vectors : (r + 1) * vectors], xs, strict=True):
                        total = Vector(builder, builder.load(place))
                        total = total.plus_pairs(factor, vector) if has_pairs else total + factor * vector
                        builder.store(total.value, place)
            for total, place in zip(sums, places, strict=True):
                memory.store(Vector(builder, builder.load(total)), place)
            return context.get_dummy_value()

        return types.void(*kinds), generate

    return in_llvm(product)


product_block, product_row = _product(ROWS, 2), _product(1, 2)
product_block_end, product_row_end = _product(ROWS, 1, is_end=True), _product(1, 1, is_end=True)


@in_llvm
def transpose_block(typing_context: Any, x: Any, i: Any, j: Any, out: Any) -> Any:
    """out[j:, i:] = x[i:, j:]^T for `LANES` rows and columns."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, i, j, out = arguments
        memory = Memory(context, builder)
        rows = [memory.load(memory.address(signature.args[0], x, plus(builder, i, r), j)).value for r in range(LANES)]
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
        for r, row in enumerate(rows):
            memory.store(Vector(builder, row), memory.address(signature.args[3], out, plus(builder, j, r), i))
        return context.get_dummy_value()

    return types.void(x, types.int64, types.int64, out), generate
