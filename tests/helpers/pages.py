"""What a page of a report holds."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """Tables as lists of rows, every tag and attribute."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.attributes, self.text = [], [], ''
        self.cell = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *attr) for attr in attrs]
        if tag == 'table':
            self.tables.append([])
        elif tag == 'tr':
            self.tables[-1].append([])
        elif tag in ('td', 'th'):
            self.cell = ''
        elif tag == 'br':
            self.cell += '|'

    def handle_endtag(self, tag):
        if tag in ('td', 'th'):
            self.tables[-1][-1].append(self.cell)
            self.cell = None

    def handle_data(self, text):
        self.text += text
        if self.cell is not None:
            self.cell += text
