"""Push receivers as one would write them in an afternoon, to measure against."""
