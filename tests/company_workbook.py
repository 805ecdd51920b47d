"""Write the workbook of the housing company: rents, repairs, meters, suppliers and a budget.

Its six sheets have 20,000 rows.
"""

import datetime
import itertools
import random
import re
from collections.abc import Iterator
from typing import Any

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell

from company_documents import HOUSES, Asked, listed, packed, parts_of, saved

FIRST = listed(
    """Marta|Jonas|Aylin|Peter|Sofia|Henrik|Clara|Emil|Nadja|Oskar|Rosa|Viktor|Hanna|Luca|Petra|Karim|Julia|Stefan|Ines|Paul
    |Greta|Tarek|Lena|Moritz|Vera"""
)
LAST = listed(
    """Lindqvist|Weber|Yilmaz|Novak|Hartmann|Rossi|Berger|Køhler|Fontaine|Okafor|Sandoval|Petersen|Brandt|Kovács|Meier|Dubois
    |Lehmann|Ivanova|Castillo|Huber|Nielsen|Schäfer|Moreau|Tanaka|Vogel"""
)
WORKS = listed(
    "gate|gutter|window|boiler|bell|stair light|drain|fence|lift cable|roof tile|tap|floor"
)
TRADES = listed("roofer|plumber|electrician|painter|locksmith|glazier|gardener|chimney sweep")
BUDGET = [
    ("Insurance", 48_200, 51_900),
    ("Cleaning", 73_000, 71_500),
    ("Winter service", 18_400, 22_150),
    ("Lifts", 33_600, 35_250),
    ("Gardens", 27_900, 26_300),
    ("Roofs", 112_000, 164_500),
    ("Administration", 208_000, 214_800),
]


def book() -> tuple[bytes, list[Asked]]:
    """Six sheets with 20,000 rows: dates, amounts in euros, and formulas with what they came to, as
    Excel leaves them.
    """
    made, chance, asked, results = (
        Workbook(write_only=True),
        random.Random(17),
        list[Asked](),
        dict[int, list[float]](),
    )
    for year in (2024, 2025):
        asked += _rents(made, chance, year, results.setdefault(len(made.worksheets) + 1, []))
    asked += _repairs(made, chance)
    asked += _meters(made, chance)
    asked += _suppliers(made, chance)
    asked += _budget(made, results.setdefault(len(made.worksheets) + 1, []))
    return _computed(saved(made), results), asked


def _rents(
    made: Workbook, chance: random.Random, year: int, results: list[float]
) -> Iterator[Asked]:
    sheet = made.create_sheet(f"Rents {year}")
    sheet.append(["House", "Flat", "Tenant", "Net rent", "Heating", "Total", "Since"])
    people = list(itertools.product(FIRST, LAST))
    for number in range(5_000):
        house, (first, last) = HOUSES[number // 625], people[number * 7 % 625]
        person = f"{first} {FIRST[number // 625]} {last}"
        net, heating = (
            chance.randrange(40_000, 160_000) / 100,
            chance.randrange(5_000, 19_000) / 100,
        )
        since = datetime.date(2000, 1, 1) + datetime.timedelta(days=chance.randrange(8_000))
        flat = f"{number % 625 // 25 + 1}-{number % 25 + 1:02}"
        sheet.append(
            [
                house,
                flat,
                person,
                _euros(sheet, net),
                _euros(sheet, heating),
                f"=D{number + 2}+E{number + 2}",
                since,
            ]
        )
        results.append(round(net + heating, 2))
        if (year, number) in ((2024, 77), (2025, 77), (2025, 311)):
            yield Asked(
                f"What total rent does {person} pay in {year}?",
                _shown(net + heating),
                f"Rents {year}",
            )
        if (year, number) in ((2024, 1_004), (2025, 4_321)):
            yield Asked(
                f"Since when is flat {flat} in the {house} let, by the rents of {year}?",
                since.isoformat(),
                f"Rents {year}",
            )


def _repairs(made: Workbook, chance: random.Random) -> Iterator[Asked]:
    sheet = made.create_sheet("Repairs")
    sheet.append(["Number", "Reported", "House", "What", "Firm", "Cost", "Paid"])
    for number in range(6_000):
        day = datetime.date(2025, 1, 1) + datetime.timedelta(days=number % 360)
        cost = chance.randrange(3_000, 90_000) / 100
        house, what, firm = chance.choice(HOUSES), chance.choice(WORKS), chance.choice(LAST)
        sheet.append(
            [
                f"R-{20_000 + number}",
                day,
                house,
                what,
                firm,
                _euros(sheet, cost),
                chance.random() < 0.8,
            ]
        )
        if number == 417:
            yield Asked(f"What did repair R-{20_000 + number} cost?", _shown(cost), "Repairs")
        if number == 5_120:
            yield Asked(f"Which firm did the repair R-{20_000 + number}?", firm, "Repairs")


def _meters(made: Workbook, chance: random.Random) -> Iterator[Asked]:
    sheet = made.create_sheet("Meters")
    sheet.append(["Readings of the year"])
    sheet.append([])
    sheet.append(["Meter", "House", "Kind", "Read on", "Reading", "Unit"])
    for number in range(3_500):
        reading, house = chance.randrange(1_000, 90_000), chance.choice(HOUSES)
        kind, unit = chance.choice([("water", "m³"), ("heat", "kWh"), ("power", "kWh")])
        day = datetime.date(2025, 12, 1) + datetime.timedelta(days=number % 28)
        sheet.append([f"M{700_000 + number * 7}", house, kind, day, reading, unit])
        if number in (1_234, 3_210):
            yield Asked(
                f"What is the reading of meter M{700_000 + number * 7}?", str(reading), "Meters"
            )


def _suppliers(made: Workbook, chance: random.Random) -> Iterator[Asked]:
    sheet = made.create_sheet("Suppliers")
    sheet.append(["Firm", "Trade", "City", "Hourly rate", "Contract until"])
    for number, (first, last) in enumerate(itertools.combinations(LAST, 2)):
        rate, trade = chance.randrange(3_900, 9_900) / 100, TRADES[number % len(TRADES)]
        sheet.append(
            [
                f"{first} & {last}",
                trade,
                chance.choice(LAST) + "stadt",
                _euros(sheet, rate),
                datetime.date(2026, number % 12 + 1, 28),
            ]
        )
        if number in (33, 202):
            yield Asked(
                f"What hourly rate does the {trade} {first} & {last} charge?",
                _shown(rate),
                "Suppliers",
            )


def _budget(made: Workbook, results: list[float]) -> Iterator[Asked]:
    sheet = made.create_sheet("Budget")
    sheet.append(["Item", "Year 2024", "Year 2025", "Change"])
    for number, (item, before, after) in enumerate(BUDGET, start=2):
        sheet.append([item, _euros(sheet, before), _euros(sheet, after), f"=C{number}-B{number}"])
        results.append(after - before)
    yield Asked("By how much does the budget for the winter service change?", "3750", "Budget")


def _euros(sheet: Any, value: float) -> Any:
    cell = WriteOnlyCell(sheet, value)
    cell.number_format = '#,##0.00 "€"'
    return cell


def _shown(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _computed(data: bytes, results: dict[int, list[float]]) -> bytes:
    """Formulas get their values, which openpyxl leaves to Excel."""
    parts = parts_of(data)
    for number, values in results.items():
        name, left = f"xl/worksheets/sheet{number}.xml", iter(values)
        parts[name] = re.sub(
            r"</f><v ?/>|</f><v></v>",
            lambda _, left=left: f"</f><v>{next(left)}</v>",  # type: ignore[misc]
            parts[name].decode(),
        ).encode()
    return packed(parts)
