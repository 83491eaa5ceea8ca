"""The tables that a benchmark writes."""


def tables_of(out):
    """The Markdown tables in table.md, as dicts by their first column."""
    found = []
    for part in (out / "table.md").read_text().split("\n\n"):
        rows = rows_of(part)
        found.append({next(iter(row.values())): row for row in rows})
    return found


def rows_of(table):
    """The rows of one, as dicts by its header."""
    lines = [line[2:-2].split(" | ") for line in table.strip().splitlines()]
    assert lines[1] == ["---"] * len(lines[0])
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def first_number(text):
    return float(text.split()[0].replace("−", "-"))
