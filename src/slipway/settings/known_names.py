"""What settings are checked against: names that exist, addresses, and hints for a wrong name."""

import difflib
import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

Needs = Literal["base_url", "weights"]  # the setting that a kind of provider requires
AddProblem = Callable[[str, str], None]  # (dotted path of the field, what is wrong and the fix)
MAX_WORD = 100  # characters; difflib's time grows with the square of a word's length


class Endpoint(msgspec.Struct, frozen=True):
    """A well-known provider: its address, and the environment variable that usually holds its key
    (None if it needs no key).
    """

    base_url: str
    key_variable: str | None


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's loopback."""
    if host.strip("[]").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def parse_url(address: str) -> SplitResult | None:
    """Return the parts of an http(s) address, or None if it is not one."""
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # an invalid port, or a missing bracket
        return None
    return parts if good and address.isascii() and address.isprintable() else None


def without_login(address: str) -> str:
    """Return an address without the user name and password that may be in it."""
    scheme, mark, rest = address.rpartition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{mark}{place.rpartition('@')[2]}{slash}{path}"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return a hint for a wrong name: a similar known one, or all known ones."""
    known = list(known)
    if len(word) > MAX_WORD:
        return "the name is too long"
    found = difflib.get_close_matches(word, known, 1, 0.5)
    if found:
        return f"did you mean `{found[0]}`?"
    return f"known: {', '.join(sorted(known))}" if known else "none is defined"


class KnownNames(msgspec.Struct, frozen=True, kw_only=True):
    """The names that settings may use: kinds of providers with what each needs, well-known
    providers, weights of local models, kinds of notifiers with their fields, and alerts.
    """

    kinds: Mapping[str, Needs]
    endpoints: Mapping[str, Endpoint]
    weights: Collection[str] = ()
    notifiers: Mapping[str, Collection[str]] = {}
    alerts: Collection[str] = ()

    @property
    def runner(self) -> str:
        """Return the kind of provider that runs weights."""
        return next(kind for kind, needs in self.kinds.items() if needs == "weights")
