"""Shape of a Linear/Embedding network and the order of its parameters in one flat vector."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise

__all__ = ["Network", "Part"]


@dataclass(frozen=True, slots=True)
class Part:
    """One array inside the flat parameter vector, row-major.

    Args:
        name: ``tables``, or ``weight i`` and ``bias i`` of linear layer i, counted from 0.
        shape: as torch has it: (entries, width), (outputs, inputs) or (outputs,).
        offset: where it begins.
    """

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """How many parameters it holds."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """Where the next part begins."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class Network:
    """A network from numbers and category codes to one logit.

    With ``hidden`` layers, every category code is replaced by its embedding of ``width`` numbers,
    these follow the plain numbers, and Linear layers with ReLU between them end in the logit.
    Without (logistic regression), the logit is one Linear layer over the plain numbers plus the
    sum of the embeddings, whose width is then 1: the weights of a one-hot code.

    The flat vector holds the embedding tables of all categorical columns in contract order, one
    after another (`Part` ``tables``, absent without categories), then weight and bias of each
    Linear layer from the input to the logit.

    >>> [part.name for part in Network(numbers=3, cardinalities=(4, 2), width=5, hidden=(8,)).parts]
    ['tables', 'weight 0', 'bias 0', 'weight 1', 'bias 1']

    Args:
        numbers: how many numeric columns there are.
        cardinalities: how many codes each categorical column has.
        width: numbers in an embedding.
        hidden: outputs of each hidden layer.
    """

    numbers: int
    cardinalities: tuple[int, ...] = ()
    width: int = 1
    hidden: tuple[int, ...] = ()

    @property
    def entries(self) -> int:
        """Rows of all embedding tables together."""
        return sum(self.cardinalities)

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each column's table begins among the entries."""
        return tuple(accumulate(self.cardinalities, initial=0))[:-1]

    @property
    def embedded(self) -> int:
        """How many inputs of the first Linear layer are embeddings."""
        return len(self.cardinalities) * self.width if self.hidden else 0

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every array of the flat vector, in order."""
        shapes: list[tuple[str, tuple[int, ...]]] = []
        if self.cardinalities:
            shapes.append(("tables", (self.entries, self.width)))
        sizes = (self.numbers + self.embedded, *self.hidden, 1)
        for index, (inputs, outputs) in enumerate(pairwise(sizes)):
            shapes += [(f"weight {index}", (outputs, inputs)), (f"bias {index}", (outputs,))]
        parts: list[Part] = []
        for name, shape in shapes:
            parts.append(Part(name, shape, parts[-1].end if parts else 0))
        return tuple(parts)

    @property
    def dimension(self) -> int:
        """Length of the flat vector."""
        return self.parts[-1].end
