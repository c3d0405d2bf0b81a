"""A page as the standard library's parser reads it."""

import html.parser


class Read(html.parser.HTMLParser):
    """The elements of a page with the names of their attributes, the values of these, the data."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.values, self.islands, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        self.elements.append((tag, *names))
        self.values += [(name, value) for name, value in attrs]
        self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.elements.append((f"/{tag}",))

    def handle_data(self, data):
        if self.open and self.open[-1][1].get("type") == "application/json" and "{" in data:
            self.islands.append((self.open[-1][1]["data-of"], data))

    def handle_comment(self, data):
        self.elements.append(("comment", data))

    def handle_decl(self, decl):
        self.elements.append(("decl", decl))

    def unknown_decl(self, data):
        self.elements.append(("unknown", data))

    def handle_pi(self, data):
        self.elements.append(("pi", data))
