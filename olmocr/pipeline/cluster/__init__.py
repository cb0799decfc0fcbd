"""One run over many machines: the run itself is here, and its readers of pages are on the machines of a Ray cluster."""
