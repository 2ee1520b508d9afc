"""The only package that speaks SQL: one set of tables, on SQLite and on PostgreSQL."""
