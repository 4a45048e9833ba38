"""A certificate that is replaced while many connect."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from client_sdk.reach import server_facts
from tests.enrolled import HOUR, Clock, enrolled

MANY = 60


def test_grpc_is_given_a_certificate_once_and_not_at_each_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given one at each, it freed what another handshake was about to use, and the process died."""
    given = []
    make = grpc.ssl_server_certificate_configuration

    def counted(*arguments: object) -> object:
        given.append(arguments)
        return make(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(grpc, "ssl_server_certificate_configuration", counted)
    clock = Clock()
    with enrolled(tmp_path, clock) as here, ThreadPoolExecutor(8) as callers:

        def shown(_: int) -> bytes:
            return server_facts(here.address, proxy=None, timeout_s=30).certificate

        (first,) = set(callers.map(shown, range(MANY)))
        assert len(given) == 1
        clock.ahead = 17 * HOUR
        (second,) = set(callers.map(shown, range(MANY)))
        assert second != first
        assert len(given) == 2
