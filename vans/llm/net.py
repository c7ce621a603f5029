"""Addresses that a key and videos may be sent to."""

import ipaddress
from urllib.parse import urlsplit


def is_local(host: str) -> bool:
    """Is a host this machine?"""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_url(url: str, plain_http: bool | None = None) -> str:
    """An address that a key and videos may be sent to, without a slash at its end.

    plain_http: may http:// go to other machines? None: there is no setting that would allow it.

    Raises ValueError, which never shows the address: what is wrong with it may be that a secret is in it.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("url: is not an address") from None
    if parts.scheme not in ("https", "http") or not host or not url.isprintable() or " " in url:
        raise ValueError("url: must be an address that begins with https://")
    if "@" in parts.netloc:
        raise ValueError("url: holds a user name or password; keys come from the environment alone (key_variable)")
    if parts.query or parts.fragment:
        raise ValueError("url: must not hold ? or #; keys come from the environment alone (key_variable)")
    if parts.scheme == "http" and not is_local(host) and not plain_http:
        how = "use https://" + (" or set plain_http: true" if plain_http is not None else "")
        raise ValueError(f"url: http:// shows key and videos on the way; {how}")
    return url.rstrip("/").removesuffix("/chat/completions")
