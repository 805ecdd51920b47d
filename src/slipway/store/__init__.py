"""The store: what must outlive the process. Its users call verbs; only this package knows SQL."""

from slipway.store.backup import restore_backup, write_backup
from slipway.store.contract import (
    CollectedAnswer,
    Conversations,
    FeedbackFilter,
    FeedbackRow,
    Grouping,
    KeyHash,
    Keys,
    Ledger,
    LedgerFilter,
    LedgerSum,
    Records,
    RowError,
    RuleHits,
    SavedConversation,
    SavedFeedback,
    SavedKey,
    SectionTiming,
    Shared,
    StoreError,
    Withdrawal,
)
from slipway.store.database import Database
from slipway.store.ledger_writer import LedgerWriter
from slipway.store.migrations import migrate
from slipway.store.pruning import prune
from slipway.store.record_store import (
    RecordStore,
    database_of,
    file_of,
    is_local,
    open_records,
    problem_in,
)
from slipway.store.sqlite import Holder, InUse, Store, check_usable, holder_of
from slipway.store.writer import ANSWERS_KEPT_DAYS, RowWriter

__all__ = [
    "ANSWERS_KEPT_DAYS",
    "CollectedAnswer",
    "Conversations",
    "Database",
    "FeedbackFilter",
    "FeedbackRow",
    "Grouping",
    "Holder",
    "InUse",
    "KeyHash",
    "Keys",
    "Ledger",
    "LedgerFilter",
    "LedgerSum",
    "LedgerWriter",
    "RecordStore",
    "Records",
    "RowError",
    "RowWriter",
    "RuleHits",
    "SavedConversation",
    "SavedFeedback",
    "SavedKey",
    "SectionTiming",
    "Shared",
    "Store",
    "StoreError",
    "Withdrawal",
    "check_usable",
    "database_of",
    "file_of",
    "holder_of",
    "is_local",
    "migrate",
    "open_records",
    "problem_in",
    "prune",
    "restore_backup",
    "write_backup",
]
