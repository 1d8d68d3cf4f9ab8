"""The log: events, codec, topics, the producers' API and the Faust transport."""
