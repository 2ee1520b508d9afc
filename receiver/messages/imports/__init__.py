"""Files of sends as people have them: from bytes to rows (files, sheets), from rows to records (columns, times)."""
