"""The store: what must outlive the process. Its users call verbs; only this package knows SQL."""

from slipway.store.contract import (
    FeedbackFilter,
    FeedbackRow,
    Records,
    SavedFeedback,
    SectionTiming,
    StoreError,
)
from slipway.store.sqlite import Holder, InUse, Store, check_usable, file_of, holder_of
from slipway.store.sqlite_records import list_feedback

__all__ = [
    "FeedbackFilter",
    "FeedbackRow",
    "Holder",
    "InUse",
    "Records",
    "SavedFeedback",
    "SectionTiming",
    "Store",
    "StoreError",
    "check_usable",
    "file_of",
    "holder_of",
    "list_feedback",
]
