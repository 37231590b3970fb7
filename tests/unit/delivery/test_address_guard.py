"""Addresses that an endpoint may have: every range of special addresses, in every form that reaches them."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.delivery.http.address_guard import AddressRefused, NameUnresolved, is_public, resolve_checked

SPECIAL_4 = [IPv4Network(text) for text in (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",
    "240.0.0.0/4", "168.63.129.16/32",
)]
SPECIAL_6 = [IPv6Network(text) for text in (
    "::/128", "::1/128", "::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:db8::/32", "3fff::/20", "fc00::/7",
    "fe80::/10", "fec0::/10", "ff00::/8", "5f00::/16",
)]


def address_in(network: Any) -> st.SearchStrategy[Any]:
    first, last = int(network.network_address), int(network.broadcast_address)
    kind = IPv4Address if network.version == 4 else IPv6Address
    return (st.just(first) | st.just(last) | st.integers(first, last)).map(kind)


FORMS = [
    lambda inner: IPv6Address(0xFFFF << 32 | int(inner)),                        # ::ffff:a.b.c.d
    lambda inner: IPv6Address(int(IPv6Address("64:ff9b::")) | int(inner)),        # NAT64
    lambda inner: IPv6Address(0x2002 << 112 | int(inner) << 80 | 1),              # 6to4
    lambda inner: IPv6Address(int(inner)),                                        # ::a.b.c.d
]


@given(st.sampled_from(SPECIAL_4).flatmap(address_in))
def test_special_ipv4_addresses_are_refused_in_every_form(address: IPv4Address) -> None:
    assert not is_public(address)
    for form in FORMS:
        assert not is_public(form(address)), form(address)


@given(st.sampled_from(SPECIAL_6).flatmap(address_in))
def test_special_ipv6_addresses_are_refused(address: IPv6Address) -> None:
    assert not is_public(address)


@given(st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address)
       | st.integers(0, 2**125 - 1).map(lambda low: IPv6Address(1 << 125 | low)))
def test_a_public_address_is_global_for_the_standard_library_too(address: IPv4Address | IPv6Address) -> None:
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast


@pytest.mark.parametrize("text", ["1.1.1.1", "8.8.8.8", "93.184.216.34", "172.32.0.1", "100.128.0.1", "223.255.255.255",
                                  "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"])
def test_public_addresses(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", ["169.254.169.254", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254",
                                  "::ffff:169.254.169.254", "168.63.129.16", "fe80::1%eth0", "2606:4700::1%1"])
def test_metadata_services_and_scoped_addresses(text: str) -> None:
    assert not is_public(ip_address(text))


def resolve(answers: list[str], allow_private: bool = False, host: str = "name.example") -> list[str]:
    addresses = [(socket.AF_INET6 if ":" in answer else socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, 443))
             for answer in answers]
    with patch("socket.getaddrinfo", return_value=addresses) as lookup:
        resolved = asyncio.run(resolve_checked(host, 443, allow_private))
    assert lookup.call_count == 1
    return [address.host for address in resolved]


def test_one_private_address_among_public_ones_refuses_the_host() -> None:
    assert resolve(["1.1.1.1", "2606:4700:4700::1111"]) == ["1.1.1.1", "2606:4700:4700::1111"]
    for private in ("127.0.0.1", "::1", "10.0.0.1", "169.254.169.254"):
        with pytest.raises(AddressRefused):
            resolve(["1.1.1.1", private])
        assert resolve(["1.1.1.1", private], allow_private=True) == ["1.1.1.1", private]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "0.0.0.0", "::1",
                                  "::ffff:127.0.0.1", "::", "fe80::1", "10.1", "169.254.169.254", "::ffff:a9fe:a9fe"])
def test_spellings_of_internal_addresses(host: str) -> None:
    """`getaddrinfo` accepts historic spellings too; the guard checks the resolved address, not the text."""
    with pytest.raises((AddressRefused, NameUnresolved)):
        asyncio.run(resolve_checked(host, 80, False))


@pytest.mark.parametrize("host", ["", "a" * 64 + ".example", "a..b", "\ud800.example", "xn--a"])
def test_hosts_without_an_address(host: str) -> None:
    with patch("socket.getaddrinfo", side_effect=socket.gaierror(-2, "unknown")), pytest.raises(NameUnresolved):
        asyncio.run(resolve_checked(host, 80, False))
    with pytest.raises(NameUnresolved):
        resolve([], host=host)
