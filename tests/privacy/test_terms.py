"""Terms: rules of the house, canonical form and hash."""

import copy
import json
from typing import Any

import pytest

from privacy.errors import TermsError
from privacy.terms import PHASES_AHEAD, Column, PhaseDeadlines, Terms
from tests.conftest import identity

PRIVACY = {
    "clipping_norm": 1.5,
    "noise_multiplier": 1.25,
    "sampling_probability": 0.05,
    "rounds": 20,
    "max_attempts": 25,
    "delta": 1e-6,
    "cohort_size": 8,
    "colluders": 2,
    "dropouts": 1,
    "ring_bits": 32,
}


def document(**privacy: Any) -> dict[str, Any]:
    """A valid document; keyword arguments replace privacy parameters."""
    changed = PRIVACY | privacy
    return {
        "version": 1,
        "alliance": "groceries",
        "study": "churn",
        "purpose": "Who stops buying.",
        "recipe": "propensity",
        "settings": {"hidden": [16, 8], "learning_rate": 0.25, "seed_name": "a"},
        "dimension": 1000,
        "contract": {
            "name": "baskets",
            "version": 1,
            "consumer_id": "household",
            "label": "stopped",
            "columns": [
                {"name": "spend", "kind": "number", "low": 0.0, "high": 100.5, "scale": "log"},
                {"name": "region", "kind": "category", "values": ["north", "south"]},
            ],
            "rows_per_consumer": 4,
        },
        "privacy": changed,
        "roster": [
            roster_entry(f"member-{number}", 1000) for number in range(changed["cohort_size"])
        ],
    }


def roster_entry(name: str, declared: int) -> dict[str, Any]:
    """A member as a document names it."""
    return {"name": name, "identity": identity(name).public, "declared_consumers": declared}


def parse(changed: dict[str, Any]) -> Terms:
    """Terms from a document."""
    return Terms.from_json(json.dumps(changed))


def make_terms(*, dimension: int = 1000, declared: int = 1000, **privacy: Any) -> Terms:
    """Valid terms for tests of other modules."""
    changed = document(**privacy)
    changed["dimension"] = dimension
    for entry in changed["roster"]:
        entry["declared_consumers"] = declared
    return parse(changed)


@pytest.mark.parametrize(
    ("privacy", "complaint"),
    [
        ({"colluders": 0}, "greater than or equal to 1"),
        ({"colluders": 6, "dropouts": 1}, "R1.*colluders"),
        ({"colluders": 4, "dropouts": 2}, "R1.*colluders"),
        ({"cohort_size": 4, "colluders": 3, "dropouts": 0}, "R1.*at least 2"),
        ({"cohort_size": 3, "colluders": 1, "dropouts": 1}, "R1.*colluders"),
        ({"cohort_size": 2, "colluders": 1, "dropouts": 0}, "cohort_size"),
        ({"max_attempts": 19}, "max_attempts must be at least rounds"),
        ({"noise_multiplier": 1e-320}, "noise_multiplier"),
        ({"clipping_norm": 1e-320}, "clipping_norm"),
        ({"sampling_probability": 1e-12}, "sampling_probability"),
        ({"noise_multiplier": 0.0}, "noise_multiplier"),
        ({"sampling_probability": 1.1}, "sampling_probability"),
        ({"delta": 0.01}, "delta"),
        ({"ring_bits": 48}, "ring_bits"),
        ({"rounds": "20"}, "rounds"),
        ({"dropouts": -1}, "dropouts"),
    ],
)
def test_privacy_that_breaks_a_rule_is_refused(privacy: dict[str, Any], complaint: str) -> None:
    with pytest.raises(TermsError, match=complaint):
        parse(document(**privacy))


def test_infinite_noise_is_refused() -> None:
    text = json.dumps(document()).replace("1.25", "Infinity")
    with pytest.raises(TermsError, match="noise_multiplier"):
        Terms.from_json(text)


def test_largest_allowed_collusion_and_dropout_are_accepted() -> None:
    terms = parse(document(cohort_size=8, colluders=3, dropouts=2))
    assert terms.privacy.honest_survivors == 3
    assert terms.privacy.least_survivors == 6


@pytest.mark.parametrize("count", [1, 9, 10, 50, 400, 1000, 90_000])
def test_one_digit_counts_are_accepted(count: int) -> None:
    assert make_terms(declared=count).roster[0].declared_consumers == count


@pytest.mark.parametrize("count", [0, -10, 11, 150, 1001, 120_000])
def test_other_counts_are_refused(count: int) -> None:
    with pytest.raises(TermsError, match="declared_consumers"):
        make_terms(declared=count)


def test_duplicate_roster_names_are_refused() -> None:
    changed = document()
    changed["roster"][1]["name"] = changed["roster"][0]["name"]
    with pytest.raises(TermsError, match="roster names must be distinct"):
        parse(changed)


def test_roster_smaller_than_cohort_is_refused() -> None:
    changed = document()
    changed["roster"].pop()
    with pytest.raises(TermsError, match="roster is smaller"):
        parse(changed)


def test_duplicate_columns_are_refused() -> None:
    changed = document()
    changed["contract"]["columns"][0]["name"] = "household"
    with pytest.raises(TermsError, match="column names must be distinct"):
        parse(changed)


@pytest.mark.parametrize("where", [(), ("privacy",), ("contract",), ("roster", 0)])
def test_unknown_keys_are_refused(where: tuple[Any, ...]) -> None:
    changed = document()
    target: Any = changed
    for step in where:
        target = target[step]
    target["surprise"] = 1
    with pytest.raises(TermsError, match=r"surprise.*; update this software if"):
        parse(changed)


def test_another_version_is_refused_with_the_remedy() -> None:
    with pytest.raises(TermsError, match=r"version: .* 1; update this software if"):
        parse(document() | {"version": 2})


def test_settings_that_imitate_the_canonical_form_are_refused() -> None:
    changed = document()
    changed["settings"]["rate_billionths"] = 1
    with pytest.raises(TermsError, match="_billionths"):
        parse(changed)


def test_text_that_is_not_json_is_refused() -> None:
    with pytest.raises(TermsError, match="terms: document"):
        Terms.from_json(b"{")


def test_canonical_form_holds_integers_only() -> None:
    def numbers(value: Any) -> list[Any]:
        if isinstance(value, dict):
            return [number for item in value.values() for number in numbers(item)]
        if isinstance(value, list):
            return [number for item in value for number in numbers(item)]
        return [value] if isinstance(value, (int, float)) else []

    canonical = parse(document()).canonical()
    found = numbers(json.loads(canonical))
    assert found
    assert all(isinstance(number, int) for number in found)
    parsed = json.loads(canonical)
    assert parsed["privacy"]["noise_multiplier_billionths"] == 1_250_000_000
    assert parsed["settings"]["learning_rate_billionths"] == 250_000_000


def test_canonical_form_ignores_order_and_spacing() -> None:
    changed = document()
    reordered = dict(reversed(list(changed.items())))
    assert Terms.from_json(json.dumps(reordered, indent=3)).hash == parse(changed).hash


def test_more_than_nine_decimals_are_refused() -> None:
    assert make_terms(delta=1e-9).hash
    with pytest.raises(TermsError, match="nine decimals"):
        _ = make_terms(delta=1.5e-9).hash


def test_round_trip_keeps_terms_and_hash() -> None:
    terms = parse(document())
    again = Terms.from_json(terms.model_dump_json())
    assert again == terms
    assert again.hash == terms.hash
    assert len(terms.hash) == 64


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all scalars in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    paths = []
    for key, item in items:
        if isinstance(item, (dict, list)):
            paths += leaves(item, (*path, key))
        else:
            paths.append((*path, key))
    return paths


CHANGES = {
    ("version",): None,  # one value only
    ("contract", "columns", 0, "kind"): None,
    ("contract", "columns", 1, "kind"): None,
    ("contract", "columns", 0, "scale"): "linear",
    ("privacy", "ring_bits"): 64,
    ("privacy", "colluders"): 1,
    ("privacy", "cohort_size"): 7,
    ("privacy", "sampling_probability"): 0.06,
}


def test_hash_changes_with_every_field() -> None:
    original = document()
    seen = {parse(original).hash}
    checked = 0
    for path in leaves(original):
        changed = copy.deepcopy(original)
        target: Any = changed
        for step in path[:-1]:
            target = target[step]
        value = target[path[-1]]
        if path in CHANGES:
            if CHANGES[path] is None:
                continue
            target[path[-1]] = CHANGES[path]
        elif path[-1] == "declared_consumers":
            target[path[-1]] = 2000
        elif path[-1] == "identity":
            target[path[-1]] = identity(f"another {value}").public
        elif isinstance(value, str):
            target[path[-1]] = value + "x"
        else:
            target[path[-1]] = value + (1 if isinstance(value, int) else 0.000000001)
        if path == ("privacy", "rounds"):
            target[path[-1]] = 19
        fingerprint = parse(changed).hash
        assert fingerprint not in seen or path[0] == "roster", path
        assert fingerprint != parse(original).hash, path
        seen.add(fingerprint)
        checked += 1
    assert checked > 40


def test_entry_names_the_stranger() -> None:
    terms = parse(document())
    assert terms.entry("member-3").declared_consumers == 1000
    with pytest.raises(TermsError, match="mallory"):
        terms.entry("mallory")


def test_terms_from_before_there_were_deadlines_keep_their_hash() -> None:
    old = parse(document())
    assert b"deadlines" not in old.canonical()
    assert "deadlines" not in old.model_dump_json()
    defaults = parse(document() | {"deadlines": {}})
    assert defaults == old
    assert defaults.hash == old.hash
    assert old.deadlines.contribute_s == 30.0


def test_deadlines_are_signed() -> None:
    hashes = {parse(document()).hash}
    for name in PhaseDeadlines.model_fields:
        terms = parse(document() | {"deadlines": {name: 7.5}})
        assert Terms.from_json(terms.model_dump_json()) == terms
        assert Terms.from_canonical(json.loads(terms.canonical())) == terms
        hashes.add(terms.hash)
    assert len(hashes) == len(PhaseDeadlines.model_fields) + 1


def test_every_phase_has_its_deadline() -> None:
    deadlines = PhaseDeadlines(
        propose_s=1.0, keys_s=2.0, contribute_s=3.0, unmask_s=4.0, publish_s=5.0
    )
    assert [deadlines.of(phase) for phase in ("propose", "contribute", "publish")] == [1, 3, 5]
    assert {deadlines.of(phase) for phase in PHASES_AHEAD} == {2.0}
    assert {deadlines.of(phase) for phase in ("confirm", "unmask")} == {4.0}
    with pytest.raises(TermsError, match="no study has a phase 'guess'"):
        deadlines.of("guess")


@pytest.mark.parametrize("change", [{"contribute_s": 0.0}, {"grace_s": -1.0}, {"keys_s": 1e6}])
def test_deadlines_out_of_range_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(TermsError, match=f"deadlines.{next(iter(change))}"):
        parse(document() | {"deadlines": change})


def with_edges(*edges: float) -> dict[str, Any]:
    changed = document()
    changed["contract"]["columns"][0]["edges"] = list(edges)
    return changed


def test_a_binned_number_is_read_as_a_category() -> None:
    contract = parse(with_edges(10, 20.5, 100.5)).contract
    assert contract.numbers == ()
    assert [(column.name, column.codes) for column in contract.categories] == [
        ("spend", 4),
        ("region", 2),
    ]


def test_edges_are_in_the_hash_and_come_back_from_the_canonical_form() -> None:
    terms = parse(with_edges(10, 20.5))
    canonical = json.loads(terms.canonical())
    column = canonical["contract"]["columns"][0]
    assert column["edges_billionths"] == [10_000_000_000, 20_500_000_000]
    assert Terms.from_canonical(canonical) == terms
    assert Terms.from_json(terms.model_dump_json()).hash == terms.hash
    hashes = {parse(with_edges(*edges)).hash for edges in ((10, 20.5), (10, 20), (10,), ())}
    assert len(hashes) == 4


def test_without_edges_the_document_is_what_it_was() -> None:
    assert parse(with_edges()).canonical() == parse(document()).canonical()
    assert b"edges" not in parse(document()).canonical()
    assert "edges" not in parse(document()).model_dump_json()


@pytest.mark.parametrize("edges", [(0.0, 5), (-1, 5), (5, 5), (7, 5), (5, 101)])
def test_edges_that_do_not_increase_within_the_range_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(TermsError, match="spend needs edges that increase, above low, up to high"):
        parse(with_edges(*edges))


def test_a_category_has_no_edges() -> None:
    changed = document()
    changed["contract"]["columns"][1]["edges"] = [1.0]
    with pytest.raises(TermsError, match="takes no range, no scale and no edges"):
        parse(changed)


def with_buckets(buckets: int, **column: Any) -> dict[str, Any]:
    changed = document()
    changed["contract"]["columns"][1] = {"name": "town", "kind": "category", "buckets": buckets}
    changed["contract"]["columns"][1] |= column
    return changed


def test_buckets_are_in_the_hash_and_come_back_from_the_canonical_form() -> None:
    terms = parse(with_buckets(16))
    assert Terms.from_canonical(json.loads(terms.canonical())) == terms
    assert len({parse(with_buckets(buckets)).hash for buckets in (2, 16, 17)}) == 3
    assert terms.contract.columns[1].codes == 16
    assert b"buckets" not in parse(document()).canonical()
    assert "buckets" not in parse(document()).model_dump_json()


@pytest.mark.parametrize(
    ("buckets", "column"), [(1, {}), (16, {"values": ["A", "B"]}), (16, {"low": 0.0})]
)
def test_buckets_stand_alone(buckets: int, column: dict[str, Any]) -> None:
    with pytest.raises(TermsError, match=r"needs two or more buckets|takes no range"):
        parse(with_buckets(buckets, **column))
    changed = document()
    changed["contract"]["columns"][0]["buckets"] = 16
    with pytest.raises(TermsError, match="number column spend takes no buckets"):
        parse(changed)


def test_a_bucket_is_the_same_everywhere() -> None:
    """Digests are those of coreutils' sha256sum."""
    town = parse(with_buckets(1000)).contract.columns[1]
    assert [town.bucket(value) for value in ("Lyon", "上海", "")] == [232, 838, 999]


def test_a_contract_that_is_changed_and_copied_has_its_own_columns() -> None:
    """As where a member reads binned numbers plainly: nothing of the first is remembered."""
    contract = make_terms().contract
    edges = Column(name="x", kind="number", low=0.0, high=1.0, edges=(0.5,))
    binned = contract.model_copy(update={"columns": (edges,)})
    assert (binned.numbers, binned.categories) == ((), (edges,))
    plain = edges.model_copy(update={"edges": ()})
    changed = binned.model_copy(update={"columns": (plain,)})
    assert (changed.numbers, changed.categories) == ((plain,), ())
