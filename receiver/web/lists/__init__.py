"""What the lists of the API and of the console share: filters, what a caller may see, pages, files."""
