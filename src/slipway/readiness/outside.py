"""`slipway check --url`: look at a server from outside, through whatever is in front of it."""

import time
from collections.abc import Sequence

from slipway.readiness import answer_rows, stream_rows, way_rows
from slipway.readiness.proxies import fixes, proxies_in
from slipway.readiness.raw_http import Address, NoConnection, RawResponse, ask, error_in, malformed
from slipway.readiness.rows import CheckRow, Readiness, made, run_checks
from slipway.readiness.site import Site, Wish

GATEWAY = (502, 503, 504)


async def check_url(address: Address, wish: Wish) -> Readiness:
    """Return how a server looks from outside."""
    began_at = time.monotonic()
    try:
        first = await ask(address, "/v1/check")
        strange = await malformed(address)
    except NoConnection as error:
        return made(address.url, began_at, [unreachable(address, error)])
    said = first.json() if first.status == 200 else None
    if said is None or "slipway" not in said:
        return made(address.url, began_at, [not_usable(address, first)])
    site = Site(address, wish, said, [first, strange])
    rows = [
        CheckRow(
            name="server",
            looked_at=address.url,
            state="green",
            says=f"Slipway {said['slipway']} answers{through(site.proxies)}.",
        )
    ]
    rows += await run_checks(way_rows.timing(site))  # by itself: the others would delay it
    rows += await run_checks(
        {**way_rows.checks(site), **stream_rows.checks(site), **answer_rows.checks(site)}
    )
    return made(address.url, began_at, rows)


def through(proxies: Sequence[str]) -> str:
    return f" through {' and '.join(proxies)}" if proxies else ""


def unreachable(address: Address, error: NoConnection) -> CheckRow:
    """Return the row of a server that no connection can be made to."""
    do: tuple[str, ...] = ("Check host and port, and that the proxy or server runs.",)
    if error.untrusted:
        do = (
            "Use a certificate of a public authority, and send the intermediate ones with it.",
            "If it is from an authority of your own, name that: --ca FILE.",
        )
    return CheckRow(
        name="server",
        looked_at=address.url,
        state="red",
        says=f"No connection can be made: {error}.",
        do=do,
    )


def not_usable(address: Address, first: RawResponse) -> CheckRow:
    """Return the row of a server that does not answer `/v1/check` as Slipway does."""
    says, do = why_not(address, first)
    return CheckRow(
        name="server", looked_at=f"{address.url}/v1/check", state="red", says=says, do=do
    )


def why_not(address: Address, first: RawResponse) -> tuple[str, tuple[str, ...]]:
    """Say why nothing more can be checked, and what to do."""
    proxies = proxies_in([first])
    error = error_in(first)
    by = through(proxies)
    if first.status == 401:
        if address.key is None:
            return "The server asks for a key.", ("Name one that may use it: --key KEY.",)
        return (
            f"The server does not accept this key{by}.",
            (
                "Correct --key; if it is right, the proxy may not pass `Authorization` on:",
                *fixes("key", proxies),
            ),
        )
    if first.status == 403 and error.get("param") == "Host":
        return (
            f"The server does not accept the host name that reaches it: {error.get('message')}",
            (
                f"Add `{address.host}` to `listen.allowed_hosts`, and pass the name on:",
                *fixes("host", proxies),
            ),
        )
    if first.status in GATEWAY and not error:
        return (
            f"The proxy answers {first.status}{by}: it does not reach Slipway.",
            ("Check that Slipway runs, and the address that the proxy sends requests to.",),
        )
    if 300 <= first.status < 400:
        where = first.header("location") or "another address"
        return f"It redirects to {where[:200]}.", ("Check that address: --url.",)
    if first.ended == "not HTTP" or not first.status:
        other = "https" if address.scheme == "http" else "http"
        return (
            "What answers does not speak HTTP here.",
            (f"Check the port; perhaps it is {other}://.",),
        )
    return (
        f"What answers here (HTTP {first.status}{by}) is not Slipway, or one before `/v1/check`.",
        (
            "Check the address and the path, and let the proxy pass `/v1/check` on.",
            "If it is an older Slipway, update it.",
        ),
    )
