"""A question is understood by what it is about: in any language, by whole words and by its names."""

from pathlib import Path

import pytest

from knowledge_base import OPERATOR, KnowledgeBase
from processes import serving
from slipway.knowledge.questions import asked_about, names_in
from slipway.knowledge.quoting import quote
from slipway.types import Source

CHINESE = """# 员工手册

## 年假

张伟有 15 天年假，李娜有 10 天年假。未用完的年假可以顺延到第二年三月。

## 报销

出差报销需要在 30 天内提交发票，由财务部审核。

## 办公时间

办公时间是上午九点到下午六点。

## 如何申请笔记本电脑

填写设备申请表，交给信息部。
"""


def source(text: str, heading: str = "", n: int = 1) -> Source:
    return Source(
        n=n, id=f"p{n}", path="a.md", heading=heading, page=None, start=0, end=len(text),
        text=text, version="v",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("question", "about"),
    [
        ("张伟有多少天年假？", "张伟 年假？"),
        ("如何上传文件？", "上传文件？"),
        ("请假要提前几天？", "请假 提前 ？"),
        ("会议室有哪些功能？", "会议室 功能？"),
        ("请问报销什么时候提交？", "报销 提交？"),
        ("ファイルをどうやってアップロードしますか？", "ファイル アップロード ？"),
        ("휴가는 어떻게 신청하나요?", "휴가는 신청 ?"),
        ("How long is parental leave?", "is parental leave?"),
        ("What does a plan cost?", "What does a plan ?"),
        ("hat rack price", "hat rack price"),
        ("Wie groß ist das Büro?", "groß Büro?"),
    ],
)
def test_words_that_only_ask_are_left_out(question: str, about: str) -> None:
    assert " ".join(asked_about(question).split()) == about


@pytest.mark.parametrize(
    ("question", "names"),
    [
        ("Which version of Java do I need?", ["Java"]),
        ("How do I use MongoDB?", ["MongoDB"]),
        ("Can I send an SMS? Or use iCloud?", ["SMS", "iCloud"]),
        ("怎么导出 Excel 报表？", ["Excel"]),
        ("How do I quit? I am sure.", []),
        ("What is the price?", []),
    ],
)
def test_names_are_found(question: str, names: list[str]) -> None:
    assert names_in(question) == names


@pytest.fixture(scope="module")
def handbook(tmp_path_factory: pytest.TempPathFactory) -> KnowledgeBase:
    folder = tmp_path_factory.mktemp("docs")
    (folder / "handbook.md").write_text(CHINESE, encoding="utf-8")
    (folder / "models.md").write_text(
        "# Models\n\n## How do I add my own model server?\n\nA model server of your own is a model "
        "with a `base_url`: add the model, add the server, add its address.\n\n"
        "## How do I add a model?\n\nName it in the settings.\n"
    )
    found = KnowledgeBase([folder])
    found.build()
    return found


def answer(base: KnowledgeBase, question: str) -> str | None:
    hits = base.search(question)
    found = quote(
        question,
        [source(hit.passage.text, hit.passage.heading, n) for n, hit in enumerate(hits, 1)],
    )
    return found.text if found else None


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("张伟有多少天年假？", "15 天"),
        ("年假可以顺延吗？", "顺延到第二年三月"),
        ("报销需要什么时候提交发票？", "30 天内"),
        ("办公时间是几点？", "上午九点"),
        ("怎么申请笔记本电脑？", "设备申请表"),
    ],
)
def test_plain_chinese_questions_are_answered(
    handbook: KnowledgeBase, question: str, said: str
) -> None:
    assert said in (answer(handbook, question) or "")
    hits = handbook.knowledge.find(question, OPERATOR)
    assert said in hits.hits[0].passage.text


@pytest.mark.parametrize(
    "question", ["如何接入微信支付？", "公司地址在哪里？", "怎么导出 Excel 报表？"]
)
def test_chinese_questions_without_an_answer_are_refused(
    handbook: KnowledgeBase, question: str
) -> None:
    assert answer(handbook, question) is None


def test_a_heading_that_is_the_question_comes_first(handbook: KnowledgeBase) -> None:
    for question in ("How do I add a model?", "how do I add a model"):
        first = handbook.search(question)[0]
        assert first.passage.heading == "How do I add a model?"
    scores = [hit.score for hit in handbook.search("How do I add a model?")]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("question", "text", "answers"),
    [
        ("What is the price of Flask?", "Flask has a helper `format_price` for templates.", False),
        ("What is the secret key?", "Set SECRET_KEY, the secret key, to random bytes.", True),
        ("Which version of Java do I need?", "You need version 3.11 of Python.", False),
        ("How do I use MongoDB?", "Use MongoDB with MongoEngine, a mapper.", True),
        ("怎么导出 Excel 报表？", "报表可以导出为 PDF。", False),
        ("How do I quit the server?", "This is quite a server.", False),
        ("How do I quit the server?", "To quit the server, press Ctrl-C.", True),
        ("What is the rate limit?", "The limit of each rat is a cage.", False),
        ("How are items rated?", "Items get a rate of one to five.", True),
        ("Can I carry over my vacation?", "Unused leave rolls over to March.", True),
        ("How do I turn on debug mode?", "To enable debug mode, pass `--debug`.", True),
        ("What does the Gold plan cost?", "The fee of the Gold plan is 90.", True),
    ],
)
def test_words_that_only_look_alike_answer_nothing(question: str, text: str, answers: bool) -> None:
    assert (quote(question, [source(text)]) is not None) is answers


MANUALS = {
    "german": "## Urlaubsanspruch\n\nDer Jahresurlaub beträgt 30 Arbeitstage.\n\n"
    "## Kündigung\n\nDie Kündigungsfrist beträgt drei Monate.\n\n"
    "## Dienstreisen\n\nBahnfahrten sind in der 2. Klasse zu buchen.\n",
    "spanish": "## Vacaciones\n\nCada empleado tiene 23 días de vacaciones al año.\n\n"
    "## Gastos\n\nLos gastos de viaje se reembolsan en 15 días.\n",
    "french": "## Congés\n\nChaque salarié a droit à 25 jours de congés par an.\n\n"
    "## Frais\n\nLes frais de déplacement sont remboursés sous 15 jours.\n",
    "arabic": "## الإجازة السنوية\n\nالإجازة السنوية عشرون يوما لكل موظف.\n\n"
    "## ساعات العمل\n\nتبدأ ساعات العمل في الثامنة صباحا.\n",
    "japanese": "## 有給休暇\n\n有給休暇は年に20日です。申請は上司に出してください。\n\n"
    "## 勤務時間\n\n勤務時間は午前9時からです。\n",
    "korean": "## 휴가\n\n연차 휴가는 일 년에 20일입니다.\n\n## 출장\n\n출장비는 30일 이내에 정산해야 합니다.\n",
}


@pytest.fixture(scope="module")
def manuals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, KnowledgeBase]:
    found = {}
    for language, text in MANUALS.items():
        folder = tmp_path_factory.mktemp(language)
        (folder / "manual.md").write_text(f"# Manual\n\n{text}", encoding="utf-8")
        found[language] = KnowledgeBase([folder])
        found[language].build()
    return found


@pytest.mark.parametrize(
    ("language", "question", "said"),
    [
        ("german", "Wie viel Urlaub habe ich?", "Der Jahresurlaub beträgt 30 Arbeitstage."),
        ("german", "Wie viele Tage Urlaub gibt es?", "Der Jahresurlaub beträgt 30 Arbeitstage."),
        (
            "german",
            "Wie lange ist die Kundigungsfrist?",
            "Die Kündigungsfrist beträgt drei Monate.",
        ),
        ("german", "In welcher Klasse darf ich Bahn fahren?", "in der 2. Klasse zu buchen."),
        ("german", "Wo ist die Kantine?", None),
        ("spanish", "¿Cuántos días de vacaciones tengo?", "23 días de vacaciones"),
        ("spanish", "¿Cuándo se reembolsan los gastos de viaje?", "se reembolsan en 15 días"),
        ("spanish", "¿Dónde está el comedor?", None),
        ("french", "Quand les frais sont-ils remboursés ?", "remboursés sous 15 jours"),
        ("french", "Où est la cantine ?", None),
        ("arabic", "كم يوما الإجازة السنوية؟", "عشرون يوما"),
        ("arabic", "أين موقف السيارات؟", None),
        ("japanese", "有給休暇は何日ですか？", "年に20日"),
        ("japanese", "有給休暇は誰に申請しますか？", "上司に出してください"),
        ("japanese", "駐車場はどこですか？", None),
        ("korean", "연차 휴가는 며칠인가요?", "20일입니다"),
        ("korean", "출장비는 언제까지 정산해야 하나요?", "30일 이내"),
        ("korean", "주차장은 어디에 있나요?", None),
    ],
)
def test_questions_in_other_languages_are_answered_or_refused(
    manuals: dict[str, KnowledgeBase], language: str, question: str, said: str | None
) -> None:
    found = answer(manuals[language], question)
    assert (said in (found or "")) if said else found is None


@pytest.mark.parametrize(
    ("question", "text", "answers"),
    [
        ("How many stock options do I get?", "Ask which options you get; stock is in the shop.", False),
        ("What does lunch cost?", "Lunch is served on the ground floor; the cost is shown there.", False),
        ("What does lunch cost?", "Lunch costs 7 euros.", True),
        ("How many people may come?", "Twelve people may come.", True),
        ("What are the fee types?", "The fee types are entry and exit.", True),
    ],
)  # fmt: skip
def test_a_question_for_a_number_needs_one(question: str, text: str, answers: bool) -> None:
    assert (quote(question, [source(text)]) is not None) is answers


PARTS = {
    "§ 2 Miete": "Die Miete beträgt 500 Euro.",
    "§ 12 Ende": "Der Vertrag endet am 31. Dezember.",
    "Article 4: Meals": "Meals are paid up to 30 euros.",
    "第二条 请假": "请假应当提前三天申请。",
    "": "2. Fees\n2.1 The fee is 90 euros.\n2.2 Late fees are 2 % a month.",
}


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("Was steht in § 2?", "Die Miete beträgt 500 Euro."),
        ("What does Article 4 say about meals?", "Meals are paid up to 30 euros."),
        ("What does Article 4 say?", "Meals are paid up to 30 euros."),
        ("第二条规定了什么？", "请假应当提前三天申请。"),
        ("What does clause 2.2 say?", "2.2 Late fees are 2 % a month."),
        ("What does clause 7.3 say?", None),
        ("What does Article 4 say about parking?", None),
    ],
)
def test_a_part_is_quoted_by_its_number(question: str, said: str | None) -> None:
    found = quote(question, [source(text, name, n) for n, (name, text) in enumerate(PARTS.items())])
    assert (found.text.rpartition(" [")[0] if found else None) == said


def test_the_less_is_said_of_the_question_the_surer_the_search_must_be() -> None:
    found = source("Bring your badge to the office.", "Office")
    question = "Can I bring my dog to the office?"
    assert quote(question, [found], confidence=0.9) is not None
    assert quote(question, [found], confidence=0.3) is None
    assert quote("Can I bring my badge to the office?", [found], confidence=0.3) is not None


def test_the_letters_of_a_code_are_no_small_words(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "keys.md").write_text("# Keys\n\nThe code zq72d3f8971d opens the gate.\n")
    settings = {"apps": {"docs": {"knowledge": ["./docs"]}}, "embedding": "none"}
    with serving(tmp_path, settings=settings) as server:
        found = server.post("/v1/answers", {"question": "What about zq72d3f8971d?"}).json()
    assert not found["abstained"]
    assert [source["path"] for source in found["sources"]] == ["keys.md"]
