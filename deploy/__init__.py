"""The embedded Kafka and Postgres, and what it takes to run on machines of your own."""
