"""Index a folder in a store of its own, and search it as an asker who may read everything."""

from pathlib import Path

from slipway.knowledge import OFF, DocumentCounts, Knowledge, ScanProgress, opened
from slipway.knowledge.access import Access
from slipway.knowledge.document_store import Doc
from slipway.knowledge.reading import failure_text
from slipway.settings import AccessRule
from slipway.store import Store
from slipway.types import Asker, Hit, Passage, Within

OPERATOR = Asker(owner="test", everything=True)


class KnowledgeBase:
    def __init__(
        self,
        sources: list[Path],
        store: Store | None = None,
        rules: tuple[AccessRule, ...] = (),
        *,
        deadline_s: float = 60.0,
        embedding: str = OFF,
        base: Path | None = None,
    ) -> None:
        self.store = store or Store.temporary()
        self.knowledge = Knowledge(
            opened(self.store, sources, deadline_s=deadline_s, embedding=embedding),
            Access(lambda: rules, sources, base or sources[0].parent),
        )

    def build(self) -> ScanProgress:
        return self.knowledge.build()

    def search(
        self, text: str, limit: int = 5, asker: Asker = OPERATOR, within: Within | None = None
    ) -> list[Hit]:
        return self.knowledge.search(text, asker, limit, within)

    # The field's name on the wire
    def passage(self, id: str, asker: Asker = OPERATOR) -> Passage | None:  # noqa: A002
        return self.knowledge.passage(id, asker)

    def examples(self) -> list[str]:
        return self.knowledge.examples(OPERATOR)

    @property
    def counts(self) -> DocumentCounts:
        return self.knowledge.counts(OPERATOR)

    @property
    def reports(self) -> list[Doc]:
        return self.knowledge.documents(OPERATOR)

    @property
    def reasons(self) -> dict[str, str]:
        """Return for each failed file what is wrong and what to do."""
        return {doc.path: failure_text(doc) for doc in self.reports if doc.state == "failed"}

    def close(self) -> None:
        self.knowledge.synchronizer.close()
        self.store.close()
