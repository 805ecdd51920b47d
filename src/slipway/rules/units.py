"""Units of length, mass, time, volume, area, speed, data and temperature, and how they convert.

Factors are exact (BIPM, SI Brochure, 9th edition; NIST SP 811 for inches, pounds and gallons).
"""

from fractions import Fraction

from slipway.types import Record

F = Fraction


class UnitProblem(Exception):
    """A unit is unknown, or cannot be converted; the message says which."""


class Unit(Record, frozen=True, kw_only=True):
    """`1 unit = factor * base + offset` of its dimension's base unit."""

    symbol: str
    dimension: str
    factor: F
    offset: F = F(0)


# dimension -> (symbol, factor, other names)
_ROWS: dict[str, tuple[tuple[str, F, str], ...]] = {
    "length": (
        ("mm", F(1, 1000), "millimetre millimeter millimetres millimeters 毫米"),
        ("cm", F(1, 100), "centimetre centimeter centimetres centimeters 厘米 公分"),
        ("m", F(1), "metre meter metres meters 米"),
        ("km", F(1000), "kilometre kilometer kilometres kilometers kms 公里 千米"),
        ("in", F(254, 10000), "inch inches 英寸"),
        ("ft", F(3048, 10000), "foot feet 英尺"),
        ("yd", F(9144, 10000), "yard yards 码"),
        ("mi", F(1609344, 1000), "mile miles 英里"),
        ("里", F(500), "华里"),
    ),
    "mass": (
        ("mg", F(1, 1000000), "milligram milligrams 毫克"),
        ("g", F(1, 1000), "gram grams gramme grammes 克"),
        ("kg", F(1), "kilogram kilograms kilo kilos 公斤 千克"),
        ("t", F(1000), "tonne tonnes 吨"),
        ("oz", F(45359237, 1600000000), "ounce ounces 盎司"),
        ("lb", F(45359237, 100000000), "lbs pound pounds 磅"),
        ("斤", F(1, 2), "市斤"),
    ),
    "time": (
        ("s", F(1), "sec secs second seconds 秒"),
        ("min", F(60), "mins minute minutes 分钟"),
        ("h", F(3600), "hr hrs hour hours 小时"),
        ("d", F(86400), "day days 天"),
        ("wk", F(604800), "week weeks 周 星期"),
    ),
    "volume": (
        ("ml", F(1, 1000), "millilitre milliliter millilitres milliliters 毫升"),
        ("l", F(1), "litre liter litres liters 升"),
        ("m3", F(1000), "立方米"),
        ("gal", F(3785411784, 1000000000), "gallon gallons 加仑"),
        ("pt", F(473176473, 1000000000), "pint pints 品脱"),
    ),
    "area": (
        ("m2", F(1), "平方米 平米"),
        ("ha", F(10000), "hectare hectares 公顷"),
        ("km2", F(1000000), "平方公里"),
        ("acre", F(40468564224, 10000000), "acres 英亩"),
        ("亩", F(2000, 3), "市亩"),
    ),
    "speed": (
        ("km/h", F(1000, 3600), "kmh kph 公里每小时"),
        ("m/s", F(1), "米每秒"),
        ("mph", F(1609344, 3600000), "迈"),
    ),
    "data": (
        ("B", F(1), "byte bytes 字节"),
        ("kB", F(1000), "kilobyte kilobytes"),
        ("MB", F(1000**2), "megabyte megabytes 兆字节"),
        ("GB", F(1000**3), "gigabyte gigabytes"),
        ("TB", F(1000**4), "terabyte terabytes"),
        ("KiB", F(1024), "kibibyte kibibytes"),
        ("MiB", F(1024**2), "mebibyte mebibytes"),
        ("GiB", F(1024**3), "gibibyte gibibytes"),
    ),
    "temperature": (
        ("°C", F(1), "celsius degc 摄氏度"),
        ("K", F(1), "kelvin 开尔文"),
    ),
}
_FAHRENHEIT = Unit(symbol="°F", dimension="temperature", factor=F(5, 9), offset=F(-160, 9))


def _table() -> dict[str, Unit]:
    found = dict[str, Unit]()
    for dimension, rows in _ROWS.items():
        for symbol, factor, names in rows:
            offset = F(-27315, 100) if symbol == "K" else F(0)
            unit = Unit(symbol=symbol, dimension=dimension, factor=factor, offset=offset)
            for name in (symbol, *names.split()):
                found[name.casefold()] = unit
    for name in ("°f", "fahrenheit", "degf", "华氏度"):
        found[name] = _FAHRENHEIT
    for name in ("°c", "degrees celsius"):
        found[name] = found["celsius"]
    found["degrees fahrenheit"] = _FAHRENHEIT
    found["km²"], found["m²"], found["m³"] = found["km2"], found["m2"], found["m3"]
    return found


UNITS = _table()


def unit_named(name: str) -> Unit:
    """Return the unit of this name or symbol, in English or Chinese. Raises UnitProblem."""
    found = UNITS.get(name.strip().casefold())
    if found is None:
        raise UnitProblem(f"`{name}` is not a unit")
    return found


def convert(amount: F, unit: Unit, to: Unit) -> F:
    """Return the amount in another unit, exactly. Raises UnitProblem if that has no meaning."""
    if unit.dimension != to.dimension:
        raise UnitProblem(f"{unit.symbol} ({unit.dimension}) is not {to.symbol} ({to.dimension})")
    return (amount * unit.factor + unit.offset - to.offset) / to.factor
