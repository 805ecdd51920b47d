"""The store: what must outlive the process."""

from slipway.store.sqlite import Holder, InUse, Store, file_of, holder_of

__all__ = ["Holder", "InUse", "Store", "file_of", "holder_of"]
