"""What is read of text, Markdown, HTML, notebooks, e-mails and e-books."""

import io
import json
import zipfile
from collections.abc import Iterator

import pytest

from slipway.knowledge.parsing import Parser
from slipway.knowledge.readers import ParsedDocument, UnreadableFile


@pytest.fixture(scope="module")
def parser() -> Iterator[Parser]:
    with Parser() as one:
        yield one


def text_of(parser: Parser, source: str | bytes, name: str) -> str:
    return parsed(parser, source, name).text


def parsed(parser: Parser, source: str | bytes, name: str) -> ParsedDocument:
    return parser.parse(source.encode() if isinstance(source, str) else source, name)


# Encodings

LANGUAGES = {
    "gb18030": "部门,负责人,年假天数\n研发部,张伟,15\n市场部,李娜,12\n",
    "big5": "員工每年有十五天的特休假。請假請向主管申請，並填寫表格。",
    "cp932": "部署,担当,有給日数\n開発部,山田,20\n営業部,佐藤,15\n",
    "euc_jp": "有給休暇は年に二十日です。申請は上司に出してください。",
    "cp949": "휴가는 일 년에 이십 일입니다. 신청은 상사에게 하세요.",
    "cp1251": "Отпуск составляет 28 дней в год. Заявление подаётся руководителю.",
    "koi8_r": "Отпуск составляет 28 дней в год. Заявление подаётся руководителю.",
    "cp1252": "Größe;Stück;Preis\nFüller;12;20 €\n",
    "cp1250": "Urlop wynosi 26 dni. Wniosek należy złożyć u przełożonego. Książka zażalenie.",
    "cp1253": "Η άδεια είναι 20 ημέρες το χρόνο. Η αίτηση υποβάλλεται στον προϊστάμενο.",
    "cp1256": "الإجازة السنوية عشرون يوما. يقدم الطلب إلى المدير.",
    "utf-16": "Leave is 30 days. Größe, 年假",
    "utf-16-le": "Leave is 30 days a year for everyone.",
    "utf-32": "Leave is 30 days. Größe, 年假",
}


@pytest.mark.parametrize("encoding", LANGUAGES)
def test_text_of_any_usual_encoding_is_read_as_written(parser: Parser, encoding: str) -> None:
    assert text_of(parser, LANGUAGES[encoding].encode(encoding), "a.txt") == LANGUAGES[encoding]


@pytest.mark.parametrize("words", ["café", "Müller, 20", "naïve approach", "£12 – £15", "Señor"])
def test_a_few_western_words_are_enough(parser: Parser, words: str) -> None:
    assert text_of(parser, words.encode("cp1252"), "a.txt") == words


def test_what_a_page_declares_is_believed(parser: Parser) -> None:
    page = '<html><head><meta charset="gb2312"></head><body><p>每位员工有十五天年假。镕</p></body></html>'
    assert "每位员工有十五天年假。镕" in text_of(parser, page.encode("gb18030"), "a.html")
    page = '<meta http-equiv="Content-Type" content="text/html; charset=windows-1251"><p>Отпуск</p>'
    assert text_of(parser, page.encode("cp1251"), "a.html") == "Отпуск"


def test_a_page_that_declares_a_wrong_encoding_is_read_all_the_same(parser: Parser) -> None:
    page = '<meta charset="utf-8"><p>Отпуск составляет 28 дней в год.</p>'.encode("cp1251")
    assert text_of(parser, page, "a.html") == "Отпуск составляет 28 дней в год."


def test_a_damaged_character_is_reported_and_costs_no_text(parser: Parser) -> None:
    text = "Die Größe der Möbel. " * 100
    document = parsed(parser, text.encode() + b"\xff Ende", "a.txt")
    assert document.text.startswith(text)
    assert [loss.what for loss in document.losses] == ["1 character is damaged in the file"]


def test_invisible_characters_and_split_accents_are_read_as_people_type(parser: Parser) -> None:
    text = "# Daten\u00adschutz\n\nThe pass\u200bword. The cafe\u0301 opens at 8.\n"
    document = parsed(parser, text, "a.md")
    assert document.text == "# Datenschutz\n\nThe password. The café opens at 8.\n"
    assert document.title == "Datenschutz"
    assert text_of(parser, "the \ufb01rst o\ufb03ce \ufe8e", "a.txt") == "the first office \u0627"
    page = "<p>Daten&shy;schutz <b>pass&#8203;word</b></p>"
    assert text_of(parser, page, "a.html") == "Datenschutz password"


# Markdown


def test_struck_out_text_and_comments_are_left_out(parser: Parser) -> None:
    text = "Costs ~~$10~~ $12, not <del>$13</del>.\n\n<!-- From May $99 -->\n\n`~~kept~~ <b>`\n"
    assert text_of(parser, text, "a.md").split() == ["Costs", "$12,", "not.", "`~~kept~~", "<b>`"]


def test_html_inside_markdown_becomes_markdown(parser: Parser) -> None:
    text = """<h1 align="center">Demo</h1>

<p><img src="logo.png"> The server listens on port <b>9090</b>.</p>

<details><summary>How long is the warranty?</summary>

It lasts 24 months.

</details>

<details>
<summary>Who pays?</summary>
The buyer.
</details>

    <p>code stays</p>
"""
    document = parsed(parser, text, "a.md")
    assert [(each.level, each.text) for each in document.headings] == [
        (1, "Demo"),
        (2, "How long is the warranty?"),
        (2, "Who pays?"),
    ]
    assert "The server listens on port 9090." in document.text
    assert document.text.count("<") == 2
    assert "    <p>code stays</p>" in document.text


def test_a_summary_with_text_behind_its_details_is_no_heading(parser: Parser) -> None:
    text = "# Top\n\n<details><summary>More</summary>\nInner.\n</details>\n\nOuter text.\n"
    document = parsed(parser, text, "a.md")
    assert [each.text for each in document.headings] == ["Top"]
    assert "**More**" in document.text


def test_tables_of_html_inside_markdown_repeat_merged_cells(parser: Parser) -> None:
    text = (
        "# Fees\n\n<table><tr><th>Plan</th><th>Fee</th></tr>"
        '<tr><td rowspan="2">Gold</td><td>90</td></tr><tr><td>80</td></tr></table>\n'
    )
    assert "Plan | Fee\n--- | ---\nGold | 90\nGold | 80" in text_of(parser, text, "a.md")


def test_placeholders_and_addresses_in_angle_brackets_stay(parser: Parser) -> None:
    text = (
        "Run `x <name>` or ask <mail@example.org>; see <https://example.org/a>. Use <your-key>.\n"
    )
    assert text_of(parser, text, "a.md") == text


def test_mdx_is_read_without_its_code(parser: Parser) -> None:
    text = """---
title: Quickstart
---
import Tabs from '@theme/Tabs';
export const meta = {
  a: 1,
}

{/* a note */}
<Tabs items={["npm", "yarn"]} onClick={() => go()}>
<TabItem label="Linux">

Run `frob init <dir>` to begin.

</TabItem>
</Tabs>

```js
import kept from 'kept';
<Kept />
```
"""
    document = parsed(parser, text, "a.mdx")
    body = document.text[document.body :]
    assert "Run `frob init <dir>` to begin." in body
    assert "**Linux**" in body
    assert "import kept from 'kept';\n<Kept />" in body
    assert [word for word in ("Tabs", "export", "a note", "go()") if word in body] == []
    assert document.title == "Quickstart"


@pytest.mark.parametrize(
    "front",
    [
        '+++\ntitle = "Pay"\ngroups = ["hr"]\n+++\n',
        '+++\n[extra]\naccess = ["hr"]\n+++\n',
        "---\nparams:\n  groups: [hr]\n---\n",
    ],
)
def test_toml_and_tables_of_own_fields_say_who_may_read(parser: Parser, front: str) -> None:
    meta = parsed(parser, f"{front}\nThe pay.\n", "a.md").meta
    groups = [value for name, value in meta.items() if name.strip() in ("access", "groups")]
    assert groups == [["hr"]]


@pytest.mark.parametrize("front", ['+++\ngroups = ["hr"\n+++\n', '+++\ngroups = ["hr"]\n\n'])
def test_toml_that_cannot_be_understood_opens_nothing(parser: Parser, front: str) -> None:
    with pytest.raises(UnreadableFile, match="who may read it"):
        parsed(parser, f"{front}\nThe pay.\n", "a.md")


# HTML


def test_what_opens_at_a_click_is_read(parser: Parser) -> None:
    page = """<main><h1>FAQ</h1>
<h2 class="accordion-header"><button>How long is the warranty?</button></h2>
<div class="accordion-collapse" hidden>It lasts 24 months.</div>
<div role="tabpanel" style="display: none">Windows needs 4 GB.</div>
<details><summary>Who pays?</summary><p>The buyer.</p></details>
<h2>Delivery <button>Copy link</button></h2>
<aside class="caution" role="note">Never open the lid.</aside>
<aside class="sidebar"><a href="/">All pages</a></aside>
<p hidden>Secret.</p><p style="visibility:hidden">Secret.</p></main>"""
    document = parsed(parser, page, "a.html")
    assert [each.text for each in document.headings] == [
        "FAQ",
        "How long is the warranty?",
        "Who pays?",
        "Delivery",
    ]
    for said in ("24 months", "Windows needs 4 GB.", "The buyer.", "Never open the lid."):
        assert said in document.text
    for unsaid in ("Secret", "All pages", "Copy link"):
        assert unsaid not in document.text


def test_raised_numbers_never_join_the_number_before(parser: Parser) -> None:
    page = """<p>Up to 10<sup>6</sup> documents.<sup>2</sup> A visit costs 30<sup>1</sup> euros,
or 40<sup><a href="#fn3">3</a></sup>. The 1<sup>st</sup> of May; 20 m<sup>2</sup>; H<sub>2</sub>O.</p>"""
    text = text_of(parser, page, "a.html").replace("\n", " ")
    assert text == (
        "Up to 10^6 documents. A visit costs 30 euros, or 40. The 1st of May; 20 m²; H2O."
    )


def test_tables_repeat_merged_cells_and_join_heads_of_two_rows(parser: Parser) -> None:
    page = """<table><caption>Fees</caption>
<tr><th rowspan="2">Plan</th><th colspan="2">2025</th></tr><tr><th>Europe</th><th>Asia</th></tr>
<tr><td rowspan="2">Gold</td><td>90</td><td>80</td></tr><tr><td colspan="2">free</td></tr></table>"""
    assert text_of(parser, page, "a.html") == (
        "Fees\n\nPlan | 2025 Europe | 2025 Asia\n--- | --- | ---\n"
        "Gold | 90 | 80\nGold | free | free"
    )


def test_struck_out_prices_and_definitions(parser: Parser) -> None:
    page = "<p>Costs <s>$10</s> $12.</p><dl><dt>Delivery time</dt><dd>It takes 3 days.</dd></dl>"
    assert text_of(parser, page, "a.html") == ("Costs $12.\n\nDelivery time: It takes 3 days.")


# Notebooks, e-mails, e-books


def test_a_notebook_is_read_with_its_code_and_results(parser: Parser) -> None:
    picture = {"output_type": "display_data", "data": {"image/png": "AAAA"}}
    printed = {"output_type": "stream", "text": ["42\n"]}
    book = {
        "cells": [
            {"cell_type": "markdown", "source": ["# Sales\n", "\n", "The plan is 100."]},
            {"cell_type": "code", "source": "print(42)", "outputs": [printed, picture]},
        ],
        "metadata": {"kernelspec": {"language": "python"}},
        "nbformat": 4,
    }
    document = parsed(parser, json.dumps(book), "a.ipynb")
    assert document.title == "Sales"
    assert "```python\nprint(42)\n```\n\n```text\n42\n```" in document.text
    assert [loss.what for loss in document.losses] == ["1 picture among the results is not read"]
    with pytest.raises(UnreadableFile, match="not a whole notebook"):
        parsed(parser, '{"cells": [', "a.ipynb")


def test_an_e_mail_is_read_with_its_headers(parser: Parser) -> None:
    message = (
        b"From: Ada <ada@example.org>\r\nTo: bob@example.org\r\n"
        b"Subject: =?utf-8?q?Caf=C3=A9_hours?=\r\nDate: Fri, 31 Jan 2025 09:00:00 +0100\r\n"
        b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="x"\r\n\r\n'
        b"--x\r\nContent-Type: text/plain; charset=iso-8859-1\r\n"
        b"Content-Transfer-Encoding: quoted-printable\r\n\r\nThe caf=E9 opens at 8.\r\n"
        b"--x\r\nContent-Type: application/pdf\r\n"
        b"Content-Disposition: attachment; filename=menu.pdf\r\n\r\nAAAA\r\n--x--\r\n"
    )
    document = parsed(parser, message, "a.eml")
    assert document.title == "Café hours"
    assert "From: Ada <ada@example.org>" in document.text
    assert "The café opens at 8." in document.text
    assert document.meta["date"] == "2025-01-31T09:00:00+01:00"
    assert [loss.what for loss in document.losses] == ["1 attachment is not read (menu.pdf)"]


def test_an_e_book_is_read_chapter_by_chapter(parser: Parser) -> None:
    package = """<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title>Harbour</dc:title></metadata><manifest>
<item id="b" href="two.xhtml" media-type="application/xhtml+xml"/>
<item id="a" href="one.xhtml" media-type="application/xhtml+xml"/>
<item id="c" href="gone.xhtml" media-type="application/xhtml+xml"/></manifest>
<spine><itemref idref="a"/><itemref idref="b"/><itemref idref="c"/></spine></package>"""
    container = '<container><rootfiles><rootfile full-path="OPS/p.opf"/></rootfiles></container>'
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as book:
        book.writestr("META-INF/container.xml", container)
        book.writestr("OPS/p.opf", package)
        for number in ("one", "two"):
            page = f"<html><body><h1>Chapter {number}</h1><p>Text {number}.</p></body></html>"
            book.writestr(f"OPS/{number}.xhtml", page)
    document = parsed(parser, out.getvalue(), "a.epub")
    assert document.title == "Harbour"
    assert [each.text for each in document.headings] == ["Chapter one", "Chapter two"]
    assert [document.text[each.start : each.end] for each in document.headings] == [
        "Chapter one",
        "Chapter two",
    ]
    assert [loss.what for loss in document.losses] == ["1 chapter is missing in the file"]


# reStructuredText

RST = """.. _top:

Uploads
=======

:orphan:

.. note::

   Read :doc:`/security` first, or :ref:`that page <x>`; call :func:`~app.run`.

.. versionadded:: 2.0
   The ``cli`` was added.

Install with `pip <https://pip.example>`_, see Python_::

    $ pip install

    $ run it

Slot
    A place for
    one file.

- item one
  goes on
- item two::

      code()

====  =====
Name  Value
====  =====
a     1 of
      them
====  =====

+---+---+
| A | B |
+===+===+
| 1 | 2 |
+---+---+

.. list-table:: Prices
   :header-rows: 1

   * - Plan
     - Price
   * - Gold
     - 90

.. py:function:: run(host, port=5000)

   Runs the app.

.. code-block:: python
   :linenos:

   a = 1

   b = 2

.. toctree::
   :maxdepth: 2

   other

.. A comment.

Limits
------

.. tab:: Linux

   Do this.
"""


def test_directives_tables_and_roles_of_restructured_text_become_markdown(parser: Parser) -> None:
    document = parsed(parser, RST, "uploads.rst")
    assert [(each.level, each.text) for each in document.headings] == [
        (1, "Uploads"),
        (2, "Limits"),
    ]
    blocks = [
        "Note: Read /security first, or that page; call `run`.",
        "Added in version 2.0: The `cli` was added.",
        "Install with [pip](https://pip.example), see Python:",
        "```\n$ pip install\n\n$ run it\n```",
        "Slot: A place for\none file.",
        "- item one\n  goes on\n- item two:\n\n  ```\n  code()\n  ```",
        "Name | Value\n--- | ---\na | 1 of them",
        "A | B\n--- | ---\n1 | 2",
        "Prices",
        "Plan | Price\n--- | ---\nGold | 90",
        "`run(host, port=5000)`: Runs the app.",
        "```python\na = 1\n\nb = 2\n```",
        "Limits",
        "Linux",
        "Do this.",
    ]
    assert document.text.strip() == "\n\n".join(["Uploads", *blocks])


@pytest.mark.parametrize(
    "source",
    [
        "a\n=\n", "..", ".. x::", ".. csv-table::\n   :header: a", "+--", "+-+\n|", "== ==\na", "- ",
        "- -\n  - -\n    - x", "\\", "`", "``a", ":a:", ".. list-table::\n\n   x", "=====", "a::", "::",
        ".. table::\n\n   == ==\n   a  b\n   == ==",
    ],
)  # fmt: skip
def test_unfinished_restructured_text_is_read(parser: Parser, source: str) -> None:
    assert "The end." in text_of(parser, f"{source}\n\nThe end.\n", "a.rst")
