"""The tables that a benchmark writes."""


def tables_of(out):
    """The Markdown tables in table.md, as dicts by their first column."""
    found = []
    for part in (out / "table.md").read_text().split("\n\n"):
        rows = [line[2:-2].split(" | ") for line in part.strip().splitlines()]
        found.append({row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]})
    return found


def first_number(text):
    return float(text.split()[0].replace("−", "-"))
