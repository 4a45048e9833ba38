"""One DP-SGD gradient step against plain torch and both ways of Opacus.

Every subject gets the same rows, parameters and threads and makes one gradient of the whole
batch. Plain torch makes that of the mean loss; the others the sum of per-consumer gradients, each
clipped to C. Ours is timed as a member runs it: `contribute`, from numpy arrays to one sum per
block. Noise belongs to none of them. One consumer has one row, as Opacus knows no other.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.report import Report, Row, main
from client_sdk.batch import Batch
from client_sdk.recipes.per_consumer.network import Network
from client_sdk.recipes.propensity.contribute import contribute
from client_sdk.recipes.propensity.fold import initial_state
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension, network
from privacy.identity import Identity
from privacy.terms import Column, DataContract, PrivacyTerms, RosterEntry, Terms

THREADS = 2
BLOCK = 256
"""Consumers of a block in production (rule R6)."""
TOLERANCE = 1e-6
"""Largest difference of one coordinate to Opacus, in units of C times the batch. Opacus itself
divides by the norm plus 1e-6, and sums the whole batch in float32."""

Step = Callable[[], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A model, a batch size and the bound on ours / plain torch."""

    name: str
    settings: dict[str, Any]
    numbers: int
    cardinalities: tuple[int, ...]
    batch: int
    clipping_norm: float
    target: float


CASES = (
    Case("MLP", {"model": "mlp", "hidden": (256, 256, 200)}, 100, (), 4096, 1.0, 1.15),
    Case(
        "26 embedding tables",
        {"model": "mlp", "hidden": (16,), "embedding_width": 16},
        0,
        (2328,) * 26,
        1024,
        0.5,
        1.0,
    ),
)


class Plain(nn.Module):
    """The same network as anybody writes it in torch: one nn.Embedding a column, nn.Linear."""

    def __init__(self, shape: Network) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, shape.width) for n in shape.cardinalities)
        sizes = (shape.numbers + shape.embedded, *shape.hidden, 1)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """Logits, shape (rows,)."""
        vectors = [table(codes[:, index]) for index, table in enumerate(self.tables)]
        inputs = torch.cat([numbers, *vectors], 1) if vectors else numbers
        logits: Tensor = self.layers(inputs)[:, 0]
        return logits


def terms_of(case: Case) -> Terms:
    """Terms under which `contribute` computes this case."""
    columns = [Column(name=f"n{i}", kind="number", low=0.0, high=1.0) for i in range(case.numbers)]
    for index, size in enumerate(case.cardinalities):
        values = tuple(str(value) for value in range(size))
        columns.append(Column(name=f"c{index}", kind="category", values=values))
    contract = DataContract(
        name="benchmark",
        version=1,
        consumer_id="consumer",
        label="label",
        columns=tuple(columns),
        rows_per_consumer=1,
    )
    return Terms(
        alliance="benchmark",
        study="dp-step",
        purpose="Measure one step",
        recipe="propensity",
        settings=case.settings,
        dimension=dimension(contract, PropensitySettings.model_validate(case.settings)),
        contract=contract,
        privacy=PrivacyTerms(
            clipping_norm=case.clipping_norm,
            noise_multiplier=1.0,
            sampling_probability=0.1,
            rounds=1,
            max_attempts=1,
            delta=1e-6,
            cohort_size=4,
            colluders=1,
            dropouts=0,
        ),
        roster=tuple(
            RosterEntry(
                name=f"m{i}", identity=Identity.generate().public, declared_consumers=10_000
            )
            for i in range(4)
        ),
    )


def batch_of(case: Case, size: int, seed: int = 1) -> Batch:
    """Random consumers in blocks of ``BLOCK``."""
    draw = np.random.default_rng(seed)
    shape = (size // BLOCK, BLOCK, 1)
    codes = [draw.integers(0, n, shape) for n in case.cardinalities]
    return Batch(
        numbers=draw.random((*shape, case.numbers), dtype=np.float32),
        categories=np.stack(codes, -1) if codes else np.zeros((*shape, 0), dtype=np.int64),
        labels=(draw.random(shape) < 0.3).astype(np.float32),
        present=np.ones(shape, dtype=np.float32),
    )


def as_one_block(batch: Batch) -> Batch:
    """The same consumers in a single block."""
    arrays = (getattr(batch, field.name) for field in dataclasses.fields(batch))
    size = batch.present.size
    return Batch(*(array.reshape(1, size, *array.shape[2:]) for array in arrays))


class Peers:
    """Plain torch and both ways of Opacus, on the parameters and rows given."""

    def __init__(
        self, shape: Network, parameters: npt.NDArray[np.float32], batch: Batch, norm: float
    ) -> None:
        self._shape, self._parameters, self._norm = shape, parameters, norm
        size = batch.present.size
        self._numbers = torch.from_numpy(batch.numbers.reshape(size, -1))
        self._codes = torch.from_numpy(batch.categories.reshape(size, -1))
        self._labels = torch.from_numpy(batch.labels.reshape(size))

    def _module(self) -> Plain:
        module, begin = Plain(self._shape), 0
        with torch.no_grad():
            for parameter in module.parameters():
                values = self._parameters[begin : begin + parameter.numel()]
                parameter.copy_(torch.tensor(values).view_as(parameter))
                begin += parameter.numel()
        return module

    def plain(self) -> Step:
        """Forward, backward and gradient of the mean loss; nothing private."""
        module = self._module()

        def step() -> None:
            module.zero_grad(set_to_none=True)
            values = module(self._numbers, self._codes)
            functional.binary_cross_entropy_with_logits(values, self._labels).backward()  # type: ignore[no-untyped-call]

        return step

    def hooks(self) -> tuple[Step, Callable[[], npt.NDArray[np.float64]]]:
        """Opacus, per-sample gradients by hooks; with a view of the last clipped sum."""
        from opacus import GradSampleModule
        from opacus.optimizers import DPOptimizer

        module = GradSampleModule(self._module(), loss_reduction="sum")
        optimizer = DPOptimizer(
            torch.optim.SGD(module.parameters(), lr=0.1),
            noise_multiplier=0.0,
            max_grad_norm=self._norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        loss = nn.BCEWithLogitsLoss(reduction="sum")

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss(module(self._numbers, self._codes), self._labels).backward()
            optimizer.clip_and_accumulate()

        return step, lambda: _summed(module)

    def ghost(self) -> tuple[Step, Callable[[], npt.NDArray[np.float64]]]:
        """Opacus, ghost clipping; with a view of the last clipped sum."""
        from opacus.grad_sample import GradSampleModuleFastGradientClipping
        from opacus.optimizers import DPOptimizerFastGradientClipping
        from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

        module = GradSampleModuleFastGradientClipping(
            self._module(), max_grad_norm=self._norm, use_ghost_clipping=True, loss_reduction="sum"
        )
        optimizer = DPOptimizerFastGradientClipping(
            torch.optim.SGD(module.parameters(), lr=0.1),
            noise_multiplier=0.0,
            max_grad_norm=self._norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        loss = DPLossFastGradientClipping(
            module, optimizer, nn.BCEWithLogitsLoss(reduction="sum"), loss_reduction="sum"
        )

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            loss(module(self._numbers, self._codes), self._labels).backward()
            optimizer.accumulate()

        return step, lambda: _summed(module)


def _summed(module: nn.Module) -> npt.NDArray[np.float64]:
    """Opacus's clipped sum, float64, shape (dimension,)."""
    parts = [getattr(p, "summed_grad").reshape(-1) for p in module.parameters()]  # noqa: B009
    return torch.cat(parts).detach().numpy().astype(np.float64)


def alternate(steps: dict[str, tuple[Step, int]]) -> dict[str, float]:
    """Median milliseconds of each step; they take turns for as many trials as each has.

    The order turns from trial to trial: whoever comes after a step that freed much memory pays
    for it, which alone makes a tenth.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step, _ in steps.values():
        step()
    for trial in range(max(trials for _, trials in steps.values())):
        names = [name for name, (_, trials) in steps.items() if trial < trials]
        for name in names[trial % len(names) :] + names[: trial % len(names)]:
            begin = time.perf_counter()
            steps[name][0]()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: statistics.median(values) for name, values in times.items()}


def measure_case(case: Case, report: Report) -> None:
    """All rows of one model."""
    size = case.batch
    many, few = (30, 1) if report.quick else (120, 5)  # a smaller batch would be another figure
    terms = terms_of(case)
    shape = network(terms.contract, PropensitySettings.model_validate(case.settings))
    parameters = initial_state(terms).parameters
    batch = batch_of(case, size)
    whole = as_one_block(batch)
    peers = Peers(shape, parameters, batch, case.clipping_norm)
    hooks, hooks_sum = peers.hooks()
    ghost, ghost_sum = peers.ghost()
    plain = peers.plain()
    medians = alternate(
        {
            "plain": (plain, many),
            "ours": (lambda: contribute(parameters, batch, terms=terms), many),
            "ghost": (ghost, many // 3),
            "one": (lambda: contribute(parameters, whole, terms=terms), many),
            "hooks": (hooks, few),
        }
    )
    gradient = contribute(parameters, batch, terms=terms).sum(0, dtype=np.float64)
    differences = [np.abs(gradient - peer).max() for peer in (hooks_sum(), ghost_sum())]
    what = f"DP-SGD step, {case.name}, {terms.dimension:,} parameters, batch {size}"
    blocks = len(batch.present)
    for key, words, target in (
        ("ours", f"{blocks} blocks of {BLOCK}", case.target),
        ("one", "one block, not what a member runs", None),
    ):
        report.add(
            Row(
                name=f"{what}, {words}",
                unit="ms",
                ours=medians[key],
                peer_name=f"plain torch {torch.__version__.split('+')[0]}, not private",
                peer=medians["plain"],
                ratio=medians[key] / medians["plain"],
                target=target,
                at="most" if target else None,
                bounds="ratio" if target else "ours",
                trials=many,
                note="ratio is ours / peer",
            )
        )
    for name, milliseconds, trials in (
        ("Opacus ghost clipping", medians["ghost"], many // 3),
        ("Opacus hooks", medians["hooks"], few),
    ):
        report.add(
            Row(
                name=f"{what}, {blocks} blocks of {BLOCK}",
                unit="ms",
                ours=medians["ours"],
                peer_name=name,
                peer=milliseconds,
                ratio=milliseconds / medians["ours"],
                trials=trials,
                note=f"ratio is peer / ours; peer / plain {milliseconds / medians['plain']:.1f}",
            )
        )
    report.add(
        Row(
            name=f"{what}: largest difference of a coordinate to hooks and ghost",
            unit="C x batch",
            ours=float(max(differences)) / (case.clipping_norm * size),
            target=TOLERANCE,
            at="most",
            trials=2,
            note=f"norm of the clipped sum {np.linalg.norm(gradient):.4g}; "
            f"hooks {differences[0]:.2g}, ghost {differences[1]:.2g} before dividing",
        )
    )


def measure(report: Report) -> None:
    """Both models."""
    torch.set_num_threads(THREADS)
    with warnings.catch_warnings():
        # Inputs need no gradient, on purpose; and no noise is drawn, so its generator is no matter.
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        for case in CASES:
            measure_case(case, report)


if __name__ == "__main__":
    main("dp_step", "Time one DP-SGD gradient step against plain torch and Opacus.", measure)
