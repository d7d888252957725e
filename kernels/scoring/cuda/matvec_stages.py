"""Parts of products whose weights pass through shared memory.

A stage is 128 bytes of each of 16 rows of weights: 256 columns of 4-bit, 128 of 8-bit, 64 of
bfloat16 weights. Loads into registers end up where the compiler wants them, one after the other
where it is short of registers; copies to shared memory are under way from where they are begun.

A lane reads 16 bytes of weights at a time as they lie in memory, and 16 bytes of the same columns
of the inputs; which of them meet in a sum does not matter as long as both sides agree. Packed
weights are turned into bfloat16 whole numbers, which is exact, and each block's sum is multiplied
by the block's scale in float32: no weight is rounded.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbatch.kernels.cuda.assembly import assembly, element_pointer, elements, tuple_of
from numbatch.kernels.scoring.cuda.tiles import mma

__all__ = ["ROW_BYTES", "add_stage", "copy_few", "shared_words", "store_shared"]

_I16, _I32, _I64, _F32 = ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()

_MINUS_136, _MINUS_128 = 0xC308, 0xC300
"""Bits of bfloat16 numbers."""

ROW_BYTES = 128


def _int(value: int) -> Any:
    return ir.Constant(_I32, value)


def shared_words(builder: Any, address: Any, count: int = 4) -> list[Any]:
    """Load two or four words from an address in shared memory."""
    kind = ir.LiteralStructType([_I32] * count)
    places = ",".join(f"${i}" for i in range(count))
    template = f"ld.shared.v{count}.u32 {{{places}}}, [${count}];"
    constraints = "=r," * count + "r,~{memory}"
    loaded = assembly(builder, template, kind, constraints, [address], effects=True)
    return elements(builder, loaded, count)


def _bent(builder: Any, word: Any, shift: int, less: int) -> Any:
    """Turn two nibbles of a word into bfloat16 numbers, and take off a number.

    128 + n is the bfloat16 with the bits 0x4300 | n; taking off 128 or 136 is exact. To take it off
    the sums instead costs two more products a chunk, and the tensor cores have no time for them.
    """
    moved = builder.lshr(word, _int(shift)) if shift else word
    masked = builder.and_(moved, _int(0x000F000F))
    raised = builder.or_(masked, _int(0x43004300))
    template = "fma.rn.bf16x2 $0, $1, $2, $3;"
    operands = [raised, _int(0x3F803F80), _int(less << 16 | less)]
    return assembly(builder, template, _I32, "=r,r,r,r", operands)


def _byte_pair(builder: Any, word: Any, low: int) -> Any:
    """Turn bytes ``low`` and ``low + 1`` of a word, each plus 128, into bfloat16 numbers.

    2**23 + b is the float32 with the bits 0x4B000000 | b.
    """
    numbers = []
    for byte in (low, low + 1):
        operands = [word, _int(0x4B000000), _int(0x7440 | byte)]
        bits = assembly(builder, "prmt.b32 $0, $1, $2, $3;", _I32, "=r,r,r,r", operands)
        number = builder.bitcast(bits, _F32)
        numbers.append(builder.fsub(number, ir.Constant(_F32, 8388608.0 + 128.0)))
    template = "cvt.rn.bf16x2.f32 $0, $1, $2;"
    return assembly(builder, template, _I32, "=r,f,f", [numbers[1], numbers[0]])


def halves(builder: Any, words: list[Any]) -> list[Any]:
    """Return the float16 numbers of words as float32."""
    out = []
    for word in words:
        for half in (word, builder.lshr(word, _int(16))):
            bits = builder.trunc(half, _I16)
            out.append(assembly(builder, "cvt.f32.f16 $0, $1;", _F32, "=f,h", [bits]))
    return out


def _add_scaled(
    builder: Any, total: list[Any], tile: list[Any], factors: tuple[Any, Any]
) -> list[Any]:
    """Return ``total + factor * tile`` with a factor for the rows ``g`` and ``g + 8``."""
    template = "fma.rn.f32 $0, $1, $2, $3;"
    return [
        assembly(builder, template, _F32, "=f,f,f,f", [value, factors[i // 2], total[i]])
        for i, value in enumerate(tile)
    ]


def _row_chunks(builder: Any, address: Any, kind: str, less: int) -> list[list[Any]]:
    """Return a lane's words of a row: four for each chunk of 32 columns, as bfloat16 pairs.

    ``address`` is that of the lane's first piece; the others differ from it in one bit, which is
    another for odd rows than for even ones, lest two rows lie in the same banks.
    """
    step = 16 if kind == "bytes" else 64
    words = shared_words(builder, address)
    words += shared_words(builder, builder.xor(address, _int(step)))
    if kind == "plain":
        return [words[:4], words[4:]]
    if kind == "nibbles":
        return [[_bent(builder, word, shift, less) for shift in (0, 4, 8, 12)] for word in words]
    return [
        [_byte_pair(builder, word, low) for word in words[i : i + 2] for low in (0, 2)]
        for i in range(0, 8, 2)
    ]


def _multiply_chunk(
    builder: Any, total: list[Any], own: list[Any], below: list[Any], b: list[Any]
) -> list[Any]:
    """Add the products of 32 columns of 16 rows with eight tokens."""
    for i in (0, 2):
        a = [own[i], below[i], own[i + 1], below[i + 1]]
        total = mma(builder, total, a, b[i : i + 2])
    return total


@intrinsic(prefer_literal=True)
def add_stage(typingctx, total, address, scale_address, x, x_at, kind, has_least):
    """Add the products of a stage of weights.

    Packed weights are ``scale * (code - 8)`` or ``scale * code + least`` (nibbles), or
    ``scale * (code - 128)`` (bytes).

    Parameters
    ----------
    total : tuple of float32
        Four for each tile of 8 tokens.
    address, scale_address : uint32
        In shared memory: this lane's first piece of row ``g``, and the scales of row ``g``. The
        leasts lie behind the scales of all 16 rows.
    x : uint16 array
    x_at : tuple of int64, or uint32
        Flat elements: this lane's piece of token ``g`` of each tile of tokens; or the address in
        shared memory of its piece of the only token.
    kind, has_least
        Literals: ``plain``, ``nibbles`` or ``bytes``, and whether there are leasts.
    """
    name, with_least = kind.literal_value, bool(has_least.literal_value)
    is_plain = name == "plain"
    less = _MINUS_128 if with_least else _MINUS_136
    scale_words = 4 if name == "nibbles" else 2

    def emit(context, builder, signature, args):
        total_, address_, scale_at, x, x_at, _, _ = args
        tiles = total.count // 4
        totals = elements(builder, total_, total.count)
        is_shared = not isinstance(signature.args[4], types.UniTuple)
        places = [x_at] if is_shared else elements(builder, x_at, tiles)
        own = _row_chunks(builder, address_, name, less)
        lower = builder.add(address_, _int(8 * ROW_BYTES))
        below = _row_chunks(builder, lower, name, less)
        factors: list[tuple[list[Any], list[Any]]] = []
        for offset in () if is_plain else (0, 64 * scale_words)[: 1 + with_least]:
            first = builder.add(scale_at, _int(offset)) if offset else scale_at
            second = builder.add(first, _int(32 * scale_words))
            factors.append(
                (
                    halves(builder, shared_words(builder, first, scale_words)),
                    halves(builder, shared_words(builder, second, scale_words)),
                )
            )
        zero, ones = [ir.Constant(_F32, 0.0)] * 4, [_int(0x3F803F80)] * 4
        for chunk in range(len(own)):
            for tile in range(tiles):
                if is_shared:
                    b = shared_words(builder, builder.add(x_at, _int(64 * chunk)))
                else:
                    x_type = signature.args[3]
                    b = _global_words(context, builder, x_type, x, places[tile], 32 * chunk)
                place = slice(4 * tile, 4 * tile + 4)
                start = totals[place] if is_plain else zero
                part = _multiply_chunk(builder, start, own[chunk], below[chunk], b)
                if is_plain:
                    totals[place] = part
                    continue
                pair = (factors[0][0][chunk], factors[0][1][chunk])
                totals[place] = _add_scaled(builder, totals[place], part, pair)
                if with_least:
                    sums = _multiply_chunk(builder, zero, ones, ones, b)
                    pair = (factors[1][0][chunk], factors[1][1][chunk])
                    totals[place] = _add_scaled(builder, totals[place], sums, pair)
        return tuple_of(builder, totals)

    word = types.uint32
    place = x_at if isinstance(x_at, types.UniTuple) else word
    return total(total, word, word, x, place, kind, has_least), emit


def _global_words(
    context: Any, builder: Any, kind: Any, array: Any, at: Any, offset: int
) -> list[Any]:
    """Load 16 bytes from flat element ``at + offset`` as four words."""
    element = builder.add(at, ir.Constant(_I64, offset)) if offset else at
    pointer = element_pointer(context, builder, kind, array, element)
    vector = ir.VectorType(_I32, 4)
    loaded = builder.load(builder.bitcast(pointer, vector.as_pointer()), align=16)
    return [builder.extract_element(loaded, _int(i)) for i in range(4)]


@intrinsic(prefer_literal=True)
def copy_few(typingctx, address, array, at, size, is_there):
    """Begin to copy 4 or 8 bytes (a literal) to shared memory, and 32 around to the first cache."""
    count = int(size.literal_value)

    def emit(context, builder, signature, args):
        address, array, at, _, is_there = args
        pointer = element_pointer(context, builder, signature.args[1], array, at)
        wanted = builder.select(is_there, _int(count), _int(0))
        template = (
            "{ .reg .u64 t; cvta.to.global.u64 t, $1; "
            f"cp.async.ca.shared.global [$0], [t], {count}, $2; }}"
        )
        operands = [address, builder.ptrtoint(pointer, _I64), wanted]
        assembly(builder, template, ir.VoidType(), "r,l,r,~{memory}", operands, effects=True)
        return context.get_dummy_value()

    return types.none(types.uint32, array, types.intp, size, types.boolean), emit


@intrinsic
def store_shared(typingctx, address, words):
    """Write four words to an address in shared memory."""

    def emit(context, builder, signature, args):
        operands = [args[0], *elements(builder, args[1], 4)]
        template = "st.shared.v4.u32 [$0], {$1, $2, $3, $4};"
        constraints = "r,r,r,r,r,~{memory}"
        assembly(builder, template, ir.VoidType(), constraints, operands, effects=True)
        return context.get_dummy_value()

    return types.none(types.uint32, types.UniTuple(types.uint32, 4)), emit
