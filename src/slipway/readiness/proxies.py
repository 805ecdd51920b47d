"""What to change in which proxy or load balancer, by what was found wrong behind it.

Sources: the reference of each product (nginx: ngx_http_proxy_module, ngx_http_gzip_module,
ngx_http_core_module; HAProxy 2.6 configuration manual; Envoy: route, HTTP connection manager,
compressor; AWS: attributes of Application Load Balancers; Cloudflare: connection limits and
compression).
"""

import re
from collections.abc import Iterable
from typing import Literal

from slipway.readiness.raw_http import RawResponse

Proxy = Literal["nginx", "haproxy", "Envoy", "AWS ALB", "Cloudflare"]
Topic = Literal[
    "buffering",
    "compression",
    "idle",
    "body_size",
    "body_held",
    "host",
    "key",
    "headers",
    "request_id",
    "disconnect",
    "http2",
    "keep_alive",
    "public",
    "tls",
]

FIXES: dict[Topic, dict[Proxy, str]] = {
    "buffering": {
        "nginx": (
            "set `proxy_buffering off` in each nginx on the way but the last (that one removes "
            "`X-Accel-Buffering`), and remove `proxy_ignore_headers X-Accel-Buffering`"
        ),
        "haproxy": "set `option http-no-delay`: without it, haproxy collects events for up to 200 ms",
        "Envoy": "remove the filter `envoy.filters.http.buffer` from this route",
        "AWS ALB": "take Lambda functions and API Gateway out of the way: they buffer responses",
        "Cloudflare": "turn off features that rewrite bodies for this path (Email Obfuscation, Rocket Loader)",
    },
    "compression": {
        "nginx": "take `text/event-stream` (and `*`) out of `gzip_types`, or set `gzip off` here",
        "haproxy": (
            "take `text/event-stream` out of `compression type`, and do not remove `Cache-Control`: "
            "`no-transform` switches compression off"
        ),
        "Envoy": "take `text/event-stream` out of the compressor's `content_type`",
        "AWS ALB": "an ALB does not compress: look at what is in front of it, such as CloudFront",
        "Cloudflare": "add a compression rule that disables compression of `text/event-stream`",
    },
    "idle": {
        "nginx": "set `proxy_read_timeout 300s` (and `send_timeout 60s`)",
        "haproxy": "set `timeout server 300s` and `timeout client 300s`",
        "Envoy": "set `idle_timeout: 300s` and `timeout: 0s` on the route, and `stream_idle_timeout: 300s`",
        "AWS ALB": "set `idle_timeout.timeout_seconds` to 300",
        "Cloudflare": 'it waits 120 s between two reads; stream long answers (`"stream": true`)',
    },
    "body_size": {
        "nginx": "set `client_max_body_size 64m`",
        "haproxy": "remove the `http-request deny` on the body's size",
        "Envoy": "raise `max_request_bytes` of the buffer filter, or remove that filter",
        "AWS ALB": "an ALB takes any size, WAF in front of it may not: raise its body limit",
        "Cloudflare": "it takes 100 MB on the free plan: send less",
    },
    "body_held": {
        "nginx": "set `proxy_request_buffering off` if slow uploads should be seen as they arrive",
        "haproxy": "remove `option http-buffer-request`",
        "Envoy": "remove the filter `envoy.filters.http.buffer`",
    },
    "host": {
        "nginx": "set `proxy_set_header Host $http_host`",
        "haproxy": "remove `http-request set-header Host`",
        "Envoy": "remove `host_rewrite_literal` and `auto_host_rewrite`",
        "AWS ALB": "set `routing.http.preserve_host_header.enabled` to true",
        "Cloudflare": "remove the Host header override of the origin rule",
    },
    "key": {
        "nginx": "remove `proxy_set_header Authorization` and `auth_basic` for this location",
        "haproxy": "remove `http-request del-header Authorization` and `http-request auth`",
        "Envoy": "remove Authorization from `request_headers_to_remove`",
        "AWS ALB": "remove the `authenticate-oidc` action for API paths",
        "Cloudflare": "let Access pass API paths by a service token, not by replacing Authorization",
    },
    "headers": {
        "nginx": "remove `proxy_hide_header` for this header, and `add_header Cache-Control`",
        "haproxy": "remove `http-response del-header` and `set-header` for this header",
        "Envoy": "remove the header from `response_headers_to_remove`",
        "AWS ALB": "remove the header from the listener's response header modification",
        "Cloudflare": "set Browser Cache TTL to `respect existing headers`, and remove response header rules",
    },
    "request_id": {
        "nginx": "do not `add_header X-Request-Id`; pass ours on, it finds the answer's trace",
        "haproxy": "do not set X-Request-Id on responses (`http-response set-header`)",
        "Envoy": "set `always_set_request_id_in_response: false`",
    },
    "disconnect": {
        "nginx": "remove `proxy_ignore_client_abort on`",
        "haproxy": "set `option abortonclose`",
        "Envoy": "remove filters that buffer; Envoy resets the upstream request by itself",
        "AWS ALB": "an ALB closes the upstream connection by itself: look at what is behind it",
        "Cloudflare": "it closes the upstream connection by itself: look at what is behind it",
    },
    "http2": {
        "nginx": "write `listen 443 ssl http2` (from 1.25.1 on: `http2 on`)",
        "haproxy": "write `bind :443 ssl crt FILE alpn h2,http/1.1`",
        "Envoy": "add `h2` to `alpn_protocols` of the listener's TLS context",
        "AWS ALB": "set `routing.http2.enabled` to true",
        "Cloudflare": "turn on HTTP/2 under Speed",
    },
    "keep_alive": {
        "nginx": "remove `keepalive_timeout 0`",
        "haproxy": "remove `option httpclose`, and set `timeout http-keep-alive 75s`",
        "Envoy": "raise `common_http_protocol_options.idle_timeout`",
        "AWS ALB": "raise `client_keep_alive.seconds`",
    },
    "public": {
        "nginx": "add `location = /metrics { deny all; }`, and set `keys` in Slipway's settings",
        "haproxy": "add `http-request deny if { path /metrics }`, and set `keys` in Slipway's settings",
        "Envoy": "add a route for /metrics with `direct_response: {status: 403}`, and set `keys`",
        "AWS ALB": "add a listener rule for /metrics with a fixed 403, and set `keys`",
        "Cloudflare": "add a WAF rule that blocks /metrics, and set `keys`",
    },
    "tls": {
        "nginx": "set `ssl_protocols TLSv1.2 TLSv1.3` and renew `ssl_certificate`",
        "haproxy": "set `ssl-min-ver TLSv1.2` on the bind line and renew its `crt`",
        "Envoy": "set `tls_minimum_protocol_version: TLSv1_2` and renew the certificate",
        "AWS ALB": "choose a policy with TLS 1.2 and 1.3, and let ACM renew the certificate",
        "Cloudflare": "set the minimum TLS version to 1.2",
    },
}

_BY_HEADER: tuple[tuple[str, str, Proxy], ...] = (
    ("server", r"cloudflare", "Cloudflare"),
    ("cf-ray", r"", "Cloudflare"),
    ("server", r"awselb", "AWS ALB"),
    ("server", r"envoy|istio", "Envoy"),
    ("x-envoy-upstream-service-time", r"", "Envoy"),
    ("server", r"nginx|openresty", "nginx"),
    ("set-cookie", r"AWSALB", "AWS ALB"),
    ("via", r"haproxy", "haproxy"),
)
_BY_PAGE: tuple[tuple[str, Proxy], ...] = (
    (r"<center>(nginx|openresty)", "nginx"),
    (r"<html><body><h1>\d\d\d [\w -]+</h1>\n", "haproxy"),
)


def proxies_in(responses: Iterable[RawResponse]) -> list[Proxy]:
    """Return the proxies that responses came through, as far as their headers and error pages tell;
    haproxy adds no header by itself.
    """
    found = dict[Proxy, None]()
    for response in responses:
        for header, pattern, proxy in _BY_HEADER:
            value = response.header(header)
            if value is not None and re.search(pattern, value, re.IGNORECASE):
                found[proxy] = None
        if response.status >= 400:
            page = response.body[:4000].decode("latin-1")
            for pattern, proxy in _BY_PAGE:
                if re.search(pattern, page):
                    found[proxy] = None
    return list(found)


def fixes(topic: Topic, seen: Iterable[Proxy]) -> tuple[str, ...]:
    """Return what to change, a line for each proxy that was seen, or for all if none was."""
    known = FIXES[topic]
    ours = [proxy for proxy in seen if proxy in known]
    return tuple(f"{proxy}: {known[proxy]}" for proxy in ours or known)
