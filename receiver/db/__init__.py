"""The database, SQLite or PostgreSQL: engine, tables, schema versions, encryption at rest."""
