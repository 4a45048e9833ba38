"""Training by private sums in one process: many runs at once.

Every run is full rounds of the private sum: Poisson sample, clipped gradient of every consumer,
sum, noise, fold. Runs on the same consumers are trained side by side, because one pass over the
table then serves them all. Two things differ from what members run, and
`benchmarks.utility.agreement` measures that they make no difference: all members' consumers are
clipped in one place and summed in one go, and the noise of the N shares is drawn as one Gaussian
vector of their total variance, not rounded to the grid of 2^-14 of a share's standard deviation.

The fold is the coordinator's own. Clipped sums of logistic regression with one row a consumer are
one matrix product here; every other model goes through the recipe's `contribute`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.special import expit

from client_sdk.dataset import Dataset
from client_sdk.recipes.propensity.contribute import contribute
from client_sdk.recipes.propensity.fold import fold, initial_state, published
from client_sdk.recipes.propensity.settings import crosses, network, parse
from privacy.sampling import LARGEST_BLOCK
from privacy.terms import Terms

__all__ = ["Clipper", "Run", "declared", "noise_scale", "train_all"]

Floats = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float32]

DENSE = 256
"""Up to so many parameters rows are kept dense, beyond as a sparse matrix: whichever is quicker."""


@dataclass(frozen=True, slots=True)
class Run:
    """One training.

    Args:
        terms: rounds, sampling, clipping and optimiser; their noise multiplier is not looked at.
        scale: standard deviation of the noise in each coordinate of a round's sum.
        seed: runs of equal seed have the same samples, and the same noise up to its scale.
    """

    terms: Terms
    scale: float
    seed: int


def noise_scale(terms: Terms) -> float:
    """Standard deviation of a release in which all N members are: sigma C sqrt(N / H)."""
    privacy = terms.privacy
    surplus = privacy.cohort_size / privacy.honest_survivors
    return float(privacy.noise_multiplier * privacy.clipping_norm * surplus**0.5)


def declared(terms: Terms) -> int:
    """Consumers that all members declare (rule R11)."""
    return sum(entry.declared_consumers for entry in terms.roster)


class Clipper:
    """Sums of clipped gradients over a table, for several parameter vectors at once.

    Args:
        terms: model and clipping norm; the same for all vectors.
        data: the consumers.
    """

    def __init__(self, terms: Terms, data: Dataset) -> None:
        self.terms = terms
        self.data = data
        self.consumers = len(data.consumer_ids)
        self._design = _design(terms, data)

    def sums(self, parameters: Matrix, taken: npt.NDArray[np.bool_] | None) -> Floats:
        """The sums at each parameter vector.

        Args:
            parameters: float32, shape (vectors, dimension).
            taken: which consumers each sum is over, shape (consumers, vectors); None for all.

        Returns:
            float64, shape (vectors, dimension).
        """
        if self._design is None:
            return self._slow_sums(parameters, taken)
        rows, norms, labels = self._design
        errors = expit(np.asarray(rows @ parameters.T)) - labels[:, None]
        norm = self.terms.privacy.clipping_norm
        # |error| norm is the norm of a row's gradient; the clip is that of `clip_factors`.
        most = np.divide(np.float32(norm), norms)[:, None]
        np.clip(errors, -most, most, out=errors)
        if taken is not None:
            errors *= taken
        sums: Floats = np.asarray(rows.T @ errors).T.astype(np.float64)
        return sums

    def _slow_sums(self, parameters: Matrix, taken: npt.NDArray[np.bool_] | None) -> Floats:
        found = np.empty(parameters.shape, dtype=np.float64)
        for at, vector in enumerate(parameters):
            chosen = np.arange(self.consumers) if taken is None else np.flatnonzero(taken[:, at])
            batch = self.data.gather(_blocks(chosen))
            found[at] = contribute(vector, batch, terms=self.terms).sum(axis=0, dtype=np.float64)
        return found


def _blocks(chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """These consumers in blocks of the largest size, -1 where a slot is empty."""
    blocks = max(1, -(-len(chosen) // LARGEST_BLOCK))
    slots = np.full(blocks * LARGEST_BLOCK, -1, dtype=np.int64)
    slots[: len(chosen)] = chosen
    return slots.reshape(blocks, LARGEST_BLOCK)


def _design(
    terms: Terms, data: Dataset
) -> tuple[Matrix | sparse.csr_array, npt.NDArray[np.float32], npt.NDArray[np.float32]] | None:
    """Each consumer's row as logistic regression sees it, its norm and its label.

    None where the model is another one or a consumer has several rows.
    """
    settings = parse(terms)
    if settings.model != "logistic" or terms.contract.rows_per_consumer != 1:
        return None
    shape = network(terms.contract, settings)
    batch = data.gather(np.arange(len(data.consumer_ids))[None, :])
    numbers, codes = batch.numbers[0, :, 0], batch.categories[0, :, 0]
    if settings.centred:
        numbers = 2 * numbers - 1
    sizes = [column.codes for column in terms.contract.categories]
    pairs = [codes[:, a] * sizes[b] + codes[:, b] for a, b in crosses(terms.contract, settings)]
    codes = np.column_stack([codes, *pairs])
    count, columns = codes.shape
    codes = codes + np.array(shape.starts, dtype=np.int64)
    ones = sparse.csr_array(
        (
            np.ones(codes.size, dtype=np.float32),
            codes.ravel(),
            np.arange(0, codes.size + 1, max(columns, 1))[: count + 1]
            if columns
            else np.zeros(count + 1, dtype=np.int64),
        ),
        shape=(count, shape.entries),
    )
    bias = np.ones((count, 1), dtype=np.float32)
    rows = sparse.csr_array(sparse.hstack([ones, numbers, bias], format="csr"))
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1), dtype=np.float64)).ravel()
    whole = rows if terms.dimension > DENSE else rows.toarray()
    return whole, norms.astype(np.float32), batch.labels[0, :, 0]


def train_all(runs: Sequence[Run], data: Dataset) -> list[Matrix]:
    """The published parameters of each run, float32, shape (dimension,), in the runs' order.

    Runs of equal model and clipping norm go through the table together.
    """
    found: dict[int, Matrix] = {}
    together: dict[tuple[str, float], list[int]] = {}
    for at, run in enumerate(runs):
        model = parse(run.terms).model_dump_json(exclude={"learning_rate", "average_from"})
        together.setdefault((model, run.terms.privacy.clipping_norm), []).append(at)
    for places in together.values():
        clipper = Clipper(runs[places[0]].terms, data)
        trained = _train([runs[at] for at in places], clipper)
        found.update(zip(places, trained, strict=True))
    return [found[at] for at in range(len(runs))]


def _train(runs: Sequence[Run], clipper: Clipper) -> list[Matrix]:
    """All runs of one model, round by round."""
    states = [initial_state(run.terms) for run in runs]
    streams = {run.seed: np.random.default_rng([run.seed, 1]) for run in runs}
    draws = {run.seed: np.random.default_rng([run.seed, 2]) for run in runs}
    for number in range(1, max(run.terms.privacy.rounds for run in runs) + 1):
        going = [at for at, run in enumerate(runs) if run.terms.privacy.rounds >= number]
        noise = {
            seed: stream.standard_normal(len(states[0].parameters))
            for seed, stream in streams.items()
        }
        taken = None
        if any(runs[at].terms.privacy.sampling_probability < 1 for at in going):
            chance = {
                seed: draw.random(clipper.consumers, dtype=np.float32)
                for seed, draw in draws.items()
            }
            taken = np.stack(
                [
                    chance[runs[at].seed] < runs[at].terms.privacy.sampling_probability
                    for at in going
                ],
                axis=1,
            )
        sums = clipper.sums(np.stack([states[at].parameters for at in going]), taken)
        for at, total in zip(going, sums, strict=True):
            run = runs[at]
            noised = total + run.scale * noise[run.seed]
            mean = noised / (run.terms.privacy.sampling_probability * declared(run.terms))
            states[at] = fold(states[at], mean, run.terms)
    return [published(state) for state in states]
