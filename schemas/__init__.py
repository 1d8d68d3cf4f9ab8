"""The Avro contract: one .avsc per event and version; nothing else decides what an event is."""

from sitelog.schemas._load import EventSchema, SchemaFileError, load, newest

__all__ = ["EventSchema", "SchemaFileError", "load", "newest"]
