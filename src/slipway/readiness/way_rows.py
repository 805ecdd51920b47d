"""What a proxy does to requests: keys, sizes, connections, TLS, and the time that it adds."""

import asyncio
import email.utils
import json
import ssl
import statistics
import time
from collections.abc import Iterable

from slipway.readiness.raw_http import NoConnection, RawResponse, ask, connected
from slipway.readiness.rows import Check, CheckRow, CheckState
from slipway.readiness.site import Site

LIMIT_S = 20.0
UPLOAD_S = 60.0
MIB = 1024 * 1024
HOLD_S = 0.6  # between the two halves of a body
SMALL_HALF, LARGE_HALF = 2_000, 200_000  # bytes; a proxy's buffer is between them
EXPIRES_SOON_DAYS, EXPIRES_NOW_DAYS = 21, 7
SKEW_AMBER_S, SKEW_RED_S = 2.0, 60.0
ADDED_AMBER_S = 0.1
ROUNDS = 5
NO_KEY_NEEDED = ("/metrics", "/v1/models", "/v1/ledger", "/v1/operations")


def checks(site: Site) -> dict[str, tuple[Check, float]]:
    """Return the checks of requests, each with its time limit."""
    return {
        "public": (lambda: public(site), LIMIT_S),
        "request": (lambda: request_seen(site), LIMIT_S),
        "tls": (lambda: tls(site), LIMIT_S),
        "http2": (lambda: http2(site), LIMIT_S),
        "keep-alive": (lambda: keep_alive(site), LIMIT_S),
        "body size": (lambda: body_size(site), site.wish.seconds + UPLOAD_S + LIMIT_S),
        "body held": (lambda: body_held(site), LIMIT_S),
        "clock": (lambda: clock(site), LIMIT_S),
    }


def timing(site: Site) -> dict[str, tuple[Check, float]]:
    """Return the check that runs before all others, since they would delay it."""
    return {"added time": (lambda: added_time(site), LIMIT_S)}


async def public(site: Site) -> Iterable[CheckRow]:
    """Look for what can be read without a key."""
    found = list[str]()
    for path in NO_KEY_NEEDED:
        response = await ask(site.address, path, keyed=False)
        site.seen.append(response)
        if response.status == 200:
            found.append(path)
    looked_at = ", ".join(NO_KEY_NEEDED)
    if not found:
        says = "Nothing of the server's own can be read without a key."
        return [CheckRow(name="public", looked_at=looked_at, state="green", says=says)]
    return [
        CheckRow(
            name="public",
            looked_at=looked_at,
            state="amber" if site.is_local else "red",
            says=f"Everybody can read {', '.join(found)} without a key.",
            do=(
                "Set `keys` or `key_required: true` in Slipway's settings: then these need a key.",
                *site.fixes("public"),
            ),
        )
    ]


async def request_seen(site: Site) -> Iterable[CheckRow]:
    """Compare the request that reached the server with the one that was sent."""
    request = site.said.get("request", {})
    headers: dict[str, str | None] = request.get("headers", {})
    problems, do = list[str](), list[str]()
    state: CheckState = "green"
    host = headers.get("host") or ""
    if host.lower() != site.address.netloc.lower():
        state = "amber"
        problems.append(f"The host name arrives as `{host}`, not as `{site.address.netloc}`")
        do += site.fixes("host")
    if site.address.key and not request.get("key"):
        state = "red"
        problems.append("the key does not arrive: `Authorization` is removed on the way")
        do += site.fixes("key")
    if request.get("http") == "1.0":
        state = state if state == "red" else "amber"
        problems.append("requests arrive as HTTP/1.0, so each opens a connection of its own")
        do += ['nginx: set `proxy_http_version 1.1` and `proxy_set_header Connection ""`']
    added = sorted(
        set(headers) - {"host", "user-agent", "accept-encoding", "authorization", "content-length"}
    )
    says = "; ".join(problems) + "." if problems else "Host and key arrive as they were sent."
    if added:
        says += f" Added on the way: {', '.join(added)}."
    return [CheckRow(name="request", looked_at="Host, key", state=state, says=says, do=tuple(do))]


async def tls(site: Site) -> Iterable[CheckRow]:
    """Look at the version of TLS and at how long the certificate is valid."""
    if site.address.scheme == "http":
        local = site.is_local
        return [
            CheckRow(
                name="tls",
                looked_at=site.address.url,
                state="skipped" if local else "red",
                says="There is no TLS on this machine's own addresses."
                if local
                else "Keys and answers are sent in clear text: this is http, not https.",
                do=() if local else ("Listen with TLS, and redirect http to https.",),
            )
        ]
    async with connected(site.address) as connection:
        session = connection.tls
    version = (session.version() if session else None) or "unknown"
    days = days_left(session)
    state: CheckState = "green"
    if version not in ("TLSv1.2", "TLSv1.3") or days < EXPIRES_SOON_DAYS:
        state = "red" if days < EXPIRES_NOW_DAYS else "amber"
    return [
        CheckRow(
            name="tls",
            looked_at=site.address.netloc,
            state=state,
            says=f"{version}; the certificate is valid for {days:.0f} more days.",
            do=() if state == "green" else site.fixes("tls"),
            facts={"version": version, "certificate_days": round(days, 1)},
        )
    ]


def days_left(session: "ssl.SSLObject | None") -> float:
    """Return for how many days the peer's certificate is still valid; infinity if unknown."""
    certificate = session.getpeercert() if session is not None else None
    ends = (certificate or {}).get("notAfter")
    if not isinstance(ends, str):
        return float("inf")
    return (ssl.cert_time_to_seconds(ends) - time.time()) / 86_400


async def http2(site: Site) -> Iterable[CheckRow]:
    """Ask whether browsers get HTTP/2, which carries many streams over one connection."""
    looked_at = "ALPN"
    if site.address.scheme == "http":
        says = "HTTP/2 needs TLS."
        return [CheckRow(name="http2", looked_at=looked_at, state="skipped", says=says)]
    async with connected(site.address, ("h2", "http/1.1")) as connection:
        chosen = connection.tls.selected_alpn_protocol() if connection.tls else None
    if chosen == "h2":
        says = "HTTP/2 is offered."
        return [CheckRow(name="http2", looked_at=looked_at, state="green", says=says)]
    return [
        CheckRow(
            name="http2",
            looked_at=looked_at,
            state="amber",
            says="Only HTTP/1.1 is offered: a browser opens at most 6 streams at a time then.",
            do=site.fixes("http2"),
        )
    ]


async def keep_alive(site: Site) -> Iterable[CheckRow]:
    """Send two requests over one connection."""
    async with connected(site.address) as connection:
        first = await connection.send("/healthz", keyed=False)
        second = None
        if first.keeps:
            second = await connection.send("/healthz", keyed=False)
    kept = second is not None and second.status == first.status
    looked_at = "two requests, one connection"
    if kept:
        says = "Connections are kept for the next request."
        return [CheckRow(name="keep-alive", looked_at=looked_at, state="green", says=says)]
    return [
        CheckRow(
            name="keep-alive",
            looked_at=looked_at,
            state="amber",
            says="The connection is closed after each request: each answer pays for a new one.",
            do=site.fixes("keep_alive"),
        )
    ]


async def added_time(site: Site) -> Iterable[CheckRow]:
    """Measure the time between a request and its first event, less the server's own part. The
    stream goes on after that event, as answers do: a proxy may hold it back for that reason.
    """
    took = list[float]()
    for _ in range(ROUNDS):
        response = await ask(
            site.address, "/v1/check/stream?seconds=2&every_ms=1000", enough=has_event
        )
        own = first_event(response)
        if own is not None:
            took.append(response.pieces[-1].at - response.sent_at - float(own["after_s"]))
    looked_at = f"the first event of {len(took)} streams"
    if not took:
        says = "It could not be measured: streams fail."
        return [CheckRow(name="added time", looked_at=looked_at, state="skipped", says=says)]
    added_s = statistics.median(took)
    state: CheckState = "amber" if added_s > ADDED_AMBER_S else "green"
    return [
        CheckRow(
            name="added time",
            looked_at=looked_at,
            state=state,
            says=f"The way adds {1000 * added_s:.0f} ms to the time to the first token.",
            do=()
            if state == "green"
            else (
                "Place proxy and server nearer to the clients, if the network takes that long.",
                *site.fixes("buffering"),
            ),
            facts={"added_ms": round(1000 * added_s, 1)},
        )
    ]


def has_event(response: RawResponse) -> bool:
    """Return whether the first event of a stream is here."""
    return b"}\n\n" in response.body


def first_event(response: RawResponse) -> dict[str, float] | None:
    """Return the first event of a stream of ours."""
    for line in response.body.splitlines():
        if line.startswith(b"data: {"):
            try:
                found: dict[str, float] = json.loads(line[6:])
            except ValueError:
                return None
            return found
    return None


async def upload(site: Site, size: int) -> RawResponse | None:
    """Send a body of this size; None if the connection failed."""
    block = b"0" * 65_536
    parts = [block] * (size // len(block)) + [block[: size % len(block)]]
    headers = {"Content-Type": "application/octet-stream"}
    try:
        return await ask(
            site.address, "/v1/check/body", method="POST", headers=headers, parts=parts
        )
    except NoConnection:
        return None


async def body_size(site: Site) -> Iterable[CheckRow]:
    """Send a body near the server's own limit, and smaller ones until one passes. This begins when
    no stream is measured any more: a large upload would delay it.
    """
    limit_mb = float(site.said.get("body_mb", 16.0))
    wanted = int(limit_mb * MIB) - 1024
    await site.streamed.wait()
    try:
        async with asyncio.timeout(UPLOAD_S):
            return [await sized(site, limit_mb, wanted)]
    except TimeoutError:
        says = f"It could not be measured: an upload takes longer than {UPLOAD_S:g} s from here."
        looked_at = f"a body of {wanted / MIB:.1f} MiB"
        return [CheckRow(name="body size", looked_at=looked_at, state="skipped", says=says)]


async def sized(site: Site, limit_mb: float, wanted: int) -> CheckRow:
    """Return whether bodies of the wanted size arrive, or how large those are that do."""
    size, refused = wanted, None
    response = await upload(site, size)
    while (response is None or response.status != 200) and size > 65_536:
        refused = response or refused
        if response is not None:
            site.seen.append(response)
        size //= 2
        response = await upload(site, size)
    passed = size if response is not None and response.status == 200 else 0
    looked_at = f"a body of {wanted / MIB:.1f} MiB"
    if passed == wanted:
        says = f"Bodies up to the server's own limit of {limit_mb:g} MiB arrive."
        return CheckRow(name="body size", looked_at=looked_at, state="green", says=says)
    status = f"HTTP {refused.status}" if refused and refused.status else "a closed connection"
    return CheckRow(
        name="body size",
        looked_at=looked_at,
        state="red" if passed < MIB / 4 else "amber",
        says=f"The server takes {limit_mb:g} MiB, but the proxy answers with {status}: "
        f"{passed / MIB:.1f} MiB arrive.",
        do=site.fixes("body_size")
        if refused is None or refused.status < 500
        else ("Look at the proxy's error log: it could not store the body.",),
        facts={"bytes_arrive": passed, "bytes_allowed": wanted},
    )


async def body_held(site: Site) -> Iterable[CheckRow]:
    """Send a body in two halves, and ask the server how far apart they arrived."""
    held = [await is_held(site, half) for half in (SMALL_HALF, LARGE_HALF)]
    looked_at = f"bodies in two halves, {HOLD_S:g} s apart"
    name = "body held"
    if None in held:
        says = "It could not be measured: the bodies did not arrive."
        return [CheckRow(name=name, looked_at=looked_at, state="skipped", says=says)]
    if held == [True, False]:
        return [
            CheckRow(
                name=name,
                looked_at=looked_at,
                state="amber",
                says="The proxy waits for the whole body or a full buffer before it passes a "
                "request on, and a slow client runs into its time for requests.",
                do=site.fixes("body_held"),
            )
        ]
    says = (
        "The proxy passes a request on once its body is complete, which is usual."
        if any(held)
        else "Bodies arrive as they are sent."
    )
    return [CheckRow(name=name, looked_at=looked_at, state="green", says=says)]


async def is_held(site: Site, half: int) -> bool | None:
    """Return whether a body in two halves arrived at once; None if it did not arrive."""
    response = await ask(
        site.address,
        "/v1/check/body",
        method="POST",
        headers={"Content-Type": "application/octet-stream"},
        parts=(b"0" * half, HOLD_S, b"0" * half),
    )
    took_s = (response.json() or {}).get("took_s") if response.status == 200 else None
    return took_s < HOLD_S / 2 if isinstance(took_s, float | int) else None


async def clock(site: Site) -> Iterable[CheckRow]:
    """Compare the server's clock with ours."""
    response = await ask(site.address, "/v1/check")
    said = (response.json() or {}).get("time")
    if not isinstance(said, float | int):
        return []
    apart_s = said - time.time() + (time.monotonic() - response.sent_at) / 2
    date = response.header("date")
    parsed = email.utils.parsedate_to_datetime(date) if date else None
    if parsed is not None and abs(parsed.timestamp() - time.time()) > SKEW_RED_S:
        apart_s = max(apart_s, parsed.timestamp() - time.time(), key=abs)
    apart = abs(apart_s)
    state: CheckState = (
        "red" if apart > SKEW_RED_S else "amber" if apart > SKEW_AMBER_S else "green"
    )
    return [
        CheckRow(
            name="clock",
            looked_at="the server's time and ours",
            state=state,
            says=f"The clocks differ by {apart:.1f} s.",
            do=()
            if state == "green"
            else ("Run chrony or systemd-timesyncd on both machines: logins and budgets need it.",),
            facts={"apart_s": round(apart_s, 3)},
        )
    ]
