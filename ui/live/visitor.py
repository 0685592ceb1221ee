"""Who asks: a name for limits and fairness, taken from the connection."""

from __future__ import annotations

import ipaddress
from typing import Any


def visitor_of(request: Any, proxies: int) -> str:
    """The address behind `proxies` reverse proxies, networks of IPv6 taken as one; the session instead where there is
    no address, or a private one: of this machine's own people, or of a proxy or container network that stands for all.

    request: gr.Request. X-Forwarded-For is believed only as far as our own proxies wrote it: they append.
    """
    session = str(getattr(request, "session_hash", None) or "nobody")[:64]
    client = getattr(request, "client", None)
    host = getattr(client, "host", None)
    if proxies:
        headers = getattr(request, "headers", None) or {}
        told = [part.strip() for part in str(headers.get("x-forwarded-for") or "").split(",")]
        host = told[-proxies] if len(told) >= proxies else host
    try:
        address = ipaddress.ip_address(str(host))
    except ValueError:
        return session
    if not address.is_global:
        return session
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
