"""Write the inline markup of reStructuredText as Markdown."""

import re

# Roles whose text is no code
_PLAIN_LIST = """
    ref doc term abbr abbreviation emphasis strong title title-reference sub subscript sup
    superscript guilabel menuselection download numref any dfn index pep rfc cve gh pr issue
    user commit std:ref std:doc std:term external
"""
_PLAIN = frozenset(_PLAIN_LIST.split())
_MARKUP = re.compile(
    r"``(?P<code>.+?)``"
    r"|(?<![\w`]):(?P<role>[\w:.+-]+):`(?P<said>[^`]+)`"
    r"|(?<![\w`])`(?P<link>[^`]+)`(?:__?(?!\w))?(?::(?P<behind>[\w:.+-]+):)?"
    r"|(?<!\w)\[(?:#[\w-]*|\*|\d+)\]_(?!\w)"
    r"|(?<![\w:/.@])(?P<word>[A-Za-z][\w.-]*?)__?(?![\w_])(?<!\w__)"
    r"|(?<![\w|])\|(?P<named>[^\s|](?:[^|\n]*[^\s|])?)\|_{0,2}(?![\w|])"
    r"|\\(?P<escaped>.)",
    re.DOTALL,
)
_TARGET = re.compile(r"^(?P<text>.*?)\s*<(?P<target>[^<>]+)>$", re.DOTALL)


def inline(text: str) -> str:
    """Return the text with code in back-quotes, links as Markdown, and roles as what they say."""
    return _MARKUP.sub(_written, text) if re.search(r"[`\\_|]", text) else text


def _written(found: re.Match[str]) -> str:
    if found["code"]:
        return _code(found["code"])
    if found["role"]:
        return _role(found["role"], found["said"])
    if found["link"]:
        return _role(found["behind"], found["link"]) if found["behind"] else _link(found["link"])
    if found["word"] or found["named"]:
        return found["word"] or found["named"]
    return (found["escaped"] or "").strip()


def _role(role: str, said: str) -> str:
    target = _TARGET.match(said)
    if target and target["text"]:
        return target["text"]
    name = said.lstrip("!")
    if name.startswith("~"):
        name = name[1:].rsplit(".", 1)[-1]
    return name if role.lower() in _PLAIN else _code(name)


def _link(said: str) -> str:
    target = _TARGET.match(said)
    if target is None:
        return said
    text, address = target["text"] or target["target"], target["target"]
    return text if address.endswith("_") else f"[{text}]({address})"


def _code(text: str) -> str:
    marks = "``" if "`" in text else "`"
    return f"{marks}{text}{marks}"
