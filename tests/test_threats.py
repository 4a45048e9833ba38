"""Which test plays which fault of the network and of operation (ATTACKS N and O, and bad input).

The table names tests; a test here finds each of them in its file.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

COVERED: dict[str, tuple[str, ...]] = {
    "N1 no, wrong, expired, early, revoked, somebody else's certificate": (
        "test_link.py:test_certificates_that_are_not_ours_are_refused_in_the_handshake",
        "test_link.py:test_a_stranger_with_a_good_certificate_is_told_why",
        "coordinator/test_admittance.py:test_a_bad_certificate_gets_no_stream",
        "coordinator/test_admittance.py:test_a_revoked_member_s_stream_ends_and_it_is_told_why",
        (
            "coordinator/test_admittance.py:"
            "test_somebody_else_s_certificate_is_of_no_use_without_its_key"
        ),
    ),
    "N2 TLS 1.2": (
        "test_link.py:test_tls_1_2_is_refused_and_1_3_is_spoken",
        "coordinator/test_enrolment.py:test_tls_1_2_finds_no_cipher_at_the_port",
    ),
    "N3 replay": (
        "test_tampering.py:test_changed_bytes_end_the_stream_and_everybody_counts_once",
        "coordinator/test_enrolment.py:test_a_renewal_counts_once_and_for_its_member",
        "coordinator/test_enrolment.py:test_a_nonce_ages",
        "coordinator/test_registry.py:test_an_invitation_admits_once",
        "test_link.py:test_an_answer_to_another_round_is_refused_by_name",
    ),
    "N4 flip, truncate, reorder, duplicate": (
        "test_tampering.py:test_changed_bytes_end_the_stream_and_everybody_counts_once",
        "test_link.py:test_a_broken_contribution_is_refused_by_name_and_the_round_goes_on",
        "protos/test_frames.py:test_a_damaged_frame_is_what_protobuf_says_it_is",
    ),
    "N5 a gibibyte before authentication": (
        "test_strangers.py:test_a_gibibyte_before_authentication_is_refused_early",
        "coordinator/test_enrolment.py:test_a_message_beyond_the_cap_is_refused_unread",
        "test_link.py:test_a_frame_over_one_mebibyte_ends_the_stream",
    ),
    "N6 slow, half-open, rapid reset": (
        "test_strangers.py:test_strangers_keep_nobody_from_the_coordinator",
        "test_strangers.py:test_all_members_come_back_when_every_connection_is_cut",
    ),
    "N7 fuzzed protobuf": (
        "benchmarks/test_fuzz.py:test_no_parser_crashes_or_hangs",
        "protos/test_frames.py:test_an_odd_frame_is_what_protobuf_says_it_is",
        "test_link.py:test_garbage_does_not_end_a_nodes_process",
    ),
    "N8 clock off by minutes, a day, a year, backwards": (
        "client_sdk/test_doctor.py:test_a_clock_that_is_off_is_found",
        "client_sdk/test_doctor.py:test_a_clock_within_five_minutes_is_good",
        (
            "coordinator/test_authority.py:"
            "test_the_coordinator_s_certificate_is_valid_whatever_its_clock_does"
        ),
        "coordinator/test_enrolment.py:test_the_port_renews_its_own_certificate_while_open",
        (
            "coordinator/test_admittance.py:"
            "test_a_stream_ends_with_its_certificate_s_time_and_comes_back_with_another"
        ),
    ),
    "N9 partition and heal": (
        (
            "benchmarks/test_crash_campaign.py:"
            "test_kills_and_faults_lose_nothing_and_what_is_planted_is_seen"
        ),
        "test_link.py:test_a_broken_stream_is_taken_up_again_by_the_session",
        "test_link.py:test_a_member_that_reconnects_in_mid_upload_counts_once",
    ),
    "O1 insecure start": (
        "coordinator/test_authority.py:test_a_coordinator_without_tls_does_not_start",
        "coordinator/test_authority.py:test_an_authority_whose_key_others_may_read_is_not_used",
        "client_sdk/test_doctor.py:test_each_ill_is_found_by_name_and_alone",
    ),
    "O2 equal seeds": (
        "privacy/test_noise.py:test_fresh_streams_give_different_noise_and_a_fixed_key_is_flagged",
    ),
    "O3 fork after the sampler began": (
        "privacy/test_noise.py:test_a_forked_child_draws_other_noise_unless_the_stream_is_derived",
    ),
    "O4 raw data in what leaves a member, logs and databases": (
        "test_connections.py:test_nodes_reach_their_coordinator_alone_and_no_row_leaves_them",
        "test_connections.py:test_a_row_that_leaves_is_seen",
        "test_logs.py:test_logs_hold_no_data_no_update_no_key_and_no_consumer",
        "test_logs.py:test_the_search_finds_what_is_planted",
    ),
    "O5 round secrets on disk": ("test_aggregation.py:test_no_round_secret_is_on_disk",),
    "O6 connections off the allow-list": (
        "test_connections.py:test_nodes_reach_their_coordinator_alone_and_no_row_leaves_them",
        "test_connections.py:test_a_connection_elsewhere_is_seen",
    ),
    "O7 key rotation in mid-run": (
        (
            "test_joining.py:"
            "test_a_newcomer_joins_with_three_commands_rotates_in_mid_study_and_another_is_revoked"
        ),
        (
            "coordinator/test_admittance.py:"
            "test_a_replaced_tls_key_is_refused_and_the_new_one_taken_in_mid_study"
        ),
    ),
    "O8 update values in logs": (
        "test_logs.py:test_logs_hold_no_data_no_update_no_key_and_no_consumer",
    ),
    "bad input: a wrong invitation": (
        (
            "coordinator/test_enrolment.py:"
            "test_a_wrong_used_or_expired_invitation_is_refused_with_the_remedy"
        ),
        "privacy/test_membership.py:test_half_an_invitation_is_refused_with_the_remedy",
    ),
    "bad input: a data contract that does not fit": (
        "client_sdk/test_consent.py:test_another_contract_is_refused_with_the_remedy_which_works",
    ),
    "bad input: configurations that are none": (
        "protos/test_config.py:test_what_is_no_configuration_is_said_in_one_sentence",
        "test_alliance.py:test_configurations_that_are_wrong_are_said_in_one_sentence",
    ),
}


@pytest.mark.parametrize("case", COVERED)
def test_a_case_s_tests_are_there(case: str) -> None:
    for name in COVERED[case]:
        file, _, function = name.partition(":")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        there = {one.name for one in ast.walk(tree) if isinstance(one, ast.FunctionDef)}
        assert function in there, name


def test_every_case_is_played() -> None:
    cases = {case.split()[0] for case in COVERED}
    assert cases >= {f"N{n}" for n in range(1, 10)} | {f"O{n}" for n in range(1, 9)}
