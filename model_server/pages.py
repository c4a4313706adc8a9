"""Which web pages may use the server, and by which names it may be called.

A browser lets every page send some requests to every server, its user's own machine included. It says in `Origin` and
`Sec-Fetch-Site` which page asks, and no page can change that. Programs send neither. Must not know the web framework.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from model_server.errors import APIError

ANY = "*"


def host_name(address: str) -> str:
    "The name in a `Host` header, without its port, in lower case; empty where there is none."
    try:
        return (urlsplit(f"//{address}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def is_loopback(name: str) -> bool:
    "Does only this machine answer to the name?"
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def check_host(host: str, names: tuple[str, ...]) -> None:
    """`APIError` 403 for a request to a name that is not in `names`, nor one of this machine.

    A foreign page may give its own name the address of this machine (DNS rebinding); its requests then look like those
    of our page, but for the name. What sends no `Host` is no browser.
    """
    if not host or ANY in names:
        return
    name = host_name(host)
    if not is_loopback(name) and name not in names:
        sentence = f"this server does not answer to the name {host!r}"
        raise APIError(403, f"{sentence}; start it with --hosts and that name, or ask http://localhost", "host")


def check_page(origin: str, site: str, host: str, allowed: tuple[str, ...]) -> None:
    "`APIError` 403 for a page of another origin that is not in `allowed`; programs send no `origin` and no `site`."
    if origin in allowed or ANY in allowed or site == "same-origin":
        return
    if origin and not _is_at(origin, host):
        raise APIError(403, f"pages of {origin} may not use this server; start it with --origins {origin}", "origin")
    if site == "cross-site":
        raise APIError(403, "pages of other sites may not use this server; start it with --origins", "origin")


def _is_at(origin: str, host: str) -> bool:
    "Is this the origin of the pages of a host?"
    try:
        return urlsplit(origin).netloc == host
    except ValueError:  # no address at all
        return False
