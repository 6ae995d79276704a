"""Where something is on a network: addresses, ports, servers, as text."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from tickwire.names import check_interface
from tickwire.toml.table import checked
from tickwire.toml.words import MISSING, at

__all__ = ["Endpoint", "Interface", "Rerequest", "Server", "SourceAddress", "check_endpoint", "endpoint"]

_ENDPOINT_EXPECTED = 'expected address:port in numbers, like "233.54.12.111:26477" or "[ff02::1]:26477"'


def endpoint(text: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    """The address and the port that a text names; `ValueError` where it names none."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError(_ENDPOINT_EXPECTED) from None
    if bracketed != (address.version == 6) or "%" in host or not _is_port(port):
        raise ValueError(_ENDPOINT_EXPECTED)
    return address, int(port)


def _is_port(text: str) -> bool:
    return re.fullmatch("[0-9]{1,5}", text) is not None and 0 < int(text) < 1 << 16


def check_endpoint(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(_ENDPOINT_EXPECTED)
    endpoint(value)
    return value


def _check_rerequest(value: object) -> object:
    if value != "":
        check_endpoint(value)
        if endpoint(str(value))[0].is_multicast:
            raise ValueError("expected the address of one server, not of a multicast group")
    return value


def _check_server(value: object) -> object:
    if value == "":
        return value
    match = (
        re.fullmatch(r"(?:\[([^\[\]]*)\]|([^\s:@/\[\]]+)):([0-9]+)", value)
        if isinstance(value, str)
        else None
    )
    if match is None or not _is_port(match[3]) or (match[2] is None and not _is_ipv6(match[1])):
        expected = 'expected host:port, like "glimpse.example:18000"'
        if isinstance(value, str) and "@" in value:
            # Whoever writes a password there must not read it in a log.
            raise at("", f"{expected}; who we are is in the file that credentials names", MISSING)
        raise ValueError(expected)
    return value


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def _check_ip(value: object) -> object:
    if value != "":
        try:
            ipaddress.ip_address(value if isinstance(value, str) and "%" not in value else "")
        except ValueError:
            raise ValueError("expected an IPv4 or IPv6 address in numbers") from None
    return value


Endpoint = Annotated[str, BeforeValidator(check_endpoint)]
Rerequest = Annotated[str, BeforeValidator(_check_rerequest)]
Server = Annotated[str, BeforeValidator(_check_server)]
Interface = Annotated[str, Field(max_length=15), checked(check_interface)]
SourceAddress = Annotated[str, BeforeValidator(_check_ip)]
