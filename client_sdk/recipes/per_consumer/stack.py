"""Exact sums of clipped per-consumer gradients of a Linear/Embedding network, in one pass.

One forward and one backward pass over the activations give, for every row, the input ``a`` and
the output gradient ``g`` of each layer; the row's gradient is their outer product and is never
formed. Norms come from ``a`` and ``g`` alone, and the clipped sums of all blocks from one matrix
product per layer and block. Nothing here branches on data, and no shape depends on it (rule R4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from client_sdk.recipes.per_consumer.network import Network
from client_sdk.recipes.per_consumer.rows import LARGEST_INPUT, LARGEST_VALUE, Rows, clip_factors

__all__ = ["clipped_sums", "logits"]

_CANCELLATION = 2.0**-32
"""Share of (the sum of a consumer's row norms)^2 that is added to its squared norm: more than the
worst rounding error of a float64 Gram matrix of 10^4 inputs and 10^3 rows (10^6 x 2^-53), and a
bound of 2^16 C on the rows that cancel within one clipped vector."""

_PAIRS_AT_ONCE = 1 << 24
"""Pairs of rows whose codes are compared in one go: memory only."""


def _views(network: Network, vector: Tensor) -> dict[str, Tensor]:
    """The parts of flat vectors, shape (..., dimension), each in its own shape; no copies."""
    return {
        part.name: vector[..., part.offset : part.end].view(*vector.shape[:-1], *part.shape)
        for part in network.parts
    }


def _forward(network: Network, parts: dict[str, Tensor], rows: Rows) -> Iterator[Tensor]:
    """Inputs of each Linear layer in turn, then the logits, shape (slots, 1)."""
    inputs = rows.numbers
    vectors = functional.embedding(rows.codes, parts["tables"]) if "tables" in parts else None
    if vectors is not None and network.hidden:
        inputs = torch.cat([inputs, vectors.flatten(1)], 1)
    for layer in range(len(network.hidden)):
        yield inputs
        outputs = torch.addmm(parts[f"bias {layer}"], inputs, parts[f"weight {layer}"].t())
        inputs = outputs.relu_()
    yield inputs
    last = len(network.hidden)
    values = torch.addmm(parts[f"bias {last}"], inputs, parts[f"weight {last}"].t())
    if vectors is not None and not network.hidden:
        values += vectors.sum(1)
    yield values


def logits(network: Network, parameters: Tensor, rows: Rows) -> Tensor:
    """The network's logits, float32, shape (slots,)."""
    *_, values = _forward(network, _views(network, parameters), rows)
    return values[:, 0]


def _row_squares(values: list[Tensor], exact: bool) -> Tensor:
    """Squared norms of the rows of each array, float64, shape (arrays, slots).

    Computed in float64 (``exact``) or in float32; then a square above 3e38 makes it infinite, and
    what squares below 2^-126 lose is added.
    """
    dtype = torch.float64 if exact else torch.float32
    norms = [torch.linalg.vector_norm(array, dim=1, dtype=dtype) for array in values]
    lost = 0.0 if exact else max(array.shape[1] for array in values) * 2.0**-126
    return torch.stack(norms).double().square_().add_(lost)


def _needs_float64(network: Network, shape: tuple[int, int, int]) -> bool:
    """Whether float32 norms could lift a block's sum above C (1 + b^2 2^-23); public.

    In any order of summation, a float32 norm of one row is too small by a factor of at most
    1 + (n + 4) 2^-25, n being the inputs and outputs of a layer. Summing b vectors in float32
    uses (b - 1)^2 2^-23 of the allowance and leaves (2 b - 1) 2^-23 for it: enough if n <= 4 b.
    """
    _, consumers, slots = shape
    sizes = (network.numbers + network.embedded, *network.hidden, 1)
    widest = max(len(network.cardinalities), *(a + b for a, b in pairwise(sizes)))
    return slots > 1 or widest > 4 * consumers


def _may_overflow(network: Network, size: float) -> bool:
    """Whether parameters of this norm could drive a value past `LARGEST_VALUE`; public.

    A Linear layer stretches its inputs, and the gradients coming back, by at most the Frobenius
    norm of its weights, so by at most ``size``; what a dot product holds on the way obeys the same
    bound.
    """
    tables = size * len(network.cardinalities)
    forward, backward = LARGEST_INPUT + tables, 1.0
    for _ in range(len(network.hidden) + 1):
        forward, backward = forward * size + size + tables, backward * size
        if not max(forward, backward) < LARGEST_VALUE:  # a NaN is no smaller
            return True
    return False


@dataclass(slots=True)
class _Pass:
    """What one forward and backward pass leaves behind.

    ``inputs[i]`` and ``gradients[i]`` belong to Linear layer i, both of shape (slots, size);
    ``embedded`` is the gradient of the embeddings, shape (slots, columns, width), or None.
    ``squares`` is the squared norm of every row's whole gradient, float64: non-finite where any
    value on the way was. The inputs themselves have been made finite; the gradients only need
    it where ``wild``.
    """

    inputs: list[Tensor]
    gradients: list[Tensor]
    embedded: Tensor | None
    squares: Tensor
    wild: bool


def _differentiate(network: Network, parts: dict[str, Tensor], size: float, rows: Rows) -> _Pass:
    """One forward and one backward pass of the activations."""
    exact, wild = _needs_float64(network, rows.shape), _may_overflow(network, size)
    *inputs, values = _forward(network, parts, rows)
    squares = _row_squares(inputs, exact)
    calm = (squares <= LARGEST_VALUE**2).all(0)
    if wild:
        for array in inputs[1:]:
            array.nan_to_num_(0.0, 0.0, 0.0)
    error = torch.sigmoid(values[:, 0]) - rows.labels
    gradients = [torch.where(rows.present, error, 0.0)[:, None]]
    for layer in range(len(network.hidden), 0, -1):
        behind = gradients[0] @ parts[f"weight {layer}"]
        gradient = torch.ops.aten.threshold_backward.grad_input(
            behind, inputs[layer], 0, grad_input=behind
        )
        gradients.insert(0, gradient)
    squares.add_(1.0).mul_(_row_squares(gradients, exact))  # a bias sees a constant input of 1
    total = torch.where(calm, squares.sum(0), torch.inf)
    embedded = None
    if network.cardinalities:
        if network.hidden:
            embedded = gradients[0] @ parts["weight 0"][:, network.numbers :]
        else:
            embedded = gradients[0].repeat(1, len(network.cardinalities))
        total += _row_squares([embedded], exact)[0]
        embedded = embedded.view(-1, len(network.cardinalities), network.width)
    return _Pass(inputs, gradients, embedded, total, wild)


def _layer_squares(inputs: Tensor, gradients: Tensor) -> Tensor:
    """Squared norm of each consumer's summed Linear gradient: float64 in, shape (consumers,).

    From the Gram matrices of its rows, or from the gradient itself where that is smaller.
    """
    rows, width, outputs = inputs.shape[1], inputs.shape[2], gradients.shape[2]
    if width * outputs <= rows * (width + outputs):
        weight = gradients.transpose(1, 2) @ inputs
        return weight.square().sum((1, 2)) + gradients.sum(1).square().sum(1)
    pairs = inputs @ inputs.transpose(1, 2) + 1.0
    return (pairs * (gradients @ gradients.transpose(1, 2))).sum((1, 2))


def _embedding_squares(codes: Tensor, embedded: Tensor) -> Tensor:
    """Squared norm of each consumer's summed embedding gradient, float64, shape (consumers,).

    Rows with the same code add to the same entry, so every pair of them counts its product.

    Args:
        codes: shape (consumers, rows, columns).
        embedded: float64, shape (consumers, rows, columns, width).
    """
    rows, columns = codes.shape[1:]
    step = max(1, _PAIRS_AT_ONCE // (rows * rows * columns))
    squares = []
    for begin in range(0, len(codes), step):
        code = codes[begin : begin + step].transpose(1, 2)
        value = embedded[begin : begin + step].transpose(1, 2)
        same = code[..., :, None] == code[..., None, :]
        squares.append(torch.where(same, value @ value.mT, 0.0).sum((1, 2, 3)))
    return torch.cat(squares)


def _norms(done: _Pass, codes: Tensor, consumers: int) -> Tensor:
    """An upper bound of every consumer's gradient norm, tight up to rounding: float64."""
    slots = len(done.squares) // consumers
    if slots == 1:
        return done.squares.sqrt()

    def grouped(values: Tensor) -> Tensor:
        return values.view(consumers, slots, *values.shape[1:])

    squares = done.squares.new_zeros(consumers)
    for inputs, gradients in zip(done.inputs, done.gradients, strict=True):
        squares += _layer_squares(grouped(inputs).double(), grouped(gradients).double())
    if done.embedded is not None:
        squares += _embedding_squares(grouped(codes), grouped(done.embedded).double())
    total = grouped(done.squares).sqrt().sum(1)
    return (torch.clamp_min(squares, 0.0) + _CANCELLATION * total.square()).sqrt()


def clipped_sums(
    network: Network,
    parameters: Tensor,
    size: float,
    rows: Rows,
    *,
    clipping_norm: float,
    out: Tensor,
) -> None:
    """Writes the sum of the clipped consumer vectors of every block into ``out``.

    A consumer's vector is the gradient of the summed binary cross-entropy of its present rows.

    | a consumer's vector     | what its block's sum gets                              |
    |-------------------------|--------------------------------------------------------|
    | norm 0, no rows         | exactly zero                                           |
    | norm <= C               | the vector itself                                      |
    | norm > C, finite        | the vector scaled to C (1 - 2^-22)                     |
    | rows that cancel        | the same, by norm^2 + 2^-32 (sum of the rows' norms)^2 |
    | infinite, NaN, above    | exactly zero, and no other consumer is touched         |
    | 2^60 C, or with an      |                                                        |
    | activation above 2^60   |                                                        |

    **Guarantees:** unit one consumer, add/remove adjacency: whatever the data and the parameters,
    adding or removing one consumer moves its block's sum by at most C (1 + b^2 2^-23), where b is
    the consumer slots of a block (rule R6), and what it adds depends on its own rows and on
    public state only (rule R5). Norms are float64, or float32 where their rounding fits into
    that allowance (`_needs_float64`). With one row slot a consumer, blocks are summed in float32;
    with more in float64 and rounded once, because the rows of one consumer may cancel. The caller
    turns TF32 off.

    **Source:** Goodfellow (2015), "Efficient per-example gradient computations"; Lee and Kifer
    (2021), "Scaling up differentially private deep learning with fast per-example gradient
    clipping", section 4, for several rows.

    Args:
        network: the shape and the order of the flat vector.
        parameters: float32, shape (dimension,), finite.
        size: L2 norm of the parameters; with a large one, overflow is guarded against.
        rows: what `tame` returned.
        clipping_norm: C.
        out: float32, shape (blocks, dimension), contiguous; overwritten.
    """
    blocks, consumers, slots = rows.shape
    done = _differentiate(network, _views(network, parameters), size, rows)
    sound = rows.sound.view(-1, slots).all(1)
    norms = _norms(done, rows.codes, blocks * consumers)
    factors = clip_factors(norms, sound, clipping_norm).repeat_interleave(slots)
    sums = out if slots == 1 else torch.empty_like(out, dtype=torch.float64)
    factors = factors.to(sums.dtype)[:, None]

    def weighed(values: Tensor) -> Tensor:
        values = values.to(sums.dtype).mul_(factors)
        return values.nan_to_num_(0.0, 0.0, 0.0) if done.wild else values

    parts = _views(network, sums)
    for layer, (inputs, gradients) in enumerate(zip(done.inputs, done.gradients, strict=True)):
        gradient = weighed(gradients).view(blocks, -1, gradients.shape[1])
        values = inputs.to(sums.dtype).view(blocks, consumers * slots, inputs.shape[1])
        torch.bmm(gradient.mT, values, out=parts[f"weight {layer}"])
        torch.sum(gradient, 1, out=parts[f"bias {layer}"])
    if done.embedded is not None:
        steps = torch.arange(network.width, device=sums.device)
        codes = rows.codes.view(blocks, consumers * slots, -1, 1) * network.width
        gradient = weighed(done.embedded.flatten(1)).view(blocks, -1)
        for block in range(blocks):
            parts["tables"][block].zero_()
            sums[block].scatter_add_(0, (codes[block] + steps).view(-1), gradient[block])
    if sums is not out:
        out.copy_(sums)
