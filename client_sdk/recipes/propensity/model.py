"""The propensity model in torch: which one the terms name, and its scores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from client_sdk.recipes.per_consumer import module as any_module
from client_sdk.recipes.per_consumer import stack
from client_sdk.recipes.per_consumer.network import Network
from client_sdk.recipes.per_consumer.rows import Rows, tame
from client_sdk.recipes.propensity.settings import (
    PropensitySettings,
    check_dimension,
    crosses,
    network,
    parse,
)
from privacy.errors import RecipeError
from privacy.terms import DataContract, Terms

__all__ = ["Model", "best_device", "exact_float32", "score"]

ENTRY_POINTS = "alliance.models"
"""Group of Python entry points; each names a function from a `DataContract` to a module whose
``forward(numbers, codes)`` returns one logit a row."""

_ROWS_AT_ONCE = 1 << 16


def best_device() -> torch.device:
    """The GPU where there is one, otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def exact_float32() -> Iterator[None]:
    """Full float32 products without gradients: no TF32, no bfloat16 (rule R6).

    Subnormal numbers are flushed to zero: processors are slower on them by orders of magnitude,
    and time must not tell (rule R4). The threads torch starts inherit that from the thread that
    first computes in parallel, so a thread that computes contributions should begin here.
    """
    torch.set_flush_denormal(True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.set_flush_denormal(False)


class Model:
    """The model that a study's terms name, at one round's parameters.

    Args:
        terms: the study's terms.
        parameters: float32, shape (dimension,), in the order that `Network` documents, or that of
            an installed module's ``named_parameters``.
        device: where to compute.

    Raises:
        RecipeError: if the settings, the dimension, the parameters or an installed module do not
            fit.
    """

    def __init__(
        self, terms: Terms, parameters: npt.NDArray[np.float32], device: torch.device
    ) -> None:
        settings = parse(terms)
        check_dimension(terms, settings)
        if parameters.dtype != np.float32 or parameters.shape != (terms.dimension,):
            raise RecipeError(
                f"study {terms.study}: parameters must be float32 of shape ({terms.dimension},), "
                f"got {parameters.dtype} {parameters.shape}"
            )
        self.device = device
        self.parameters = torch.from_numpy(np.require(parameters, requirements=["C", "W"]))
        self.parameters = self.parameters.to(device)
        self.size = float(torch.linalg.vector_norm(self.parameters))  # infinite beyond 1e19
        if not math.isfinite(self.size) and not np.isfinite(parameters).all():
            raise RecipeError(f"study {terms.study}: the parameters are not all finite")
        self.centred = settings.centred
        self.crosses = crosses(terms.contract, settings)
        self.codes = tuple(column.codes for column in terms.contract.categories)
        self.module: nn.Module | None = None
        if settings.installed:
            # Only what a row looks like; its shape otherwise is the module's own business.
            self.network = Network(len(terms.contract.numbers), self.codes)
            self.module = _installed(settings, terms.contract).to(device)
            any_module.fill(self.module, self.parameters)
            any_module.check(self.module, self.network)
        else:
            self.network = network(terms.contract, settings)

    def clipped_sums(
        self,
        numbers: Tensor,
        categories: Tensor,
        labels: Tensor,
        present: Tensor,
        *,
        clipping_norm: float,
        out: Tensor,
    ) -> None:
        """Writes each block's sum of clipped consumer vectors into ``out``.

        Arguments are shaped as `Batch` has them; ``out`` is float32, shape (blocks, dimension).
        Guarantees are those of the two ``per_consumer`` modules.
        """
        rows = self._read(numbers, categories, labels, present)
        if self.module is None:
            stack.clipped_sums(
                self.network,
                self.parameters,
                self.size,
                rows,
                clipping_norm=clipping_norm,
                out=out,
            )
        else:
            any_module.clipped_sums(
                self.module, self.network, rows, clipping_norm=clipping_norm, out=out
            )

    def _read(self, numbers: Tensor, categories: Tensor, labels: Tensor, present: Tensor) -> Rows:
        """Rows as the model reads them, made harmless."""
        entering = 2 * numbers - 1 if self.centred else numbers
        return tame(self.network, entering, self._crossed(categories), labels, present)

    def _crossed(self, categories: Tensor) -> Tensor:
        """The codes, int64, shape (..., category columns), followed by those of the crosses.

        Of a code outside its column nothing is made here: `tame` sees it where it stands first.
        """
        if not self.crosses:
            return categories
        pairs = [categories[..., a] * self.codes[b] + categories[..., b] for a, b in self.crosses]
        return torch.cat([categories, torch.stack(pairs, -1)], -1)

    def probabilities(self, numbers: Tensor, categories: Tensor) -> Tensor:
        """Probability of a positive label, float32, shape (rows,); NaN for a row out of contract.

        Args:
            numbers: float32, shape (rows, number columns).
            categories: int64, shape (rows, category columns).
        """
        labels = numbers.new_zeros(1, len(numbers), 1)
        rows = self._read(numbers, categories, labels, labels + 1)
        if self.module is None:
            values = stack.logits(self.network, self.parameters, rows)
        else:
            values = any_module.logits(self.module, self.network, rows)
        return torch.where(rows.sound, torch.sigmoid(values), torch.nan)


def _installed(settings: PropensitySettings, contract: DataContract) -> nn.Module:
    """The module that this member's installation has under the model's name."""
    found = tuple(entry_points(group=ENTRY_POINTS, name=settings.model))
    if len(found) != 1:
        raise RecipeError(
            f"model {settings.model}: {len(found)} installed packages offer it under "
            f"{ENTRY_POINTS}; install exactly one"
        )
    try:
        module = found[0].load()(contract)
    except Exception as error:
        raise RecipeError(f"model {settings.model}: its package fails ({error})") from error
    if not isinstance(module, nn.Module):
        raise RecipeError(f"model {settings.model}: its package returns no torch module")
    return module.float()


def score(
    terms: Terms,
    parameters: npt.NDArray[np.float32],
    numbers: npt.NDArray[np.float32],
    categories: npt.NDArray[np.int64],
) -> npt.NDArray[np.float32]:
    """Probabilities of a positive label, for a member's own rows; nothing leaves.

    Args:
        terms: the study's terms.
        parameters: published parameters, float32, shape (dimension,).
        numbers: float32, shape (..., number columns), scaled to [0, 1].
        categories: int64, shape (..., category columns), codes from 0.

    Returns:
        float32, shape (...); NaN for a row that is not finite or has an unknown code.

    Raises:
        RecipeError: if parameters or columns do not fit the terms.
    """
    device = best_device()
    model = Model(terms, parameters, device)
    shape = numbers.shape[:-1]
    wanted = (model.network.numbers, len(model.codes))
    if categories.shape[:-1] != shape or (numbers.shape[-1], categories.shape[-1]) != wanted:
        raise RecipeError(
            f"study {terms.study}: rows must have {wanted[0]} numbers and {wanted[1]} categories, "
            f"got shapes {numbers.shape} and {categories.shape}"
        )
    count = int(np.prod(shape, dtype=np.int64))
    flat_numbers = numbers.reshape(count, wanted[0])
    flat_categories = categories.reshape(count, wanted[1])
    result = np.empty(count, dtype=np.float32)
    with exact_float32():
        for begin in range(0, count, _ROWS_AT_ONCE):
            some = slice(begin, begin + _ROWS_AT_ONCE)
            values = model.probabilities(
                torch.tensor(flat_numbers[some], device=device),
                torch.tensor(flat_categories[some], device=device),
            )
            result[some] = values.cpu().numpy()
    return result.reshape(shape)
