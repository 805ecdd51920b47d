"""Rewrite an ONNX model so that int8 weights are multiplied as integers, not unpacked to floats.

Each token's values get their own scale, so that a text's vector depends on the text only. Signed
weights are faster, but their sums overflow on processors without int8 instructions (onnxruntime's
quantization docs, "S8U8 saturation"). `exact_if_signed` tests that; if they overflow, both sides
become unsigned, which gives the same integers and so the same vectors. The file is read directly:
the protocol-buffer wire format with the field numbers of onnx.proto. See docs/decisions/006 for
speed and quality.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from struct import pack
from typing import NamedTuple

_GRAPH, _OPSET = 7, 8  # of ModelProto
_NODE, _TENSOR = 1, 5  # of GraphProto
_FLOAT, _UINT8, _INT8, _INT32 = 1, 2, 3, 6  # of TensorProto.DataType
_NEWEST = 17  # operator set: from 18 on, ReduceMax takes its axes as an input
_ZERO, _STEPS = 128, 127
_PRODUCT, _DOMAIN = (
    "MatMulIntegerToFloat",
    "com.microsoft",
)  # onnxruntime's own operator: scales the columns while it sums
_UP = bytes((byte + 128) % 256 for byte in range(256))

Bytes = bytes | memoryview


class _Field(NamedTuple):
    number: int
    value: int | memoryview
    raw: memoryview  # the field with its tag


class _Node(NamedTuple):
    kind: str
    inputs: Sequence[str]
    outputs: Sequence[str]
    raw: Bytes


class _Tensor(NamedTuple):
    name: str
    kind: int
    shape: tuple[int, ...]
    whole: bool  # its values are stored as raw bytes


def in_integers(model: Bytes, *, signed: bool) -> bytes | None:
    """Return the ONNX model with int8 products computed in integers; None if it has none or uses a
    newer operator set.

    `signed` keeps the weights signed; use it if `exact_if_signed` allows. It rewrites
    `MatMul(x, Mul(Cast(int8), scale))`, and `Gather(Mul(Cast(int8), scale), ids)` for token tables.
    Raises ValueError if the bytes are not a protocol-buffer message.
    """
    whole = list(_fields(memoryview(model)))
    if any(_opset(field) > _NEWEST for field in whole if field.number == _OPSET):
        return None
    graph = next((_graph(_of(field), signed) for field in whole if field.number == _GRAPH), None)
    if graph is None:
        return None
    head = _head(_GRAPH, sum(map(len, graph)))
    operators = _message(_OPSET, _message(1, _DOMAIN.encode()) + _number(2, 1))
    return b"".join(
        [
            *(
                part
                for field in whole
                for part in ([head, *graph] if field.number == _GRAPH else [field.raw])
            ),
            operators,
        ]
    )


def exact_if_signed() -> bytes:
    """Return a model that sums 64 times 255 * 127 with signed weights, to test this processor."""
    product = _made("MatMulInteger", ["values", "weights"], "sum")
    tensors = _tensor("values", _UINT8, b"\xff" * 128, (2, 64)) + _tensor(
        "weights", _INT8, b"\x7f" * 1024, (64, 16)
    )
    output = _message(12, _message(1, b"sum") + _message(2, _message(1, _number(1, _INT32))))
    graph = _message(_NODE, bytes(product.raw)) + _message(2, b"sum") + tensors + output
    return _number(1, 8) + _message(_GRAPH, graph) + _message(_OPSET, _number(2, _NEWEST))


def _graph(graph: memoryview, signed: bool) -> list[Bytes] | None:
    """Return the rewritten graph in pieces, so that a large model is copied only once."""
    fields = list(_fields(graph))
    nodes = [_node(field) for field in fields if field.number == _NODE]
    tensors = {
        each.name: each
        for each in (_tensor_of(field) for field in fields if field.number == _TENSOR)
    }
    casts, packed = _packed_weights(nodes, tensors)
    if not packed:
        return None
    made = list(_rewritten(nodes, packed, "slipway.none" if signed else "slipway.zero"))
    read = {name for node in made if node.outputs[0] not in packed for name in node.inputs}
    read |= {name for node in made if node.outputs[0] in read for name in node.inputs}
    kept = [
        node for node in made if node.outputs[0] in read or node.outputs[0] not in {*packed, *casts}
    ]
    constants = [
        _tensor("slipway.one", _FLOAT, pack("<f", 1)),
        _tensor("slipway.zero", _UINT8, bytes([_ZERO])),
        _tensor("slipway.none", _INT8, bytes([0])),
        _tensor("slipway.middle", _FLOAT, pack("<f", _ZERO + 0.5)),
        _tensor("slipway.step", _FLOAT, pack("<f", 1 / _STEPS)),
        _tensor("slipway.least", _FLOAT, pack("<f", 1e-30)),
    ]
    products = [node for node in made if node.kind == _PRODUCT]
    changed = {node.inputs[3]: _flat for node in products} | (
        {} if signed else {node.inputs[1]: _unsigned for node in products}
    )
    others = [
        changed[name](field)
        if field.number == _TENSOR and (name := _tensor_of(field).name) in changed
        else field.raw
        for field in fields
        if field.number != _NODE
    ]
    return [
        *(part for node in kept for part in (_head(_NODE, len(node.raw)), node.raw)),
        *others,
        *constants,
    ]


def _packed_weights(
    nodes: Sequence[_Node], tensors: dict[str, _Tensor]
) -> tuple[dict[str, str], dict[str, tuple[str, str]]]:
    """Return the outputs of Cast nodes (output -> weights), and of scaled int8 weights that can be
    rewritten (output -> weights, scale).
    """
    casts = {
        node.outputs[0]: node.inputs[0]
        for node in nodes
        if node.kind == "Cast" and node.inputs[0] in tensors
    }
    packed = {
        node.outputs[0]: (casts[node.inputs[0]], node.inputs[1])
        for node in nodes
        if node.kind == "Mul" and node.inputs[0] in casts
    }
    readers = defaultdict[str, list[str]](list)
    for node in nodes:
        for at, name in enumerate(node.inputs):
            readers[name].append(f"{node.kind} {at}")
    packed = {
        name: (weights, scale)
        for name, (weights, scale) in packed.items()
        if len(readers[weights]) == 1
        and _is_known(tensors.get(weights), tensors.get(scale), set(readers[name]))
    }
    return casts, packed


def _rewritten(
    nodes: Iterable[_Node], packed: dict[str, tuple[str, str]], zero: str
) -> Iterator[_Node]:
    scaled = set[str]()  # values already converted: several products may use them
    for node in nodes:
        if node.kind == "MatMul" and node.inputs[1] in packed:
            values, (weights, scale), out = node.inputs[0], packed[node.inputs[1]], node.outputs[0]
            if values not in scaled:
                scaled.add(values)
                yield from _scaled_rows(values)
            yield _made(
                _PRODUCT,
                [f"{values}.bits", weights, "slipway.one", scale, "slipway.zero", zero],
                f"{out}.columns",
            )
            yield _made("Mul", [f"{out}.columns", f"{values}.scale"], out)
        elif node.kind == "Gather" and node.inputs[0] in packed:
            (weights, scale), ids, out = packed[node.inputs[0]], node.inputs[1], node.outputs[0]
            yield _made("Gather", [weights, ids], f"{out}.integers")
            yield _made("Gather", [scale, ids], f"{out}.scale")
            yield _made("Cast", [f"{out}.integers"], f"{out}.floats", to=_FLOAT)
            yield _made("Mul", [f"{out}.floats", f"{out}.scale"], out)
        else:
            yield node


def _scaled_rows(values: str) -> Iterator[_Node]:
    """Convert row by row: value = (bits - 128) * scale; the largest value gets 127 steps."""
    yield _made("Abs", [values], f"{values}.sizes")
    yield _made("ReduceMax", [f"{values}.sizes"], f"{values}.size", axes=[-1])
    yield _made(
        "Max", [f"{values}.size", "slipway.least"], f"{values}.above"
    )  # a row of zeros needs a scale above 0
    yield _made("Mul", [f"{values}.above", "slipway.step"], f"{values}.scale")
    yield _made("Div", [values, f"{values}.scale"], f"{values}.steps")
    yield _made("Add", [f"{values}.steps", "slipway.middle"], f"{values}.moved")
    yield _made(
        "Cast", [f"{values}.moved"], f"{values}.bits", to=_UINT8
    )  # Cast truncates, hence the added half


# Read messages


def _opset(field: _Field) -> int:
    return next(
        (
            int(each.value)
            for each in _inside(field)
            if each.number == 2 and isinstance(each.value, int)
        ),
        0,
    )


def _node(field: _Field) -> _Node:
    inside = list(_inside(field))
    names = {
        number: [_text(each) for each in inside if each.number == number] for number in (1, 2, 4)
    }
    return _Node(kind="".join(names[4]), inputs=names[1], outputs=names[2], raw=_of(field))


def _tensor_of(field: _Field) -> _Tensor:
    inside = list(_inside(field))
    numbers = [(each.number, each.value) for each in inside if isinstance(each.value, int)]
    return _Tensor(
        name="".join(_text(each) for each in inside if each.number == 8),
        kind=next((value for number, value in numbers if number == 2), 0),
        shape=tuple(value for number, value in numbers if number == 1),
        whole=any(each.number == 9 for each in inside),
    )


def _is_known(weights: _Tensor | None, scale: _Tensor | None, readers: set[str]) -> bool:
    """Return whether these are weights with a scale per column that are only multiplied, or a table
    with a scale per row.
    """
    if (
        weights is None
        or scale is None
        or (weights.kind, scale.kind) != (_INT8, _FLOAT)
        or not weights.whole
        or len(weights.shape) != 2
    ):
        return False
    rows, columns = weights.shape
    return (readers == {"MatMul 1"} and scale.shape == (1, columns)) or (
        readers == {"Gather 0"} and scale.shape == (rows, 1)
    )


def _unsigned(field: _Field) -> bytes:
    """Convert an int8 tensor to uint8 by adding 128."""
    parts = [
        _number(2, _UINT8)
        if each.number == 2
        else _message(9, bytes(_of(each)).translate(_UP))
        if each.number == 9
        else bytes(each.raw)
        for each in _inside(field)
    ]
    return _message(_TENSOR, b"".join(parts))


def _flat(field: _Field) -> bytes:
    """Flatten a tensor to one dimension; at most one of its dimensions is not 1."""
    inside = list(_inside(field))
    size = max(
        (each.value for each in inside if each.number == 1 and isinstance(each.value, int)),
        default=1,
    )
    return _message(
        _TENSOR,
        b"".join([_number(1, size), *(bytes(each.raw) for each in inside if each.number != 1)]),
    )


def _inside(field: _Field) -> Iterator[_Field]:
    return _fields(_of(field))


def _of(field: _Field) -> memoryview:
    if isinstance(field.value, int):
        # ValueError: the file is wrong, not the caller
        raise ValueError(f"field {field.number} is a number where a message is expected")  # noqa: TRY004
    return field.value


def _text(field: _Field) -> str:
    return bytes(_of(field)).decode()


def _fields(data: memoryview) -> Iterator[_Field]:
    at = 0
    while at < len(data):
        start = at
        tag, at = _varint(data, at)
        value: int | memoryview
        if tag & 7 == 0:
            value, at = _varint(data, at)
        else:
            length, at = (
                _varint(data, at)
                if tag & 7 == 2
                else ({1: 8, 5: 4}.get(tag & 7, len(data) + 1), at)
            )
            value, at = data[at : at + length], at + length
        if at > len(data):
            raise ValueError("the message ends in the middle of a field")
        yield _Field(tag >> 3, value, data[start:at])


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("the message ends in the middle of a number")


# Write messages


def _made(kind: str, inputs: Sequence[str], output: str, **attributes: int | list[int]) -> _Node:
    parts = [
        *(_message(1, name.encode()) for name in inputs),
        _message(2, output.encode()),
        _message(4, kind.encode()),
    ]
    parts += [_message(7, _DOMAIN.encode())] if kind == _PRODUCT else []
    parts += [_message(5, _attribute(name, value)) for name, value in attributes.items()]
    return _Node(kind, inputs, [output], b"".join(parts))


def _attribute(name: str, value: int | list[int]) -> bytes:
    if isinstance(value, int):
        return _message(1, name.encode()) + _number(3, value) + _number(20, 2)
    return (
        _message(1, name.encode()) + b"".join(_number(8, each) for each in value) + _number(20, 7)
    )


def _tensor(name: str, kind: int, raw: bytes, shape: Sequence[int] = ()) -> bytes:
    return _message(
        _TENSOR,
        b"".join(_number(1, size) for size in shape)
        + _number(2, kind)
        + _message(8, name.encode())
        + _message(9, raw),
    )


def _message(number: int, content: bytes) -> bytes:
    return _head(number, len(content)) + content


def _head(number: int, length: int) -> bytes:
    return _digits(number << 3 | 2) + _digits(length)


def _number(number: int, value: int) -> bytes:
    return _digits(number << 3) + _digits(value % 2**64)


def _digits(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
