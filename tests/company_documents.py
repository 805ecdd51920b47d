"""Write the documents of a housing company at their real length: handbook, manual, slides.

The workbook is in `company_workbook`. The answer to each question is in the middle of other text,
and the neighbouring pages, slides and sheets say the same of other houses with other numbers.
Everything follows from one seed, so each run writes the same.
"""

import io
import itertools
import random
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

from docx import Document as Word
from fpdf import FPDF
from pptx import Presentation
from pptx.util import Inches

HOUSES = [
    "North Building",
    "South Building",
    "East Wing",
    "West Wing",
    "Mühlenhof",
    "Garden House",
    "Old Laundry",
    "Tower",
]
STAFF = ["caretakers", "night porters", "gardeners", "office clerks", "trainees"]


def listed(text: str) -> list[str]:
    """Return the parts of a text that bars separate."""
    return [" ".join(part.split()) for part in text.split("|")]


class Asked(NamedTuple):
    """A question, where it is answered, and what the answer must say."""

    question: str
    says: str
    heading: str
    page: int | None = None


# Prose: sentences that nobody wrote twice

WHO = listed(
    """the caretaker|the house management|the office in the courtyard|the tenants' council|the technical service|every household|
    the accounts department|the supervisory board|the fire officer|a neighbour who notices it|the plumber on duty|the contractor|the insurer|
    the person who signed the lease|the cleaning crew|whoever holds the key|the building committee|the energy adviser"""
)
DOES = listed(
    """checks|writes down|reports|keeps a copy of|signs off|discusses|photographs|asks about|passes on|files|explains|inspects|compares|
    reviews|lists|announces|looks after|prepares"""
)
WHAT = listed(
    """the meter in the hallway|the minutes of the last round|every change to the plans|the state of the stairwell|the letters on the board|
    the invoices of the quarter|the cracks in the plaster|the complaints of the week|the list of visitors|the old wiring|the gutters above the
    yard|the warranty of the boiler|the names on the bells|the drawings of the architect|the samples from the pipes|the hinges of the fire exits|
    the paint that is left over|the agreements with the city"""
)
WHEN = listed(
    """before the winter|on the first Monday of a quarter|as soon as the weather allows it|after each inspection|when the offices open|in the
    course of the spring|at the yearly meeting|whenever somebody asks for it|during the walk through the cellars|once the scaffolding is gone|
    while the painters are there|at the handover|between two leases|after a storm|without being asked|together with a witness"""
)
WHY = listed(
    """so that nothing is forgotten|because the law wants it so|which has proved itself over the years|although this takes a while|and puts a note
    into the file|unless the council objects|to spare everybody a second visit|and informs the people concerned|as the board decided some time
    ago|since old houses have their own ways|in order to keep the costs down|and thanks those who helped|even if it seems a trifle|provided that
    somebody is at home"""
)


class Prose:
    """Sentences about a subject, in an order of their own."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._every = (WHO, DOES, WHAT, WHEN, WHY)

    def sentence(self, subject: str = "") -> str:
        who, does, what, when, why = (self._random.choice(parts) for parts in self._every)
        said = self._random.choice(
            [
                f"{when}, {who} {does} {what}, {why}",
                f"{who} {does} {what} {when}",
                f"{who} {does} {what}, {why}",
                f"as to {subject or 'this'}, {who} {does} {what} {when}, {why}",
                f"it is {who} that {does} {what} {when}",
            ]
        )
        return f"{said[0].upper()}{said[1:]}."

    def paragraph(self, length: int, subject: str = "", fact: str = "") -> str:
        said = [self.sentence(subject) for _ in range(length)]
        if fact:
            said.insert(length // 2, fact)
        return " ".join(said)


# The handbook: 25 chapters, each with a section for each house

RULES: list[tuple[str, str, list[Any]]] = [
    (
        "Giving notice",
        "Whoever rents in the {house} and wants to move out tells the office in writing, with a notice of {n} days to the end of a month.",
        [42, 30, 28, 35, 56, 21, 14, 60],
    ),
    (
        "Deposits",
        "The security deposit for a flat in the {house} is {n} euros, to be paid in three parts.",
        [900, 1150, 840, 1320, 760, 1480, 990, 2100],
    ),
    (
        "Dogs and cats",
        "In the {house}, dogs are allowed up to a weight of {n} kg, provided that the neighbours agree.",
        [8, 12, 20, 15, 25, 40, 10, 6],
    ),
    (
        "The laundry",
        "The laundry of the {house} is open from {n} on working days.",
        listed(
            "6:30 to 20:00|7:00 to 19:00|8:00 to 21:30|7:15 to 20:45|9:00 to 18:00|6:00 to 22:00|10:00 to 17:00|5:45 to 21:00"
        ),
    ),
    (
        "Heating",
        "The radiators in the {house} are switched on from the {n} on.",
        listed(
            "28 September|1 October|5 October|20 September|12 October|15 September|8 October|25 September"
        ),
    ),
    (
        "Quiet hours",
        "After {n} in the evening it has to be quiet in the {house}.",
        listed("21:00|22:00|21:30|22:30|20:30|23:00|20:00|22:15"),
    ),
    (
        "Bicycles",
        "Bicycles of the {house} are kept in cellar number {n}; the hallway is not a place for them.",
        [4, 11, 7, 2, 15, 9, 21, 3],
    ),
    (
        "Keys",
        "A lost house key of the {house} costs {n} euros, since the cylinder is replaced.",
        [85, 120, 95, 140, 65, 110, 75, 180],
    ),
    (
        "Rubbish",
        "The bins of the {house} are emptied every {n}.",
        listed("Tuesday|Wednesday|second Friday|Monday|Thursday|second Tuesday|Saturday|Friday"),
    ),
    (
        "Balconies",
        "Flower boxes on a balcony of the {house} may weigh at most {n} kg with wet soil.",
        [18, 22, 14, 26, 30, 35, 12, 9],
    ),
    (
        "Visitors",
        "Guests may stay in the {house} for up to {n} nights in a row without being registered.",
        [14, 10, 21, 7, 28, 30, 5, 3],
    ),
    (
        "Subletting",
        "Subletting in the {house} needs the consent of the office, which answers within {n} working days.",
        [10, 12, 8, 15, 6, 5, 20, 9],
    ),
    (
        "Smoke alarms",
        "The smoke alarms in the {house} are tested by the firm {n} once a year.",
        listed("Brandt|Kessler|Ohlsen|Petri|Wörner|Lindqvist|Jäger|Rossi"),
    ),
    (
        "The lift",
        "The lift of the {house} carries at most {n} persons.",
        [6, 8, 4, 5, 3, 10, 7, 12],
    ),
    (
        "Barbecues",
        "Barbecues are tolerated in the yard of the {house} {n} a summer.",
        listed("twice|four times|once|six times|three times|eight times|five times|seven times"),
    ),
    (
        "Moving in",
        "For moving in, the {house} gives a loading bay that is reserved for {n} hours.",
        [3, 4, 2, 5, 6, 8, 1, 7],
    ),
    (
        "Windows",
        "Windows in the {house} are painted by the landlord every {n} years.",
        [9, 7, 11, 6, 12, 8, 10, 5],
    ),
    (
        "Internet",
        "The house connection of the {house} delivers {n} Mbit per second.",
        [250, 500, 100, 1000, 50, 300, 200, 600],
    ),
    (
        "Storage cellars",
        "A storage compartment in the attic of the {house} measures {n} square metres.",
        [3, 5, 2, 4, 7, 6, 9, 8],
    ),
    (
        "Water damage",
        "In case of water damage in the {house}, the main tap is behind the {n}.",
        listed(
            "boiler|letter boxes|green gate|fuse box|old mill wheel|ping-pong table|drying loft|lift shaft"
        ),
    ),
    (
        "Repairs",
        "Small repairs in the {house} up to {n} euros are paid by the tenant.",
        [75, 100, 60, 90, 50, 110, 80, 120],
    ),
    (
        "Snow and ice",
        "Snow before the {house} is cleared by {n} o'clock.",
        [7, 8, 6, 9, 5, 10, 11, 4],
    ),
    (
        "The playground",
        "The playground beside the {house} was made for children up to {n} years.",
        [10, 12, 8, 14, 6, 9, 11, 7],
    ),
    (
        "Mail and parcels",
        "Parcels for the {house} are kept for {n} days at the porter's lodge.",
        [5, 7, 10, 3, 12, 14, 6, 8],
    ),
    (
        "Moving out",
        "When a flat in the {house} is handed back, {n} keys must be returned.",
        [4, 5, 3, 6, 7, 8, 2, 9],
    ),
]
PARKING = dict(zip(HOUSES, [45, 52, 38, 61, 27, 33, 70, 95], strict=True))
ON_CALL = {
    "lift": "Frau Özdemir",
    "heating": "Herr Krüger",
    "locks": "Herr Straßer",
    "water pipes": "Frau Nyström",
}

_HANDBOOK_QUESTIONS = [  # the question, the chapter, the house
    (
        "How many days' notice does a tenant in the north building need?",
        "Giving notice",
        "North Building",
    ),
    ("How much is the deposit for a flat in the Garden House?", "Deposits", "Garden House"),
    ("How heavy may a dog be in the Mühlenhof?", "Dogs and cats", "Mühlenhof"),
    ("When is the laundry in the Tower open?", "The laundry", "Tower"),
    ("From what day are the radiators on in the West Wing?", "Heating", "West Wing"),
    ("When does it have to be quiet in the evening in the East Wing?", "Quiet hours", "East Wing"),
    (
        "Which cellar number are the bicycles of the South Building in?",
        "Bicycles",
        "South Building",
    ),
    ("I lost the house key of the Old Laundry, what does it cost?", "Keys", "Old Laundry"),
    ("How many nights can guests stay in the West Wing?", "Visitors", "West Wing"),
    ("Who tests the smoke alarms in the Mühlenhof?", "Smoke alarms", "Mühlenhof"),
    (
        "Where is the main tap in the Garden House if there is water damage?",
        "Water damage",
        "Garden House",
    ),
    ("Up to what amount does a tenant of the Tower pay small repairs?", "Repairs", "Tower"),
]


class _Handbook(FPDF):
    def header(self) -> None:
        self.set_font("helvetica", size=8)
        self.cell(0, 6, "Lindenhof Wohnbau - Handbook for tenants", new_x="LMARGIN", new_y="NEXT")
        self.ln(4)

    def footer(self) -> None:
        self.set_y(-15)
        self.set_font("helvetica", size=8)
        self.cell(0, 6, f"Edition 2025 - page {self.page_no()} of {{nb}}", align="C")


def handbook() -> tuple[bytes, list[Asked]]:
    """About 200 pages and 100,000 words; sections flow over pages, and only chapters are
    bookmarked. Then a table, and a page in two columns.
    """
    paper, prose, facts = _Handbook(), Prose(7), dict[tuple[str, str], Asked]()
    paper.set_title("Handbook for tenants")
    for chapter, (name, rule, values) in enumerate(RULES, start=1):
        paper.add_page()
        paper.start_section(f"{chapter} {name}")
        _head(paper, 18, f"{chapter} {name}")
        _text(paper, prose.paragraph(4, name.lower()))
        for number, (house, value) in enumerate(zip(HOUSES, values, strict=True), start=1):
            _head(paper, 13, f"{chapter}.{number} {house}")
            _text(paper, prose.paragraph(9, name.lower()))
            said = rule.format(house=house, n=value)
            page = _text(paper, prose.paragraph(5, name.lower(), said), whole=True)
            facts[name, house] = Asked("", str(value), f"{chapter}.{number} {house}", page)
            for _ in range(2):
                _text(paper, prose.paragraph(9, name.lower()))
    asked = [
        facts[name, house]._replace(question=question)
        for question, name, house in _HANDBOOK_QUESTIONS
    ]
    asked += _annexes(paper, prose)
    return bytes(paper.output()), asked


def _annexes(paper: FPDF, prose: Prose) -> Iterator[Asked]:
    """Write a table of prices, and a list of people on call in two columns between other text."""
    paper.add_page()
    paper.start_section("Annex A: Parking")
    _head(paper, 18, "Annex A: Parking")
    _text(paper, prose.paragraph(4, "parking"))
    with paper.table() as table:
        for row in [
            ("House", "Spaces", "Monthly fee"),
            *(
                (house, str(n * 3), f"{fee} euros")
                for n, (house, fee) in enumerate(PARKING.items(), 4)
            ),
        ]:
            table.row(row)
    yield Asked(
        "What is the monthly fee for a parking space at the Old Laundry?",
        "70 euros",
        "Annex A: Parking",
        paper.page_no(),
    )
    paper.add_page()
    paper.start_section("Annex B: Who to call at night")
    _head(paper, 18, "Annex B: Who to call at night")
    calls = (f"At night, {who} is called about the {what}." for what, who in ON_CALL.items())
    with paper.text_columns(ncols=2, gutter=8) as columns:
        for call in calls:
            columns.write(
                f"{prose.paragraph(6, 'the night')} {call} {prose.paragraph(6, 'the night')}\n\n"
            )
    yield Asked(
        "Who do I call at night about the locks?",
        "Herr Straßer",
        "Annex B: Who to call at night",
        paper.page_no(),
    )


def _head(paper: FPDF, size: int, text: str) -> None:
    paper.set_font("helvetica", "B", size)
    if paper.will_page_break(40):
        paper.add_page()
    paper.ln(4)
    paper.cell(0, 8, text, new_x="LMARGIN", new_y="NEXT")
    paper.ln(2)
    paper.set_font("helvetica", size=11)


def _text(paper: FPDF, text: str, *, whole: bool = False) -> int:
    """Gives the page. With `whole`, the paragraph is not parted."""
    if whole and paper.will_page_break(80):
        paper.add_page()
    page = paper.page_no()
    paper.multi_cell(0, 5.5, text, new_x="LMARGIN", new_y="NEXT")
    paper.ln(3)
    return page


# The staff manual: 14 chapters, each with a section for each kind of staff

DUTIES: list[tuple[str, str, list[Any]]] = [
    ("Holidays", "For {staff}, the yearly holiday is {n} working days.", [28, 33, 26, 30, 31]),
    ("Illness", "When ill, {staff} bring a doctor's note from day {n} on.", [3, 2, 4, 5, 1]),
    (
        "Overtime",
        "Overtime of {staff} has to be taken as time off within {n} weeks.",
        [12, 8, 20, 16, 4],
    ),
    (
        "Working clothes",
        "Each year, {staff} get {n} euros for working clothes.",
        [240, 180, 310, 60, 120],
    ),
    ("Training", "The company pays {n} days of training a year for {staff}.", [4, 2, 3, 6, 20]),
    ("Travel", "On journeys, {staff} are paid {n} cents for each kilometre.", [35, 38, 42, 30, 25]),
    (
        "Ladders",
        "Without a second person, {staff} may climb a ladder up to {n} metres.",
        [5, 2, 7, 1, 3],
    ),
    ("Telephones", "A private call of {staff} may last {n} minutes.", [5, 15, 3, 10, 2]),
    ("Breaks", "After six hours, {staff} take a break of {n} minutes.", [30, 45, 40, 35, 60]),
    ("Night work", "For work after 23:00, {staff} are paid {n} percent more.", [25, 15, 30, 20, 0]),
    ("Probation", "The probation time of {staff} ends after {n} months.", [6, 3, 5, 4, 2]),
    (
        "Tools",
        "Tools above {n} euros are bought by {staff} only after asking the head of the service.",
        [150, 50, 200, 80, 20],
    ),
    (
        "Accidents",
        "An accident is reported by {staff} to the insurer within {n} days.",
        [3, 1, 2, 5, 4],
    ),
    ("Leaving", "When leaving, {staff} get their reference within {n} weeks.", [3, 4, 2, 1, 5]),
]
_MANUAL_QUESTIONS = [
    ("How many days of holiday do gardeners get?", "Holidays", "gardeners"),
    (
        "From which day on does a night porter need a doctor's note when ill?",
        "Illness",
        "night porters",
    ),
    (
        "Within how many weeks must office clerks take overtime as time off?",
        "Overtime",
        "office clerks",
    ),
    ("How much money do caretakers get for working clothes?", "Working clothes", "caretakers"),
    ("How many days of training does the company pay for trainees?", "Training", "trainees"),
    ("How many cents a kilometre is a gardener paid?", "Travel", "gardeners"),
    ("How high may a night porter climb on a ladder alone?", "Ladders", "night porters"),
    ("How long is the break of an office clerk after six hours?", "Breaks", "office clerks"),
    ("What extra pay do caretakers get for work after 23:00?", "Night work", "caretakers"),
    ("How long is the probation time of trainees?", "Probation", "trainees"),
]
DEPOSITS = {
    "drill": 120,
    "floor polisher": 260,
    "hedge trimmer": 145,
    "pressure washer": 310,
    "van": 500,
}


def manual() -> tuple[bytes, list[Asked]]:
    """Write about 120 pages: styled headings, lists, a table, and a fact in a footnote."""
    word, prose, asked = Word(), Prose(11), list[Asked]()
    word.add_heading("Staff manual", 0)
    facts = dict[tuple[str, str], Asked]()
    for name, rule, values in DUTIES:
        word.add_heading(name, 1)
        word.add_paragraph(prose.paragraph(5, name.lower()))
        for staff, value in zip(STAFF, values, strict=True):
            word.add_heading(f"{name} of {staff}", 2)
            for _ in range(3):
                word.add_paragraph(prose.paragraph(10, name.lower()))
            word.add_paragraph(prose.paragraph(6, name.lower(), rule.format(staff=staff, n=value)))
            for _ in range(4):
                word.add_paragraph(prose.sentence(name.lower()), style="List Bullet")
            word.add_paragraph(prose.paragraph(10, name.lower()))
            facts[name, staff] = Asked("", str(value), f"{name} of {staff}")
    word.add_heading("Lending out machines", 1)
    word.add_paragraph(prose.paragraph(5, "machines"))
    table = word.add_table(rows=0, cols=2)
    for left, right in [
        ("Machine", "Deposit"),
        *((name, f"{value} euros") for name, value in DEPOSITS.items()),
    ]:
        cells = table.add_row().cells
        cells[0].text, cells[1].text = left, right
    word.add_heading("The canteen", 1)
    word.add_paragraph(
        f"{prose.paragraph(5, 'the canteen')} The canteen is open to guests.NOTE {prose.paragraph(5, 'the canteen')}"
    )
    asked = [
        facts[name, staff]._replace(question=question)
        for question, name, staff in _MANUAL_QUESTIONS
    ]
    asked.append(
        Asked("What deposit is asked for the hedge trimmer?", "145 euros", "Lending out machines")
    )
    asked.append(
        Asked("What does a guest pay for a meal in the canteen?", "8.40 euros", "The canteen")
    )
    return _with_footnote(saved(word), "A guest pays 8.40 euros for a meal."), asked


_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def _with_footnote(data: bytes, note: str) -> bytes:
    """Put a footnote in the place of the word NOTE; python-docx cannot write footnotes."""
    parts = parts_of(data)
    body, runs = (
        parts["word/document.xml"].decode(),
        '</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r><w:r><w:t xml:space="preserve">',
    )
    parts["word/document.xml"] = body.replace("NOTE", runs).encode()
    parts["word/footnotes.xml"] = (
        f'<w:footnotes xmlns:w="{_W}"><w:footnote w:id="2"><w:p><w:r><w:t>{note}</w:t></w:r></w:p></w:footnote></w:footnotes>'.encode()
    )
    links = "word/_rels/document.xml.rels"
    link = f'<Relationship Id="rIdNotes" Type="{_OFFICE}/footnotes" Target="footnotes.xml"/></Relationships>'
    parts[links] = parts[links].decode().replace("</Relationships>", link).encode()
    kind = '<Override PartName="/word/footnotes.xml" ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.footnotes+xml"/></Types>'
    parts["[Content_Types].xml"] = (
        parts["[Content_Types].xml"].decode().replace("</Types>", kind).encode()
    )
    return packed(parts)


# The slides: seven subjects, each with a slide for each house; some say it in the table, some in
# the notes

NEWS: list[tuple[str, str, list[Any]]] = [
    (
        "Renovation",
        "The facade of the {house} is renovated in {n}",
        listed("March|May|August|June|October|April|July|September"),
    ),
    (
        "Energy",
        "The {house} needed {n} kWh per square metre last year",
        [121, 98, 143, 110, 87, 76, 165, 132],
    ),
    (
        "Survey",
        "{n} percent of the households of the {house} are content",
        [81, 74, 69, 88, 93, 90, 58, 77],
    ),
    ("Roof", "Solar panels on the {house} deliver {n} kW", [24, 31, 18, 40, 12, 9, 27, 55]),
    ("Vacancy", "{n} flats of the {house} are empty", [4, 7, 2, 5, 1, 3, 6, 11]),
    ("Costs", "Running costs", [2.41, 2.87, 2.19, 3.05, 1.98, 2.66, 3.32, 3.71]),
    (
        "Garden",
        "What is planted",
        listed("apple trees|lavender|a hedge of yew|wild roses|willows|herbs|ivy|two maples"),
    ),
]
_SLIDE_QUESTIONS = [
    ("When is the facade of the Mühlenhof renovated?", "Renovation", "Mühlenhof"),
    ("In which month will the facade of the Tower be renovated?", "Renovation", "Tower"),
    ("How many kWh per square metre did the Garden House need?", "Energy", "Garden House"),
    ("How many kWh per square metre did the East Wing need?", "Energy", "East Wing"),
    ("How many households of the Old Laundry are content?", "Survey", "Old Laundry"),
    ("How many kW do the solar panels on the West Wing deliver?", "Roof", "West Wing"),
    ("How many flats of the South Building are empty?", "Vacancy", "South Building"),
    ("How many flats are empty in the Tower?", "Vacancy", "Tower"),
    (
        "What are the running costs of the North Building in euros per square metre?",
        "Costs",
        "North Building",
    ),
    (
        "What are the running costs of the West Wing in euros per square metre?",
        "Costs",
        "West Wing",
    ),
    ("What is planted in the garden of the South Building?", "Garden", "South Building"),
    ("What is planted in the garden of the Mühlenhof?", "Garden", "Mühlenhof"),
]


def slides() -> tuple[bytes, list[Asked]]:
    """Write 60 slides with bullets and notes: the costs are in tables, the garden in the notes."""
    deck, prose, facts = Presentation(), Prose(13), dict[tuple[str, str], Asked]()
    _slide(
        deck,
        "Assembly of the tenants 2025",
        ["Welcome", "Minutes of last year", "News from the houses"],
        "Greet the council first.",
    )
    _slide(deck, "Agenda", [name for name, *_ in NEWS], prose.paragraph(3))
    for name, rule, values in NEWS:
        for house, value in zip(HOUSES, values, strict=True):
            is_bulleted = name not in ("Costs", "Garden")
            points = [
                prose.sentence(name.lower()),
                rule.format(house=house, n=value),
                prose.sentence(name.lower()),
            ]
            planted = (
                f"In the garden of the {house} we plant {value} this year."
                if name == "Garden"
                else ""
            )
            slide = _slide(
                deck, f"{name}: {house}", points, prose.paragraph(4, name.lower(), planted)
            )
            if name == "Costs":
                rows = [
                    ("Item", "Euros per square metre"),
                    ("Running costs", str(value)),
                    ("Of which water", str(round(value / 7, 2))),
                ]
                table = slide.shapes.add_table(
                    3, 2, Inches(1), Inches(4), Inches(6), Inches(1)
                ).table
                for (down, row), across in itertools.product(enumerate(rows), range(2)):
                    table.cell(down, across).text = row[across]
            facts[name, house] = Asked(
                "",
                f"{value} percent" if name == "Survey" and is_bulleted else str(value),
                f"{name}: {house}",
                len(deck.slides),
            )
    _slide(deck, "Questions", ["Floor is open"], prose.paragraph(3))
    _slide(deck, "Thank you", ["See you next year"], "")
    return saved(deck), [
        facts[name, house]._replace(question=question) for question, name, house in _SLIDE_QUESTIONS
    ]


def _slide(deck: Any, title: str, points: list[str], notes: str) -> Any:
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text = title
    slide.placeholders[1].text_frame.text = "\n".join(points)
    slide.notes_slide.notes_text_frame.text = notes
    return slide


def parts_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


def packed(parts: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in parts.items():
            file.writestr(name, data)
    return out.getvalue()


def saved(what: Any) -> bytes:
    out = io.BytesIO()
    what.save(out)
    return out.getvalue()
