"""Make one small document for each thing that is easily read or quoted wrong.

Names and numbers are invented.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from docx import Document as Word
from fpdf import FPDF
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from office_files import (
    form_pdf,
    numbered,
    raw_pdf,
    saved,
    scanned,
    shown,
    with_numbers,
    workbook,
    written,
)

PLANS: list[list[Any]] = [
    [plan, region, fee]
    for plan, fees in (("Gold", (90, 80, 70)), ("Silver", (50, 40, 30)))
    for region, fee in zip(("Europe", "Asia", "Africa"), fees, strict=True)
]
TEXTS = {
    "csv-title/report.csv": (
        "Report of 2025,,\nMade by finance,,\n,,\nTeam,Plan,Actual\nSales,100,90\nSupport,50,70\n"
    ),
    "en-quit/handbook.md": (
        "# Handbook\n\n## Time off\n\nYou get 20 days of vacation. If you resign with days left, "
        "they are paid.\n\n## Your buddy\n\nYour buddy is someone who can help when you don't quite "
        "know where to turn.\n"
    ),
    "html-accordion/faq.html": (
        "<html><body><h1>FAQ</h1><div class=accordion><h2><button>How long is the warranty?"
        "</button></h2><div class='collapse'><div>It lasts 24 months from delivery.</div></div>"
        "<h2><button>How do I return a parcel?</button></h2><div>Print the label.</div></div>"
    ),
    "html-details/faq.html": (
        "<html><body><h1>FAQ</h1><details><summary>How long is the warranty?</summary><p>It lasts 24 "
        "months.</p></details><dl><dt>Delivery time</dt><dd>It takes 3 days.</dd></dl></body></html>"
    ),
    "html-entities/a.html": (
        "<p>Fish &amp; chips cost &pound;12&nbsp;&ndash;&nbsp;15 <p>unclosed <b>bold <i>both</b></i>"
        " <table><tr><td>Rent<td>900<tr><td>Food<td>300</table> <3 &lt;tag&gt; &bogus;"
    ),
    "html-rowspan/fees.html": (
        "<html><body><h1>Fees</h1><table><tr><th>Plan</th><th>Region</th><th>Fee</th></tr>"
        + "".join(
            f"<tr>{f'<td rowspan=3>{plan}</td>' if region == 'Europe' else ''}"
            f"<td>{region}</td><td>{fee}</td></tr>"
            for plan, region, fee in PLANS
        )
        + "</table></body></html>"
    ),
    "html-sup/limits.html": (
        "<html><body><h1>Limits</h1><p>The store holds up to 10<sup>6</sup> documents.<sup>2</sup> "
        "A visit costs 30<sup>1</sup> euros.</p></body></html>"
    ),
    "md-comment/price.md": (
        "# Price\n\nThe licence costs $12 a month.\n\n<!-- From next May it will cost $99. -->\n"
    ),
    "md-htmlblock/readme.md": (
        '<h1 align="center">Demo</h1>\n\n<p align="center"><img src="logo.png" alt="Demo logo"> The '
        "demo server listens on port 9090.</p>\n\n<details><summary>How long is the warranty?"
        "</summary>\n\nIt lasts 24 months.\n\n</details>\n"
    ),
    "md-invisible/privacy.md": (
        "# Daten\u00adschutz\n\nDie Daten\u00adschutz\u00aderklärung gilt ab dem 3. Mai. The "
        "pass\u200bword must have 12 signs. The cafe\u0301 opens at 8.\n"
    ),
    "md-ordinal/ferien.md": (
        "# Ferien\n\nDie Anmeldung gilt ab dem 3. Mai 2025 für alle Kurse. Sie kostet 20 Euro.\n"
    ),
    "md-strike/price.md": "# Price\n\nThe licence costs ~~$10~~ $12 a month.\n",
    "md-toml/public.md": "# Canteen\n\nThe canteen opens at noon.\n",
    "md-toml/salaries.md": '+++\ngroups = ["hr"]\n+++\n\nThe highest salary is 250,000 euros.\n',
    "md-yaml/public.md": "# Canteen\n\nThe canteen opens at noon.\n",
    "md-yaml/salaries.md": '---\ngroups: ["hr"]\n---\n\nThe highest salary is 250,000 euros.\n',
    "mdx/other.md": "# Other\n\nNothing here.\n",
    "mdx/quickstart.mdx": (
        "---\ntitle: Quickstart\n---\nimport Tabs from '@theme/Tabs';\n\n# Quickstart\n\n<Tabs>\n\n"
        "Run `frob init` to begin.\n\n</Tabs>\n"
    ),
    "rst-code/uploads.rst": (
        "Uploads\n=======\n\nLimits\n------\n\nUploads of any size are accepted, but you can limit "
        "the size of uploaded files by setting\nthe ``MAX_CONTENT_LENGTH`` config key::\n\n"
        '    app.config["MAX_CONTENT_LENGTH"] = 16 * 1000 * 1000\n\nWatching files\n--------------\n\n'
        "The reloader can watch extra files with the ``--extra-files`` option.\n\n"
        ".. code-block:: text\n\n    $ demo run --extra-files file1:dirA/file2\n"
    ),
    "zh-quote/prepare.md": (
        "# 写在前面\n\n## 环境要求\n\n### 内存\n\n为了获得更好的体验，建议至少配置 1G 的内存。\n\n"
        "### 数据库\n\n本产品目前支持以下数据库：\n\n- PostgreSQL\n- MySQL\n- MariaDB\n\n"
        "## 目录结构\n\n主题的基本目录结构如下：\n\n```text\nmy-theme\n├── templates/\n└── theme.yaml\n"
        "```\n\n## 使用 Docker 部署\n\n运行下面的命令：\n\n```bash\ndocker run -d --name demo demo:2\n```\n"
    ),
}
ENCODED = {
    "csv-gbk/leave.csv": (
        "gb18030",
        "部门,负责人,年假天数\n研发部,张伟,15\n市场部,李娜,12\n财务部,王芳,10\n",
    ),
    "csv-sjis/leave.csv": (
        "shift-jis",
        "部署,担当,有給日数\n開発部,山田,20\n営業部,佐藤,15\n",
    ),
    "txt-utf16/leave.txt": (
        "utf-16",
        "Leave policy\n\nEveryone has 30 days of leave a year.\n",
    ),
    "html-gb2312/leave.html": (
        "gb2312",
        '<meta charset="gb2312"><h1>年假制度</h1><p>每位员工每年有十五天年假。</p>',
    ),
}


def _docx_numbers() -> bytes:
    word = Word()
    with_numbers(word)
    for name, parts in (
        ("Parties", []),
        ("Payment", [("Due date", "Invoices are due within 14 days.")]),
        ("Termination", [("Notice", "The notice is 30 days, as clause 2.1 provides.")]),
    ):
        numbered(word.add_heading(name, 1), 0)
        for title, text in [*parts, ("Late fees", "A late payment costs 2 % a month.")][:2]:
            numbered(word.add_heading(title, 2), 1)
            word.add_paragraph(text)
    return saved(word)


def _docx_sup() -> bytes:
    word = Word()
    line = word.add_paragraph("The store holds up to 10")
    line.add_run("6").font.superscript = True
    line.add_run(" documents.")
    return saved(word)


def _docx_toc() -> bytes:
    word = Word()
    word.add_paragraph("Handbook", style="Title")
    questions = {
        "How many days of leave are there?": "Everyone has 30 days a year.",
        "How do I book a train?": "Ask the office by mail.",
    }
    for page, question in enumerate(questions, 2):
        word.add_paragraph(f"{question}\t{page}")
    for question, text in questions.items():
        word.add_heading(question, 1)
        word.add_paragraph(text)
    return saved(word)


def _docx_vmerge() -> bytes:
    word = Word()
    word.add_heading("Fees", 1)
    table = word.add_table(rows=1 + len(PLANS), cols=3)
    for row, texts in zip(table.rows, [["Plan", "Region", "Fee"], *PLANS], strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = str(text)
    for top in (1, 4):
        table.cell(top + 1, 0).text = table.cell(top + 2, 0).text = ""
        table.cell(top, 0).merge(table.cell(top + 2, 0))
    return saved(word)


def _merged(plans: list[list[Any]], each: int) -> bytes:
    rows: list[list[Any]] = [
        [plan if n % each == 0 else None, *rest] for n, (plan, *rest) in enumerate(plans)
    ]

    def merge(sheet: Any) -> None:
        for top in range(2, 2 + len(rows), each):
            sheet.merge_cells(f"A{top}:A{top + each - 1}")

    return workbook([["Plan", "Region", "Fee"], *rows], merge)


def _percent() -> bytes:
    def style(sheet: Any) -> None:
        for row in (2, 3):
            sheet.cell(row, 2).number_format, sheet.cell(row, 3).number_format = "0%", "h:mm"

    rows: list[list[Any]] = [
        ["Country", "VAT", "Opens"],
        ["Germany", 0.19, 0.3958333],
        ["France", 0.2, 0.4166667],
    ]
    return workbook(rows, style)


def _hidden() -> bytes:
    def hide(sheet: Any) -> None:
        sheet.column_dimensions["C"].hidden = sheet.row_dimensions[3].hidden = True

    return workbook(
        [["Name", "Desk", "Salary"], ["Ada", 12, 91000], ["Cyd", 15, 55000], ["Bob", 14, 67000]],
        hide,
    )


def _chart() -> bytes:
    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    assert slide.shapes.title is not None
    slide.shapes.title.text = "Revenue by region"
    data: Any = CategoryChartData()  # type: ignore[no-untyped-call]
    data.categories = ["Europe", "Asia", "Africa"]
    data.add_series("Revenue 2024 (million)", (19.2, 21.4, 16.7))
    size = Inches(1), Inches(1), Inches(6), Inches(4)
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *size, data)
    return saved(deck)


def _price_list() -> bytes:
    rows = [
        (f"{name} model {n}", f"{12 + 6 * n} months", f"{2 + n} days", f"{n}0{at}.00")
        for at, name in enumerate(("Chair", "Desk", "Lamp"))
        for n in (1, 2, 3)
    ]

    def lines(paper: FPDF) -> None:
        for row in (("Product", "Warranty", "Delivery", "Price"), *rows):
            for cell in row:
                paper.cell(47, 7, cell)
            paper.ln()

    return written(lines)


def _invoices() -> bytes:
    def lines(paper: FPDF) -> None:
        totals = {"Alpha": "120.00", "Beta": "340.50", "Gamma": "99.90", "Delta": "870.00"}
        for number, (name, total) in enumerate(totals.items()):
            if number:
                paper.add_page()
            paper.multi_cell(
                0,
                7,
                f"Invoice for {name} Ltd. The consulting work of spring was done on site by two "
                "people over several days, as agreed in the order, and is billed here.",
                new_x="LMARGIN",
                new_y="NEXT",
            )
            paper.ln(14)
            paper.cell(0, 7, f"Total due: {total} EUR", new_x="LMARGIN", new_y="NEXT")

    return written(lines)


def _notice() -> bytes:
    lines = (
        "关于爆破施工的通知：各施工单位在每次爆破前应当进行振动监",
        "测工作，并将监测报告交给项目经理。开挖进尺每天不得超过三",
        "米。违反规定的单位将被处以罚款。",
    )
    content = "".join(shown(line, 60, 760 - 20 * n) for n, line in enumerate(lines))
    return raw_pdf("UniGB-UCS2-H", content)


MADE: dict[str, Callable[[], bytes]] = {
    "docx-numbers/contract.docx": _docx_numbers,
    "docx-sup/limits.docx": _docx_sup,
    "docx-toc/handbook.docx": _docx_toc,
    "docx-vmerge/fees.docx": _docx_vmerge,
    "pdf-form/registration.pdf": lambda: form_pdf("Number of employees:", "214"),
    "pdf-half-scanned/mixed.pdf": scanned,
    "pdf-invoices/invoices.pdf": _invoices,
    "pdf-table/prices.pdf": _price_list,
    "pdf-zh-lines/notice.pdf": _notice,
    "pptx-chart/revenue.pptx": _chart,
    "xlsx-formula/order.xlsx": lambda: workbook(
        [["Item", "Price", "Total"], ["Chair", 40, "=B2*4"], ["Desk", 200, "=B3*2"]]
    ),
    "xlsx-hidden-column/staff.xlsx": _hidden,
    "xlsx-merged/fees.xlsx": lambda: _merged(PLANS, 3),
    "xlsx-merged-long/fees.xlsx": lambda: _merged(
        [
            [plan, region, fee + 10 * n]
            for plan, fee in (("Gold", 900), ("Silver", 500), ("Bronze", 100))
            for n, region in enumerate(("Europe", "Asia", "Africa", "America"))
        ],
        4,
    ),
    "xlsx-percent/rates.xlsx": _percent,
}


def write_cases(folder: Path) -> None:
    """Write all documents, each kind in a folder of its own."""
    files = {name: text.encode() for name, text in TEXTS.items()}
    files |= {name: text.encode(encoding) for name, (encoding, text) in ENCODED.items()}
    files |= {name: make() for name, make in MADE.items()}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
