"""scripts/import_responses.py: a folder of responses, and never over one that is there."""

import json

from support.processes import HOME

SCRIPT = HOME / "scripts" / "import_responses.py"


def test_nothing_is_written_over(script, tmp_path):
    source, out = tmp_path / "posts.jsonl", tmp_path / "out"
    source.write_text(json.dumps({"post": "I lost my dog.", "summary": "Lost dog."}) + "\n")
    asked = [SCRIPT, source, "--format", "summary", "--out"]
    code, said, err = script(*asked, out)
    assert (code, said) == (0, f"{out}: 1 responses\n"), err
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    code, _, err = script(*asked, out)
    assert code == 2 and "has files in it; name an empty folder" in err.splitlines()[-1]
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before
    code, _, err = script(*asked, source)
    assert code == 2 and "is a file; name a folder" in err.splitlines()[-1]
