"""What the recipe is tested against: plain torch modules and an explicit loop over consumers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from client_sdk.batch import Batch
from client_sdk.recipes.per_consumer.network import Network
from client_sdk.recipes.propensity.settings import PropensitySettings, dimension
from privacy.terms import Column, DataContract, Terms
from tests.conftest import make_contract, make_terms


class Reference(nn.Module):
    """The network as anybody would write it; parameters in the order of the flat vector."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.tables = nn.ModuleList(
            nn.Embedding(size, network.width) for size in network.cardinalities
        )
        sizes = (network.numbers + network.embedded, *network.hidden, 1)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, numbers: Tensor, codes: Tensor) -> Tensor:
        vectors = [table(codes[:, index]) for index, table in enumerate(self.tables)]
        if not self.network.hidden:
            return sum((v[:, 0] for v in vectors), self.layers[0](numbers)[:, 0])
        values = torch.cat([numbers, *vectors], 1)
        for layer in self.layers[:-1]:
            values = functional.relu(layer(values))
        return self.layers[-1](values)[:, 0]


def contract_for(
    numbers: int, cardinalities: tuple[int, ...], rows_per_consumer: int = 4
) -> DataContract:
    columns = [
        *(Column(name=f"n{i}", kind="number", low=0.0, high=1.0) for i in range(numbers)),
        *(
            Column(name=f"c{i}", kind="category", values=tuple(str(v) for v in range(size)))
            for i, size in enumerate(cardinalities)
        ),
    ]
    return make_contract(columns=tuple(columns), rows_per_consumer=rows_per_consumer)


def terms_for(
    contract: DataContract, settings: dict[str, Any], *, members: int = 5, **privacy: Any
) -> Terms:
    size = dimension(contract, PropensitySettings.model_validate(settings))
    return make_terms(
        contract=contract, settings=settings, dimension=size, members=members, **privacy
    )


def make_batch(
    contract: DataContract, shape: tuple[int, int, int], seed: int, *, empty: float = 0.3
) -> Batch:
    """Random consumers; a share of row slots, and so now and then a whole consumer, is empty."""
    draw = np.random.default_rng(seed)
    present = (draw.random(shape) >= empty).astype(np.float32)
    numbers = draw.random((*shape, len(contract.numbers)), dtype=np.float32)
    codes = np.stack(
        [draw.integers(0, len(column.values), shape) for column in contract.categories]
        or [np.zeros(shape, dtype=np.int64)],
        axis=-1,
    )[..., : len(contract.categories)]
    labels = (draw.random(shape) < 0.4).astype(np.float32)
    return Batch(
        numbers=numbers * present[..., None],
        categories=codes * present[..., None].astype(np.int64),
        labels=labels * present,
        present=present,
    )


def make_parameters(size: int, seed: int, scale: float = 0.3) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=size) * scale).astype(np.float32)


def consumer_vectors(module: nn.Module, batch: Batch) -> Tensor:
    """Unclipped gradients by autograd, one backward pass a consumer.

    float64, shape (blocks, consumers, dimension).
    """
    module = module.double()
    blocks, consumers, _ = batch.present.shape
    parameters = list(module.parameters())
    size = sum(parameter.numel() for parameter in parameters)
    vectors = torch.zeros(blocks, consumers, size, dtype=torch.float64)
    for block in range(blocks):
        for consumer in range(consumers):
            there = batch.present[block, consumer] > 0
            if not there.any():
                continue
            values = module(
                torch.tensor(batch.numbers[block, consumer][there]).double(),
                torch.tensor(batch.categories[block, consumer][there]),
            )
            labels = torch.tensor(batch.labels[block, consumer][there]).double()
            loss = functional.binary_cross_entropy_with_logits(values, labels, reduction="sum")
            gradients = torch.autograd.grad(loss, parameters)
            vectors[block, consumer] = torch.cat([g.reshape(-1) for g in gradients])
    return vectors


def clip(vectors: Tensor, clipping_norm: float) -> Tensor:
    norms = vectors.norm(dim=-1, keepdim=True)
    return vectors * torch.clamp_max(clipping_norm / norms.clamp_min(1e-300), 1.0)
