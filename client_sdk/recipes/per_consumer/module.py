"""Sums of clipped per-consumer gradients of any torch module, by way of Opacus."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from client_sdk.recipes.per_consumer.network import Network
from client_sdk.recipes.per_consumer.rows import Rows, clip_factors
from privacy.errors import RecipeError

__all__ = ["check", "clipped_sums", "fill", "logits"]

_GRADIENTS_AT_ONCE = 1 << 26
"""Floats of per-row gradients held at a time: memory only."""

_SCALED_BY_WEIGHT = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.RMSNorm,
)
"""Their weights stand in the flat vector as the difference from one, so that a start near zero is
the identity. Gradients are the same."""


def _parameters(module: nn.Module) -> Iterator[tuple[nn.Parameter, float]]:
    """Parameters in the order of ``module.named_parameters()``, with what is added to each."""
    for name, parameter in module.named_parameters():
        owner, _, last = name.rpartition(".")
        scales = last == "weight" and isinstance(module.get_submodule(owner), _SCALED_BY_WEIGHT)
        yield parameter, 1.0 if scales else 0.0


def fill(module: nn.Module, parameters: Tensor) -> None:
    """Sets the module's parameters from a flat vector, float32, shape (dimension,).

    Raises:
        RecipeError: if the module has another number of parameters.
    """
    size = sum(parameter.numel() for parameter, _ in _parameters(module))
    if size != len(parameters):
        raise RecipeError(
            f"{type(module).__name__} has {size} parameters and the terms say {len(parameters)}; "
            "set `parameters` and `dimension` to what the module has"
        )
    begin = 0
    with torch.no_grad():
        for parameter, shift in _parameters(module):
            values = parameters[begin : begin + parameter.numel()]
            parameter.copy_(values.view_as(parameter) + shift)
            begin += parameter.numel()


def check(module: nn.Module, network: Network) -> None:
    """Checks that a row's logit depends on that row and on the parameters only.

    (1) Opacus's validator knows every layer (no BatchNorm, no running statistics);
    (2) no parameter is frozen: its values would differ between members;
    (3) it returns one logit a row; (4) a row's logit stays when its companions change.

    Args:
        module: with the parameters of this round.
        network: how many numbers and codes a row has.

    Raises:
        RecipeError: naming what to replace.
    """
    from opacus.validators import ModuleValidator

    name = type(module).__name__
    problems = ModuleValidator.validate(module.train(), strict=False)  # (1)
    if problems:
        raise RecipeError(
            f"{name}: {problems[0]}; replace layers that mix rows or keep statistics, such as "
            "BatchNorm, by GroupNorm or LayerNorm"
        )
    if not all(parameter.requires_grad for parameter in module.parameters()):  # (2)
        raise RecipeError(f"{name}: has frozen parameters; register constants as buffers")
    device = next(module.parameters()).device
    steps = torch.linspace(0.1, 0.9, 4 * network.numbers, device=device)
    numbers = steps.view(4, network.numbers)
    codes = torch.zeros(4, len(network.cardinalities), dtype=torch.int64, device=device)
    others = numbers.flip(0).clone()
    others[0] = numbers[0]
    changed = codes.clone()
    changed[1:] = 1
    with torch.no_grad():
        before, after = (
            _logits(module.eval(), values, code)  # (3)
            for values, code in ((numbers, codes), (others, changed))
        )
    if not torch.allclose(before[:1], after[:1], rtol=1e-4, atol=1e-6, equal_nan=True):  # (4)
        raise RecipeError(
            f"{name}: a row's logit changes with the rows beside it; remove what mixes rows, such "
            "as a mean or a softmax over the first dimension"
        )


def _logits(module: nn.Module, numbers: Tensor, codes: Tensor) -> Tensor:
    """The module's answer, checked: float32, shape (rows,)."""
    values = module(numbers, codes)
    if not isinstance(values, Tensor) or values.shape != (len(numbers),):
        raise RecipeError(
            f"{type(module).__name__}: forward(numbers, codes) must return one logit a row, a "
            "tensor of shape (rows,)"
        )
    return values


def logits(module: nn.Module, network: Network, rows: Rows) -> Tensor:
    """The module's logits, float32, shape (slots,)."""
    return _logits(module.eval(), rows.numbers, rows.codes - rows.codes.new_tensor(network.starts))


def clipped_sums(
    module: nn.Module, network: Network, rows: Rows, *, clipping_norm: float, out: Tensor
) -> None:
    """Writes the sum of the clipped consumer vectors of every block into ``out``.

    The same contract as the stack's ``clipped_sums``, edge cases included, for a module that
    passed `check`. Each consumer's vector is made whole, as Opacus makes per-sample gradients,
    and summed over its rows before it is clipped, so blocks are float32 sums of b vectors
    (rule R6).

    **Guarantees:** every consumer's term has L2 norm at most C; unit one consumer, add/remove
    adjacency; the caller made sure by `check` that rows do not mix and turned TF32 off.

    **Source:** Yousefpour et al. (2021), "Opacus", section 3; Abadi et al. (2016), algorithm 1.

    Args:
        module: with the parameters of this round, on the device of ``rows``.
        network: how many numbers and codes a row has.
        rows: what ``tame`` returned.
        clipping_norm: C.
        out: float32, shape (blocks, dimension); overwritten.
    """
    from opacus import GradSampleModule

    blocks, consumers, slots = rows.shape
    codes = rows.codes - rows.codes.new_tensor(network.starts)
    codes = codes.view(blocks * consumers, slots, len(network.cardinalities))
    numbers = rows.numbers.view(blocks * consumers, slots, network.numbers)
    labels, present = rows.labels.view(-1, slots), rows.present.view(-1, slots)
    sound = rows.sound.view(-1, slots).all(1)
    step = max(1, _GRADIENTS_AT_ONCE // (slots * out.shape[1]))
    sampled = GradSampleModule(module.train(), loss_reduction="sum")
    try:
        for block in range(blocks):
            out[block].zero_()
            end = (block + 1) * consumers
            for begin in range(block * consumers, end, step):
                some = slice(begin, min(begin + step, end))
                vectors = _vectors(sampled, numbers[some], codes[some], labels[some], present[some])
                norms = torch.linalg.vector_norm(vectors, dim=1, dtype=torch.float64)
                factors = clip_factors(norms, sound[some], clipping_norm).float()[:, None]
                kept = torch.where(factors > 0, vectors * factors, 0.0)
                out[block] += kept.sum(0)
    finally:
        sampled.to_standard_module()


def _vectors(
    sampled: nn.Module, numbers: Tensor, codes: Tensor, labels: Tensor, present: Tensor
) -> Tensor:
    """One gradient vector per consumer, float32, shape (consumers, dimension).

    Args:
        sampled: a GradSampleModule.
        numbers: shape (consumers, rows, number columns).
        codes: shape (consumers, rows, category columns), counted within each column.
        labels: shape (consumers, rows).
        present: shape (consumers, rows).
    """
    count = len(numbers)
    sampled.zero_grad(set_to_none=True)
    with torch.enable_grad(), warnings.catch_warnings():
        # Inputs need no gradient, on purpose: they are data.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        values = _logits(sampled, numbers.flatten(0, 1), codes.flatten(0, 1))
        losses = functional.binary_cross_entropy_with_logits(
            values, labels.flatten(), reduction="none"
        )
        torch.where(present.flatten(), losses, 0.0).sum().backward()  # type: ignore[no-untyped-call]
    vectors = []
    for parameter in sampled.parameters():
        gradients = getattr(parameter, "grad_sample", None)
        if gradients is None:  # the forward pass does not use it
            vectors.append(numbers.new_zeros(count, parameter.numel()))
        else:
            vectors.append(gradients.reshape(count, -1, parameter.numel()).sum(1))
    return torch.cat(vectors, 1)
