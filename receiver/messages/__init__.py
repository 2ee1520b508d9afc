"""Messages, receipts and replies: derived from the journal, read, searched and exported."""
