"""The Avro contract: one .avsc per event and version; nothing else decides what an event is."""
