"""Unit tests cannot use the network."""

import socket

import pytest


def test_a_unit_test_cannot_use_the_network() -> None:
    with socket.socket() as probe, pytest.raises(RuntimeError, match="used the network"):
        probe.connect(("127.0.0.1", 9))


async def test_an_event_loop_still_works() -> None:
    pass
