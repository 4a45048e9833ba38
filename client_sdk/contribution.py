"""One contribution: sample, bound, sum, noise, encode (the private sum at the member, steps 1-5).

What `contribution` returns is masked before it leaves (`privacy.secagg.MaskingMember.mask`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import cast

import numpy as np
import numpy.typing as npt

from client_sdk.node import Node
from client_sdk.recipes.catalogue import ContributeWithModel, contribute_of
from privacy.fixedpoint import Grid, encode, to_ring
from privacy.keystream import KeyStream
from privacy.sampling import batch_shape, sample_slots
from privacy.terms import Terms
from protos.logs import log

__all__ = ["contribution"]


def contribution(
    terms: Terms, node: Node, parameters: npt.NDArray[np.float32]
) -> npt.NDArray[np.uint32] | npt.NDArray[np.uint64]:
    """This member's noised sum for one attempt, on the ring.

    Guarantees:
        Even unmasked it is differentially private for every consumer at noise multiplier
        sigma / sqrt(H) (rule R13); the sum of N - D of them at sigma, as long as at most c members
        collude. Fresh sample, rounding and noise at every call: the caller has reserved the attempt
        and never calls twice for one (rule R3). An error while computing yields noise alone, and
        an auditor's canaries, where the member admitted them; they change no consumer's guarantee
        (`client_sdk.canaries`).

    Args:
        terms: accepted terms.
        node: whose consumers.
        parameters: the public state, float32, shape (dimension,).

    Returns:
        uint32 or uint64, shape (dimension,).
    """
    stream = KeyStream.fresh()
    name = node.entry.name
    grid = Grid.of(terms)
    shape = batch_shape(terms, name)
    slots = sample_slots(node.enrolment(terms), shape, terms.privacy.sampling_probability, stream)
    contribute = contribute_of(terms.recipe)
    try:
        if (model := node.model(terms)) is not None:
            contribute = functools.partial(cast("ContributeWithModel", contribute), model=model)
        block_sums = contribute(parameters, node.dataset.gather(slots), terms=terms)
    except Exception as error:  # whether a member answers must not depend on its data (rule R4)
        log("ContributionEmpty", error=error)
        block_sums = np.zeros((shape.blocks, terms.dimension), dtype=np.float32)
    blocks: Iterable[npt.NDArray[np.float32]] = block_sums
    if node.canaries is not None and node.canaries.take_part(terms):
        blocks = itertools.chain(block_sums, node.canaries.block_sums(terms, stream))
    update = encode(blocks, grid, grid.limit(name), stream)
    update += node.noise.take(terms.dimension)
    return to_ring(update, grid)
