"""Write a run of `slipway check` as one HTML file without network or scripts, for light and dark
screens and for print.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.resources import files

import slipway
from slipway.evals.markup import Markup, html_page, joined, tag
from slipway.readiness.rows import STATES, CheckRow, CheckState, Readiness

TITLES: dict[CheckState, str] = {
    "red": "Change before users come",
    "amber": "Know, and change if you can",
    "green": "As it should be",
    "skipped": "Not looked at",
}
VERDICTS: dict[CheckState, str] = {
    "red": "Not ready",
    "amber": "Ready, with reservations",
    "green": "Ready",
    "skipped": "Ready",
}


def page(found: Readiness) -> str:
    """Return the whole page."""
    title = f"{VERDICTS[found.state]}: {found.of}"
    style = (files("slipway.readiness") / "page.css").read_text()
    return html_page(title, style, opening(found), *groups(found))


def opening(found: Readiness) -> Markup:
    """Return the title, the verdict, and the number of rows in each state."""
    at = datetime.fromtimestamp(found.at, UTC)
    counts = found.counts()
    return joined(
        tag("h1", tag("span", VERDICTS[found.state], class_=f"verdict {found.state}")),
        tag("p", tag("code", found.of), class_="of"),
        tag(
            "p",
            f"Checked by Slipway {slipway.__version__} on {at:%Y-%m-%d} at {at:%H:%M} UTC, "
            f"in {found.took_s:.0f} s.",
            class_="soft",
        ),
        tag(
            "ul",
            *(
                tag("li", tag("strong", str(counts[state])), f" {state}", class_=state)
                for state in STATES
            ),
            class_="counts",
        ),
    )


def groups(found: Readiness) -> Iterator[Markup]:
    """Yield a section for each state that some row has, the worst first."""
    for state in STATES:
        rows = [row for row in found.rows if row.state == state]
        if rows:
            yield tag(
                "section",
                tag("h2", TITLES[state], tag("span", f" {state}", class_=f"badge {state}")),
                tag("ol", *(card(row) for row in rows)),
            )


def card(row: CheckRow) -> Markup:
    """Return one row: what it says, what was looked at, and what to do."""
    return tag(
        "li",
        tag("h3", row.name),
        tag("p", marked(row.says)),
        tag("p", marked(f"Looked at: {row.looked_at}"), class_="soft"),
        tag("ul", *(tag("li", marked(thing)) for thing in row.do), class_="do") if row.do else "",
        class_=f"card {row.state}",
    )


def marked(text: str) -> Markup:
    """Return a text with what is between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without its partner
        return joined(text)
    return joined(*(tag("code", part) if at % 2 else part for at, part in enumerate(parts)))
