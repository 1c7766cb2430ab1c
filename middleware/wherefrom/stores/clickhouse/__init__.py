"""The store for what outgrows one machine: ClickHouse, or its engine in this process (chdb)."""
