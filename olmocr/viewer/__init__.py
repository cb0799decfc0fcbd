"""A workspace -> HTML pages to look at: each page's image beside its text."""
