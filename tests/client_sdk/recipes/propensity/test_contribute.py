"""Clipped sums against autograd and Opacus, their bound, and what odd data may not do."""

from __future__ import annotations

import dataclasses
import re
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from client_sdk.batch import Batch
from client_sdk.recipes.per_consumer import module as any_module
from client_sdk.recipes.propensity import model as model_module
from client_sdk.recipes.propensity.contribute import contribute
from client_sdk.recipes.propensity.settings import network, parse
from privacy.errors import RecipeError
from privacy.terms import Column, Terms
from tests.client_sdk.recipes.reference import (
    Reference,
    clip,
    consumer_vectors,
    contract_for,
    make_batch,
    make_parameters,
    terms_for,
)
from tests.conftest import make_contract

MLP = {"model": "mlp", "hidden": (7, 5), "embedding_width": 3}
LOGISTIC = {"model": "logistic"}
INSTALLED = "normed"


class Normed(nn.Module):
    """An installed model with a layer that the fast path does not know."""

    def __init__(self, numbers: int, cardinality: int) -> None:
        super().__init__()
        self.table = nn.Embedding(cardinality, 3)
        self.first = nn.Linear(numbers + 3, 6)
        self.norm = nn.LayerNorm(6)
        self.last = nn.Linear(6, 1)

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        values = torch.cat([numbers, self.table(codes[:, 0])], 1)
        return self.last(torch.tanh(self.norm(self.first(values))))[:, 0]


@dataclasses.dataclass
class Installed:
    """Stands for an entry point of a package that the test does not install."""

    make: Any

    def load(self) -> Any:
        return self.make


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(make: Any) -> None:
        monkeypatch.setattr(
            model_module,
            "entry_points",
            lambda *, group, name: (
                [Installed(make)] if (group, name) == ("alliance.models", INSTALLED) else []
            ),
        )

    return put


def built_in(terms: Terms, parameters: np.ndarray) -> Reference:
    reference = Reference(network(terms.contract, parse(terms)))
    any_module.fill(reference, torch.tensor(parameters))
    return reference


def check(actual: np.ndarray, vectors: torch.Tensor, clipping_norm: float) -> None:
    """Block sums within 1e-6 C of the clipped vectors for every consumer in them."""
    wanted = clip(vectors, clipping_norm).sum(1).numpy()
    assert actual.dtype == np.float32
    assert np.abs(actual - wanted).max() <= 1e-6 * clipping_norm * vectors.shape[1]


def check_each(parameters: np.ndarray, batch: Batch, terms: Terms, vectors: torch.Tensor) -> None:
    """Every consumer alone within 1e-6 C: in a block of its own, where norms are float64, and in
    one of 256 slots, where those of single rows are float32."""
    clipping_norm = terms.privacy.clipping_norm
    wanted = clip(vectors, clipping_norm).flatten(0, 1).numpy()
    for slots in (1, 256):
        arrays = []
        for field in dataclasses.fields(batch):
            array = getattr(batch, field.name)
            alone = np.zeros((len(wanted), slots, *array.shape[2:]), dtype=array.dtype)
            alone[:, slots // 2] = array.reshape(len(wanted), *array.shape[2:])
            arrays.append(alone)
        actual = contribute(parameters, Batch(*arrays), terms=terms)
        assert np.abs(actual - wanted).max() <= 1e-6 * clipping_norm


SHAPES = [
    pytest.param(LOGISTIC, 4, (3, 5), id="logistic"),
    pytest.param(LOGISTIC, 6, (), id="logistic, numbers only"),
    pytest.param(LOGISTIC, 0, (3, 2, 4), id="logistic, categories only"),
    pytest.param(MLP, 4, (3, 5), id="mlp"),
    pytest.param(MLP, 5, (), id="mlp, numbers only"),
    pytest.param(MLP, 0, (2, 6), id="mlp, categories only"),
]


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors:UserWarning")
@pytest.mark.parametrize("rows", [1, 2, 9])
@pytest.mark.parametrize(("model", "numbers", "cardinalities"), SHAPES)
def test_sums_equal_an_explicit_loop(
    model: dict[str, Any], numbers: int, cardinalities: tuple[int, ...], rows: int
) -> None:
    contract = contract_for(numbers, cardinalities)
    for clipping_norm in (0.5, 100.0):
        terms = terms_for(contract, model, clipping_norm=clipping_norm)
        parameters = make_parameters(terms.dimension, 1)
        batch = make_batch(contract, (2, 11, rows), seed=rows)
        assert (batch.present.sum(2) == 0).any() or rows > 4
        vectors = consumer_vectors(built_in(terms, parameters), batch)
        check(contribute(parameters, batch, terms=terms), vectors, clipping_norm)
        check_each(parameters, batch, terms, vectors)


@pytest.mark.parametrize("consumers", [8, 256])
@pytest.mark.parametrize("model", [LOGISTIC, MLP], ids=["logistic", "mlp"])
def test_one_row_a_consumer_equals_opacus(model: dict[str, Any], consumers: int) -> None:
    """256 consumers use float32 norms, 8 use float64."""
    from opacus import GradSampleModule

    contract = contract_for(4, (3, 5))
    terms = terms_for(contract, model, clipping_norm=0.7)
    parameters = make_parameters(terms.dimension, 2)
    batch = make_batch(contract, (2, consumers, 1), seed=3, empty=0)
    sampled = GradSampleModule(built_in(terms, parameters), loss_reduction="sum")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing")
        values = sampled(
            torch.tensor(batch.numbers.reshape(-1, 4)),
            torch.tensor(batch.categories.reshape(-1, 2)),
        )
        functional.binary_cross_entropy_with_logits(
            values, torch.tensor(batch.labels.reshape(-1)), reduction="sum"
        ).backward()
    vectors = torch.cat([p.grad_sample.flatten(1) for p in sampled.parameters()], 1)
    vectors = vectors.double().view(2, consumers, -1)
    check(contribute(parameters, batch, terms=terms), vectors, 0.7)
    few = Batch(*(getattr(batch, f.name)[:, :8] for f in dataclasses.fields(batch)))
    check_each(parameters, few, terms, vectors[:, :8])


@pytest.mark.parametrize("rows", [1, 3])
def test_an_installed_module_equals_an_explicit_loop(install: Any, rows: int) -> None:
    contract = contract_for(4, (5,))
    install(lambda contract: Normed(4, 5))
    reference = Normed(4, 5)
    size = sum(parameter.numel() for parameter in reference.parameters())
    for clipping_norm in (0.5, 100.0):
        terms = terms_for(
            contract, {"model": INSTALLED, "parameters": size}, clipping_norm=clipping_norm
        )
        parameters = make_parameters(size, 4)
        any_module.fill(reference.float(), torch.tensor(parameters))
        batch = make_batch(contract, (2, 7, rows), seed=5)
        vectors = consumer_vectors(reference, batch)
        check(contribute(parameters, batch, terms=terms), vectors, clipping_norm)
        check_each(parameters, batch, terms, vectors)


def test_a_memory_limit_does_not_change_the_sums(
    install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = contract_for(4, (5,))
    install(lambda contract: Normed(4, 5))
    size = sum(parameter.numel() for parameter in Normed(4, 5).parameters())
    terms = terms_for(contract, {"model": INSTALLED, "parameters": size})
    batch = make_batch(contract, (2, 7, 2), seed=5)
    whole = contribute(make_parameters(size, 4), batch, terms=terms)
    monkeypatch.setattr(any_module, "_GRADIENTS_AT_ONCE", 3 * 2 * size)
    parts = contribute(make_parameters(size, 4), batch, terms=terms)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_same_codes_in_all_rows_of_a_consumer_count_together() -> None:
    contract = contract_for(2, (3, 4))
    for model in (LOGISTIC, MLP):
        terms = terms_for(contract, model, clipping_norm=0.8)
        batch = make_batch(contract, (1, 6, 5), seed=8, empty=0)
        batch.categories[:] = [1, 2]
        parameters = make_parameters(terms.dimension, 3)
        vectors = consumer_vectors(built_in(terms, parameters), batch)
        check_each(parameters, batch, terms, vectors)


def test_opposite_rows_that_cancel_stay_within_the_bound() -> None:
    """Equal rows with opposite labels cancel; huge activations make rounding errors matter."""
    contract = contract_for(3, ())
    terms = terms_for(contract, {"model": "mlp", "hidden": (4,)}, clipping_norm=1.0)
    batch = make_batch(contract, (4, 1, 2), seed=1, empty=0)
    batch.numbers[:, :, 1] = batch.numbers[:, :, 0]
    batch.labels[...] = [0, 1]
    for scale in (1.0, 1e3, 1e6, 1e9, 1e15):
        parameters = np.abs(make_parameters(terms.dimension, 9)) * np.float32(scale)
        parameters[-5:] = [scale, -scale, scale, -scale, 0]
        sums = contribute(parameters, batch, terms=terms)
        assert np.linalg.norm(sums.astype(np.float64), axis=1).max() <= 1 + 1e-6


def test_rows_that_almost_cancel_stay_within_the_bound() -> None:
    """Rows a few units in the last place apart, with gradients 10^9 times their difference: the
    Gram matrix alone, even in float64, would tell their norm too low."""
    contract = contract_for(16, ())
    terms = terms_for(contract, {"model": "mlp", "hidden": (32,)}, clipping_norm=1.0)
    shape = network(contract, parse(terms))
    weight, bias, last, _ = shape.parts
    draw = np.random.default_rng(3)
    parameters = np.zeros(terms.dimension, dtype=np.float32)
    incoming = np.repeat(draw.random((16, 16)), 2, axis=0)  # pairs of equal units
    parameters[weight.offset : weight.end] = incoming.reshape(-1)
    parameters[bias.offset : bias.end] = 0.1
    parameters[last.offset : last.end] = np.tile([1e9, -1e9], 16)  # that cancel in the logit
    batch = make_batch(contract, (300, 1, 2), seed=1, empty=0)
    steps = draw.integers(1, 4, (300, 1, 16)).astype(np.float32) * np.float32(2**-24)
    batch.numbers[:, :, 1] = batch.numbers[:, :, 0] + steps
    batch.labels[...] = [0, 1]
    sums = contribute(parameters, batch, terms=terms).astype(np.float64)
    assert np.linalg.norm(sums, axis=1).max() <= 1 + 1e-6


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("consumers", [1, 256])
@pytest.mark.parametrize("clipping_norm", [1e-9, 1e-3, 1.0])
def test_factors_and_products_too_small_for_float32_do_not_lift_the_norm(
    rows: int, consumers: int, clipping_norm: float
) -> None:
    """Weights that take activations, gradients or both to the ends of float32's range."""
    contract = contract_for(3, (4,))
    terms = terms_for(contract, {"model": "mlp", "hidden": (6, 5)}, clipping_norm=clipping_norm)
    parts = {part.name: part for part in network(contract, parse(terms)).parts}
    batch = make_batch(contract, (4, consumers, rows), seed=2, empty=0)
    batch.present[:, 1:] = 0
    exponents = [(a, 0, b) for a in (-20, 0, 8, 14, 18, 25, 36) for b in (-38, -20, -10, 0, 20)]
    exponents += [(34, -34, -34), (33, -33, -34), (30, -30, -34)]
    for powers in exponents:
        parameters = np.abs(make_parameters(terms.dimension, 4))
        for layer, power in enumerate(powers):
            part = parts[f"weight {layer}"]
            parameters[part.offset : part.end] *= np.float32(10.0**power)
        sums = contribute(parameters, batch, terms=terms).astype(np.float64)
        assert np.linalg.norm(sums, axis=1).max() <= clipping_norm * (1 + 1e-6)


def test_gradients_whose_squares_vanish_in_float32_are_clipped() -> None:
    """A sure and right answer and small weights leave gradients of 1e-23, whose squares float32
    does not hold; activations of 1e17 make a vector of them that is far above C."""
    contract = contract_for(3, ())
    terms = terms_for(contract, {"model": "mlp", "hidden": (6, 5)}, clipping_norm=1e-9)
    parts = {part.name: part for part in network(contract, parse(terms)).parts}
    batch = make_batch(contract, (4, 256, 1), seed=2, empty=0)
    batch.present[:, 1:] = 0
    batch.labels[...] = 0
    parameters = np.abs(make_parameters(terms.dimension, 4))
    for name, factor in (("weight 0", 1e17), ("weight 1", 1e-17), ("weight 2", 1e-11)):
        parameters[parts[name].offset : parts[name].end] *= np.float32(factor)
    parameters[-1] = -28
    sums = contribute(parameters, batch, terms=terms).astype(np.float64)
    norms = np.linalg.norm(sums, axis=1)
    assert norms.max() <= 1e-9 * (1 + 1e-6)
    assert norms.min() > 0


def test_rows_that_cancel_leave_no_rounding_error_behind() -> None:
    """Unclipped rows here are 10^4 C: float32 sums of them would be off by more than 0.01 C."""
    contract = contract_for(16, ())
    terms = terms_for(contract, LOGISTIC, clipping_norm=1e-4)
    batch = make_batch(contract, (2, 256, 4), seed=1, empty=0)
    batch.numbers[:, :, 2:] = batch.numbers[:, :, :2]
    batch.labels[...] = [0, 0, 1, 1]
    order = np.random.default_rng(1).permuted(np.tile(np.arange(4), (2, 256, 1)), axis=2)
    batch.numbers[...] = np.take_along_axis(batch.numbers, order[..., None], axis=2)
    batch.labels[...] = np.take_along_axis(batch.labels, order, axis=2)
    sums = contribute(np.zeros(terms.dimension, dtype=np.float32), batch, terms=terms)
    assert np.abs(sums).max() <= 1e-6 * 1e-4


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 4),
    exponent=st.integers(-12, 37),
    clipping_norm=st.sampled_from([1e-3, 1.0, 40.0]),
    model=st.sampled_from([LOGISTIC, MLP]),
)
def test_no_consumer_adds_more_than_the_clipping_norm(
    seed: int, rows: int, exponent: int, clipping_norm: float, model: dict[str, Any]
) -> None:
    """One consumer a block, whatever the parameters, finite ones that overflow included."""
    contract = contract_for(3, (4,))
    terms = terms_for(contract, model, clipping_norm=clipping_norm)
    batch = make_batch(contract, (6, 1, rows), seed)
    with np.errstate(over="ignore"):
        parameters = make_parameters(terms.dimension, seed, scale=float(10.0**exponent))
    parameters = np.clip(parameters, -3e38, 3e38)
    sums = contribute(parameters, batch, terms=terms).astype(np.float64)
    assert np.linalg.norm(sums, axis=1).max() <= clipping_norm * (1 + 1e-6)


def spoil(batch: Batch, field: str, value: float, row: int) -> Batch:
    array = getattr(batch, field).copy()
    array[1, 2, row] = value
    return dataclasses.replace(batch, **{field: array})


@pytest.mark.parametrize("model", [LOGISTIC, MLP, None], ids=["logistic", "mlp", "installed"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("numbers", np.nan),
        ("numbers", np.inf),
        ("numbers", -3e38),
        ("labels", np.nan),
        ("labels", np.inf),
        ("categories", 5),
        ("categories", -1),
        ("categories", 2**62),
    ],
)
def test_a_consumer_that_is_not_finite_adds_zero_and_touches_nobody(
    install: Any, model: dict[str, Any] | None, field: str, value: float
) -> None:
    contract = contract_for(4, (5,))
    if model is None:
        install(lambda contract: Normed(4, 5))
        size = sum(parameter.numel() for parameter in Normed(4, 5).parameters())
        model = {"model": INSTALLED, "parameters": size}
    terms = terms_for(contract, model)
    parameters = make_parameters(terms.dimension, 6)
    for rows in (1, 3):
        clean = make_batch(contract, (3, 6, rows), seed=7, empty=0)
        without = dataclasses.replace(clean, present=clean.present.copy())
        without.present[1, 2] = 0
        spoiled = spoil(clean, field, value, rows - 1)
        sums = contribute(parameters, spoiled, terms=terms)
        np.testing.assert_allclose(
            sums, contribute(parameters, without, terms=terms), rtol=0, atol=1e-7
        )
        assert np.abs(sums - contribute(parameters, clean, terms=terms)).max() > 1e-4


def test_what_lies_in_an_empty_slot_does_not_matter() -> None:
    contract = contract_for(4, (5,))
    for model in (LOGISTIC, MLP):
        terms = terms_for(contract, model)
        parameters = make_parameters(terms.dimension, 6)
        clean = make_batch(contract, (2, 6, 3), seed=11)
        dirty = Batch(
            numbers=np.where(clean.present[..., None] > 0, clean.numbers, np.float32(np.nan)),
            categories=np.where(clean.present[..., None] > 0, clean.categories, -7),
            labels=np.where(clean.present > 0, clean.labels, np.float32(np.inf)),
            present=clean.present,
        )
        np.testing.assert_array_equal(
            contribute(parameters, dirty, terms=terms), contribute(parameters, clean, terms=terms)
        )


def test_an_empty_batch_adds_exactly_zero(install: Any) -> None:
    contract = contract_for(4, (5,))
    install(lambda contract: Normed(4, 5))
    size = sum(parameter.numel() for parameter in Normed(4, 5).parameters())
    for model in (LOGISTIC, MLP, {"model": INSTALLED, "parameters": size}):
        terms = terms_for(contract, model)
        for rows in (1, 2):
            empty = make_batch(contract, (2, 5, rows), seed=1, empty=1.1)
            sums = contribute(make_parameters(terms.dimension, 6), empty, terms=terms)
            assert not sums.any()


def test_finite_parameters_that_overflow_give_zero_not_nan() -> None:
    contract = contract_for(4, (5,))
    for rows in (1, 2):
        terms = terms_for(contract, {"model": "mlp", "hidden": (6, 6)})
        parameters = make_parameters(terms.dimension, 6, scale=1e37)
        batch = make_batch(contract, (2, 300, rows), seed=1)
        sums = contribute(parameters, batch, terms=terms)
        assert np.isfinite(sums).all()


def test_chunks_of_blocks_do_not_change_the_sums() -> None:
    contract = contract_for(4, (5,))
    terms = terms_for(contract, MLP)
    parameters = make_parameters(terms.dimension, 6)
    batch = make_batch(contract, (24, 200, 1), seed=2)  # 10 blocks, 10, then 4
    sums = contribute(parameters, batch, terms=terms)
    for block in (0, 9, 10, 19, 20, 23):
        alone = Batch(
            *(getattr(batch, f.name)[block : block + 1] for f in dataclasses.fields(batch))
        )
        np.testing.assert_allclose(
            contribute(parameters, alone, terms=terms)[0], sums[block], atol=1e-5
        )


def test_arrays_that_may_not_be_written_are_taken() -> None:
    contract = contract_for(4, (5,))
    terms = terms_for(contract, MLP)
    batch = make_batch(contract, (2, 3, 2), seed=2)
    parameters = make_parameters(terms.dimension, 6)
    for array in (batch.numbers, batch.categories, batch.labels, batch.present, parameters):
        array.flags.writeable = False
    assert contribute(parameters, batch, terms=terms).shape == (2, terms.dimension)


def test_precision_is_highest_inside_and_as_before_afterwards() -> None:
    before = torch.get_float32_matmul_precision()
    with model_module.exact_float32():
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.is_grad_enabled()
    assert torch.get_float32_matmul_precision() == before


class Mixing(Normed):
    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return super().forward(numbers - numbers.mean(0), codes)


class Wide(Normed):
    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return super().forward(numbers, codes)[:, None]


def batch_normed() -> nn.Module:
    module = Normed(4, 5)
    module.norm = nn.BatchNorm1d(6)
    return module


def frozen() -> nn.Module:
    module = Normed(4, 5)
    module.first.weight.requires_grad_(False)
    return module


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (batch_normed, "GroupNorm or LayerNorm"),
        (lambda: Mixing(4, 5), "rows beside it"),
        (lambda: Wide(4, 5), "one logit a row"),
        (frozen, "register constants as buffers"),
        (lambda: Normed(3, 5), "set `parameters`"),
        (lambda: "no module", "no torch module"),
        (lambda: 1 / 0, "its package fails"),
    ],
)
def test_a_module_that_cannot_be_clipped_is_refused(install: Any, make: Any, words: str) -> None:
    contract = contract_for(4, (5,))
    install(lambda contract: make())
    size = sum(parameter.numel() for parameter in Normed(4, 5).parameters())
    terms = terms_for(contract, {"model": INSTALLED, "parameters": size})
    with pytest.raises(RecipeError, match=words):
        contribute(make_parameters(size, 1), make_batch(contract, (1, 2, 1), seed=1), terms=terms)


def test_a_model_that_is_not_installed_is_refused() -> None:
    contract = contract_for(4, (5,))
    terms = terms_for(contract, {"model": "nobody-has-this", "parameters": 3})
    with pytest.raises(RecipeError, match="install exactly one"):
        contribute(make_parameters(3, 1), make_batch(contract, (1, 2, 1), seed=1), terms=terms)


def test_what_does_not_fit_the_terms_is_refused() -> None:
    contract = contract_for(4, (5,))
    terms = terms_for(contract, LOGISTIC)
    batch = make_batch(contract, (1, 2, 1), seed=1)
    good = make_parameters(terms.dimension, 1)
    bad = good.copy()
    bad[3] = np.nan
    for parameters in (good[:-1], good.astype(np.float64), bad):
        with pytest.raises(RecipeError, match="parameters"):
            contribute(parameters, batch, terms=terms)
    for change in (
        {"numbers": batch.numbers[..., :3]},
        {"numbers": batch.numbers.astype(np.float64)},
        {"categories": batch.categories.astype(np.int32)},
        {"labels": batch.labels[:, :1]},
        {"present": batch.present[0]},
        {"present": batch.present[:0]},
    ):
        with pytest.raises(RecipeError, match="batch"):
            contribute(good, dataclasses.replace(batch, **change), terms=terms)


def test_vectors_of_the_reference_are_not_all_clipped_alike() -> None:
    """The comparison above has power: at norm 0.5 some vectors are clipped and some are not."""
    contract = contract_for(4, (3, 5))
    terms = terms_for(contract, MLP, clipping_norm=0.5)
    reference = built_in(terms, make_parameters(terms.dimension, 1))
    norms = consumer_vectors(reference, make_batch(contract, (2, 11, 2), seed=2)).norm(dim=2)
    assert (norms > 0.5).any()
    assert ((norms > 0) & (norms < 0.5)).any()


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("settings", [LOGISTIC, MLP], ids=["logistic", "mlp"])
def test_centred_numbers_enter_from_minus_one_to_one(settings: dict[str, Any], rows: int) -> None:
    terms = terms_for(contract_for(3, (2,)), settings | {"centred": True}, clipping_norm=0.6)
    plain = terms_for(contract_for(3, (2,)), settings, clipping_norm=0.6)
    batch = make_batch(terms.contract, (2, 9, rows), seed=rows)
    moved = dataclasses.replace(batch, numbers=2 * batch.numbers - 1)
    parameters = make_parameters(terms.dimension, 6)
    sums = contribute(parameters, batch, terms=terms)
    assert np.array_equal(sums, contribute(parameters, moved, terms=plain))
    assert not np.array_equal(sums, contribute(parameters, batch, terms=plain))
    scores = model_module.score(terms, parameters, batch.numbers, batch.categories)
    expected = model_module.score(plain, parameters, moved.numbers, batch.categories)
    assert np.array_equal(scores, expected)


CROSSED = [LOGISTIC | {"crosses": ("c0*c1", "c2*c0")}, MLP | {"crosses": ("c1*c2",)}]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("settings", CROSSED, ids=["logistic", "mlp"])
def test_a_cross_is_one_more_column_with_a_code_for_every_pair(
    settings: dict[str, Any], rows: int
) -> None:
    """Against a contract that has the crossed columns written out."""
    sizes, pairs = (3, 2, 4), [pair.split("*") for pair in settings["crosses"]]
    places = [(int(first[1]), int(second[1])) for first, second in pairs]
    terms = terms_for(contract_for(2, sizes), settings, clipping_norm=0.6)
    batch = make_batch(terms.contract, (2, 9, rows), seed=rows)
    written = [batch.categories[..., a] * sizes[b] + batch.categories[..., b] for a, b in places]
    plain = {key: value for key, value in settings.items() if key != "crosses"}
    wide = terms_for(
        contract_for(2, (*sizes, *(sizes[a] * sizes[b] for a, b in places))),
        plain,
        clipping_norm=0.6,
    )
    assert wide.dimension == terms.dimension
    parameters = make_parameters(terms.dimension, 6)
    codes = np.concatenate([batch.categories, np.stack(written, -1)], -1)
    wide_batch = dataclasses.replace(batch, categories=codes)
    sums = contribute(parameters, batch, terms=terms)
    assert np.array_equal(sums, contribute(parameters, wide_batch, terms=wide))
    scores = model_module.score(terms, parameters, batch.numbers, batch.categories)
    assert np.array_equal(scores, model_module.score(wide, parameters, batch.numbers, codes))


@pytest.mark.parametrize("code", [-1, 3, 7, 2**62, -(2**62)])
def test_a_code_outside_its_column_is_not_hidden_by_a_cross(code: int) -> None:
    terms = terms_for(contract_for(1, (3, 2)), LOGISTIC | {"crosses": ("c0*c1",)})
    batch = make_batch(terms.contract, (1, 2, 1), seed=1, empty=0)
    batch.categories[0, 0, 0] = (code, 0)
    parameters = make_parameters(terms.dimension, 2)
    other = dataclasses.replace(batch, present=batch.present * np.float32([[[0], [1]]]))
    sums = contribute(parameters, batch, terms=terms)
    assert np.array_equal(sums, contribute(parameters, other, terms=terms))
    scores = model_module.score(terms, parameters, batch.numbers, batch.categories)
    assert np.isnan(scores[0, 0, 0])
    assert np.isfinite(scores[0, 1, 0])


@pytest.mark.parametrize(
    ("crosses", "words"),
    [
        (("c0*c9",), "crosses 'c9', which is no category"),
        (("n0*c0",), "crosses 'n0', which is no category"),
        (("c0",), "crosses '', which is no category"),
        (("c0*c1*c0",), "crosses 'c1*c0', which is no category"),
        (("c0*c0",), "'c0*c0' adds nothing"),
        (("c0*c1", "c1*c0"), "'c1*c0' adds nothing"),
    ],
)
def test_a_cross_of_no_two_categories_is_refused(crosses: tuple[str, ...], words: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(words)):
        terms_for(contract_for(1, (3, 2)), LOGISTIC | {"crosses": crosses})


def test_binned_numbers_are_crossed_like_categories() -> None:
    spend = Column(name="spend", kind="number", low=0.0, high=9.0, edges=(2.0, 5.0))
    kind = Column(name="kind", kind="category", values=("A", "B"))
    contract = make_contract(columns=(spend, kind))
    assert terms_for(contract, LOGISTIC | {"crosses": ("kind*spend",)}).dimension == 3 + 2 + 6 + 1
