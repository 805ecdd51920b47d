"""stub"""


class Joint:
    def __init__(self, shown: str, *, prefilled: bool = False) -> None: ...
    def feed(self, text: str) -> str:
        return text

    def end(self) -> str:
        return ""
