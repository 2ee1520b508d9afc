"""Reports over many messages: counts, delivery, carriers, and the views for SQL."""
