"""Each kind of document that is easily read wrong is asked through a server, without a model.

The documents are made by `case_documents`; those of ../shared/cases/documents are asked as well if
they are beside the checkout.
"""

from collections.abc import Iterator

import pytest

from case_documents import write_cases
from processes import ROOT, Serving, serving

SHARED = ROOT.parent / "shared" / "cases" / "documents"
REFUSED = "documents do not say"
PRODUCTS = "Product | Warranty | Delivery | Price\n--- | --- | --- | ---\n"
HEADS = "Plan | Region | Fee\n--- | --- | ---\n"
# (case, question, the answer without markers)
CASES = [
    ("csv-gbk", "张伟有多少天年假？", "部门 | 负责人 | 年假天数\n--- | --- | ---\n研发部 | 张伟 | 15"),
    ("csv-sjis", "山田さんの有給日数は何日ですか？", "部署 | 担当 | 有給日数\n--- | --- | ---\n開発部 | 山田 | 20"),
    ("csv-title", "What was the actual of Support?", "Team | Plan | Actual\n--- | --- | ---\nSupport | 50 | 70"),
    ("docx-numbers", "What does clause 2.2 say?", "A late payment costs 2 % a month."),
    ("docx-numbers", "What does section 2.1 say?", "Invoices are due within 14 days."),
    ("docx-sup", "How many documents can the store hold?", "The store holds up to 10^6 documents."),
    ("docx-toc", "How many days of leave are there?", "Everyone has 30 days a year."),
    ("docx-toc", "How do I book a train?", "Ask the office by mail."),
    ("docx-vmerge", "What is the fee of the Silver plan in Africa?", f"{HEADS}Silver | Africa | 30"),
    ("en-quit", "How do I quit?", REFUSED),
    ("html-accordion", "How long is the warranty?", "It lasts 24 months from delivery."),
    ("html-details", "What is the delivery time?", "Delivery time: It takes 3 days."),
    ("html-details", "How long is the warranty?", "How long is the warranty?\n\nIt lasts 24 months."),
    ("html-entities", "How much do fish & chips cost?", "Fish & chips cost £12 – 15"),
    ("html-entities", "What is the rent?", "Rent | 900"),
    ("html-gb2312", "年假有多少天？", "每位员工每年有十五天年假。"),
    ("html-rowspan", "What is the fee of the Gold plan in Asia?", f"{HEADS}Gold | Asia | 80"),
    ("html-sup", "How many documents does the store hold?", "The store holds up to 10^6 documents."),
    ("html-sup", "What does a visit cost?", "A visit costs 30 euros."),
    ("md-comment", "What does the licence cost?", "The licence costs $12 a month."),
    ("md-htmlblock", "How long is the warranty?", "It lasts 24 months."),
    ("md-htmlblock", "Which port does the demo server listen on?", "The demo server listens on port 9090."),
    ("md-invisible", "Ab wann gilt die Datenschutzerklärung?", "Die Datenschutzerklärung gilt ab dem 3. Mai."),
    ("md-invisible", "How many signs must the password have?", "The password must have 12 signs."),
    ("md-invisible", "When does the cafe open?", "The café opens at 8."),
    ("md-ordinal", "Ab wann gilt die Anmeldung?", "Die Anmeldung gilt ab dem 3. Mai 2025 für alle Kurse."),
    ("md-strike", "What does the licence cost?", "The licence costs $12 a month."),
    ("md-toml", "What is the highest salary?", REFUSED),
    ("md-toml", "When does the canteen open?", "The canteen opens at noon."),
    ("md-yaml", "What is the highest salary?", REFUSED),
    ("mdx", "How do I begin?", "Run `frob init` to begin."),
    ("pdf-form", "How many employees?", "Number of employees: 214"),
    ("pdf-invoices", "What is the total of Beta Ltd?", "Invoice for Beta Ltd. Total due: 340.50 EUR"),
    ("pdf-table", "What is the price of Chair model 3?", f"{PRODUCTS}Chair model 3 | 30 months | 5 days | 300.00"),
    ("pdf-zh-lines", "开挖进尺每天不得超过多少？", "开挖进尺每天不得超过三米。"),
    ("pptx-chart", "What was the revenue of Asia in 2024?", "| Revenue 2024 (million)\n--- | ---\nAsia | 21.4"),
    ("rst-code", "Can the reloader watch extra files?", "The reloader can watch extra files with the `--extra-files` option."),
    ("rst-code", "What is the capital of France?", REFUSED),
    ("txt-utf16", "How many days of leave does everyone have?", "Everyone has 30 days of leave a year."),
    ("xlsx-hidden-column", "What is the salary of Ada?", REFUSED),
    ("xlsx-merged", "What is the fee of the Silver plan in Africa?", f"{HEADS}Silver | Africa | 30"),
    ("xlsx-merged-long", "fee of the Silver plan in Africa?", f"{HEADS}Silver | Africa | 520"),
    ("zh-quote", "需要多少内存？", "为了获得更好的体验，建议至少配置 1G 的内存。"),
    ("zh-quote", "支持哪些数据库？", "本产品目前支持以下数据库：\n\n- PostgreSQL\n- MySQL\n- MariaDB"),
    ("zh-quote", "主题的目录结构是什么？", "主题的基本目录结构如下：\n\n```text\nmy-theme\n├── templates/\n└── theme.yaml\n```"),
    ("zh-quote", "如何安装插件？", "文档中没有说明"),
]  # fmt: skip
# (case, question, what the answer says, what it must not say)
PARTS = [
    ("rst-code", "How do I limit the size of uploaded files?", 'app.config["MAX_CONTENT_LENGTH"] = 16', "::"),
    ("zh-quote", "如何使用 Docker 部署？", "docker run -d", "主题"),
    ("xlsx-percent", "What is the VAT in Germany?", "19%", "France"),
    ("xlsx-percent", "When does Germany open?", "09:30", "0.39"),
    ("xlsx-hidden-column", "Who is Ada?", "| 12", "91000"),
    ("xlsx-formula", "What is the price of the desk?", "Desk | 200", "Chair"),
]  # fmt: skip
LOSSES = [
    ("pdf-half-scanned", "page 2 is only a picture of text"),
    ("xlsx-formula", "no stored value"),
    ("xlsx-hidden-column", "1 hidden column, 1 hidden row are left out"),
]


@pytest.fixture(scope="module", params=["made", *(["shared"] if SHARED.exists() else [])])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """Start one server with an app for each case."""
    folder = SHARED
    if request.param == "made":
        write_cases(folder := tmp_path_factory.mktemp("cases"))
    apps = {
        path.name: {"knowledge": [str(path)]} for path in sorted(folder.iterdir()) if path.is_dir()
    }
    with serving(
        tmp_path_factory.mktemp("served"), settings={"apps": apps, "embedding": "none"}
    ) as one:
        yield one


def answer(server: Serving, case: str, question: str) -> str:
    done = server.chat(case, messages=[{"role": "user", "content": question}])
    assert done.status_code == 200, done.text
    return str(done.json()["choices"][0]["message"]["content"])


def plain(text: str) -> str:
    """Return the text without the markers of citations, and with plain spaces."""
    for n in range(1, 6):
        text = text.replace(f"\n\n[{n}]", "").replace(f" [{n}]", "")
    return text.replace("\xa0", " ")


@pytest.mark.parametrize(("case", "question", "said"), CASES)
def test_the_answer_is_quoted_or_refused(
    server: Serving, case: str, question: str, said: str
) -> None:
    found = plain(answer(server, case, question))
    assert found == said or (said in found and said in (REFUSED, "文档中没有说明"))


@pytest.mark.parametrize(("case", "question", "said", "unsaid"), PARTS)
def test_the_answer_says_what_a_person_sees(
    server: Serving, case: str, question: str, said: str, unsaid: str
) -> None:
    found = answer(server, case, question)
    assert said in found
    assert unsaid not in found


@pytest.mark.parametrize(("case", "what"), LOSSES)
def test_what_could_not_be_read_is_listed(server: Serving, case: str, what: str) -> None:
    assert what in server.get(f"/v1/documents?app={case}").text.casefold()


def test_four_questions_in_one_are_four_sections(server: Serving) -> None:
    found = plain(
        answer(
            server,
            "docx-numbers",
            "When are invoices due? What does a late payment cost? What does clause 2.1 say? "
            "Where is the canteen?",
        )
    )
    assert found.split("## ")[1:4] == [
        "When are invoices due?\n\nInvoices are due within 14 days.\n\n",
        "What does a late payment cost?\n\nA late payment costs 2 % a month.\n\n",
        "What does clause 2.1 say?\n\nInvoices are due within 14 days.\n\n",
    ]
    assert found.split("## ")[4].startswith("Where is the canteen?\n\nThe documents do not say.")


def test_another_one_is_searched_plainly(server: Serving) -> None:
    asked = [
        {"role": "user", "content": "What is the fee of the Gold plan in Asia?"},
        {"role": "assistant", "content": "80"},
        {"role": "user", "content": "and for the Silver plan?"},
    ]
    done = server.chat("html-rowspan", messages=asked)
    assert plain(done.json()["choices"][0]["message"]["content"]) == f"{HEADS}Silver | Asia | 40"
    asked[-1]["content"] = "and for the other one?"
    done = server.chat("html-rowspan", messages=asked)
    assert plain(done.json()["choices"][0]["message"]["content"]) == f"{HEADS}Gold | Asia | 80"
