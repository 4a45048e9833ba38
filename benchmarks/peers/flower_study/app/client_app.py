"""The member's half: one clipped, noised sum over its consumers for each round."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pandas as pd
import study
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
noise = np.random.default_rng()


@cache
def load(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and whether a row is there, by consumer."""
    table = pd.read_csv(path)
    missing = {study.CONSUMER, study.LABEL, *study.NUMBERS, *study.CATEGORIES} - set(table.columns)
    if missing:
        raise ValueError(f"{path}: columns are missing: {sorted(missing)}")
    if not table[study.LABEL].isin([0, 1]).all():
        raise ValueError(f"{path}: {study.LABEL} must be 0 or 1")
    features = []
    for name, (low, high, log) in study.NUMBERS.items():
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(float)
        if not ((values >= low) & (values <= high)).all():
            raise ValueError(f"{path}: {name} must lie between {low} and {high}")
        values = values - low
        features.append(np.log1p(values) / math.log1p(high - low) if log else values / (high - low))
    for name, values in study.CATEGORIES.items():
        if not table[name].isin(values).all():
            raise ValueError(f"{path}: {name} must be one of {values}")
        features += [(table[name] == value).to_numpy(float) for value in values]
    rows = np.column_stack([*features, np.ones(len(table))])
    consumer, place = (
        pd.factorize(table[study.CONSUMER])[0],
        table.groupby(study.CONSUMER).cumcount(),
    )
    kept = (place < study.ROWS).to_numpy()
    at = consumer[kept], place[kept]
    shape = (consumer.max() + 1, study.ROWS)
    x, y, there = np.zeros((*shape, study.DIMENSION)), np.zeros(shape), np.zeros(shape)
    x[at], y[at], there[at] = rows[kept], table[study.LABEL].to_numpy(float)[kept], 1.0
    return x, y, there


def private_sum(weights: np.ndarray, path: str) -> np.ndarray:
    """Clipped gradients of sampled consumers, summed, with this member's share of the noise."""
    x, y, there = load(path)
    sampled = noise.random(len(x)) < study.Q
    x, y, there = x[sampled], y[sampled], there[sampled]
    residual = (1 / (1 + np.exp(-(x @ weights))) - y) * there
    gradients = np.einsum("crd,cr->cd", x, residual)
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    clipped = gradients * np.minimum(1.0, study.CLIP / np.maximum(norms, 1e-12))
    honest = len(study.MEMBERS) - study.COLLUDERS - study.DROPOUTS
    return clipped.sum(axis=0) + noise.normal(
        0, study.SIGMA * study.CLIP / math.sqrt(honest), study.DIMENSION
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answers one round."""
    config = context.node_config
    member = str(config.get("member", study.MEMBERS[int(config.get("partition-id", 0))]))
    path = str(config.get("data", f"{message.content['task']['folder']}/{member}.csv"))
    total = private_sum(message.content["model"]["weights"].numpy(), path)
    content = RecordDict(
        {
            "sum": ArrayRecord({"values": Array(total)}),
            "from": ConfigRecord({"member": member}),
        }
    )
    return Message(content=content, reply_to=message)
