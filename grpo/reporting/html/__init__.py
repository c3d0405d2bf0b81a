"""A run as one HTML file: its pieces, each a function of data that returns a part of the page."""
