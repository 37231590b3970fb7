"""Resolves the host of an endpoint once and refuses addresses that are not public (server-side request forgery).

The request then connects to the addresses that were checked: a second DNS query could answer with another address.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import NamedTuple

__all__ = ["AddressRefused", "NameUnresolved", "ResolvedAddress", "is_public", "resolve_checked"]

# `is_global` differs between versions of Python, so the ranges are listed here. Sources: IANA's registries of special
# purpose addresses (RFC 6890 and later).
_IPV4 = tuple(IPv4Network(text) for text in (
    "0.0.0.0/8",        # this host
    "10.0.0.0/8",       # private
    "100.64.0.0/10",    # carrier-grade NAT; some clouds have their metadata here
    "127.0.0.0/8",      # loopback
    "168.63.129.16/32",  # Azure's host services: an address of the public range that only a virtual machine reaches
    "169.254.0.0/16",   # link-local: the metadata services of most clouds
    "172.16.0.0/12",    # private
    "192.0.0.0/24",     # protocol assignments; Oracle's metadata
    "192.0.2.0/24",     # documentation
    "192.31.196.0/24",  # AS112
    "192.52.193.0/24",  # AMT
    "192.88.99.0/24",   # relays of 6to4
    "192.168.0.0/16",   # private
    "192.175.48.0/24",  # AS112
    "198.18.0.0/15",    # benchmarks
    "198.51.100.0/24",  # documentation
    "203.0.113.0/24",   # documentation
    "224.0.0.0/4",      # multicast
    "240.0.0.0/4",      # reserved, broadcast
))
_IPV6_PUBLIC = IPv6Network("2000::/3")  # global unicast; everything else is special
_IPV6 = tuple(IPv6Network(text) for text in (
    "2001::/23",        # protocol assignments, Teredo included
    "2001:db8::/32",    # documentation
    "2620:4f:8000::/48",  # AS112
    "3fff::/20",        # documentation
))
_NAT64 = IPv6Network("64:ff9b::/96")
_6TO4 = IPv6Network("2002::/16")

# A name server that does not answer blocks a thread for 5 to 30 s.
_THREADS = ThreadPoolExecutor(max_workers=32, thread_name_prefix="dns")


class AddressRefused(Exception):
    """The host has an address that is not public, and its endpoint does not allow private ones. `str()`: the
    address."""


class NameUnresolved(Exception):
    """The host has no address."""


class ResolvedAddress(NamedTuple):
    family: socket.AddressFamily
    host: str
    port: int


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to the public internet. An IPv6 form of an IPv4 address (mapped, NAT64, 6to4) is
    public if the IPv4 address is."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _IPV4)
    if address.scope_id is not None:
        return False
    if (inner := _inner_ipv4(address)) is not None:
        return is_public(inner)
    return address in _IPV6_PUBLIC and not any(address in network for network in _IPV6)


def _inner_ipv4(address: IPv6Address) -> IPv4Address | None:
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    if address in _6TO4:
        return IPv4Address(int(address) >> 80 & 0xFFFF_FFFF)
    return None


async def resolve_checked(host: str, port: int, allow_private: bool) -> list[ResolvedAddress]:
    """Returns the addresses of a host name or an IP address.

    Raises AddressRefused if one of them is not public, even if others are, unless `allow_private`. Raises
    NameUnresolved if there is none.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.run_in_executor(
            _THREADS, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except (OSError, UnicodeError) as error:
        raise NameUnresolved(str(error)) from error
    addresses = list(dict.fromkeys(
        ResolvedAddress(family, str(address[0]), port) for family, _, _, _, address in found
        if family in (socket.AF_INET, socket.AF_INET6)))
    if not addresses:
        raise NameUnresolved("the name has no address")
    for address in addresses:
        if not allow_private and not is_public(ip_address(address.host)):
            raise AddressRefused(address.host)
    return addresses
