"""`ric scorers`, `ric models`, `ric init` and `ric completion`."""

import shutil
import subprocess

import pytest
import yaml

import scorers
from ric_diffusion.api.recipes import RECIPES
from ric_diffusion.cli import main
from ric_diffusion.cli.parser import SHELLS, build_parser
from ric_diffusion.models.known import BUNDLED, PACKAGES, TITLES


def said(capsys, *args: str) -> str:
    assert main(args) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def test_scorers_are_listed_with_units_and_options(capsys):
    shown = said(capsys, "scorers")
    heads = [line for line in shown.splitlines() if line and not line.startswith((" ", "`"))]
    assert [line.split()[0] for line in heads] == scorers.available()
    assert "\ncompressibility  (pictures; unit: kB)\n" in shown
    assert "  options: quality=95, resize=512\n" in shown
    assert "\nclip_score  (pictures with their prompts; unit: 100*cos)\n" in shown
    assert "\npositivity  (texts; unit: compound)\n" in shown
    assert "model=…, question=…" in shown  # which have no default
    for line in shown.splitlines():
        assert len(line) <= 100


def test_one_scorer_is_told_in_full(capsys):
    assert "resize the side in pixels" in said(capsys, "scorers", "compressibility")
    assert main(["scorers", "compresibility"]) == 2
    assert "did you mean 'compressibility'?" in capsys.readouterr().err


def test_models_are_the_bundled_ones_and_the_families(capsys):
    shown = said(capsys, "models")
    for name in (*BUNDLED, *PACKAGES, *TITLES.values(), *RECIPES):
        assert name in shown
    assert "sliders for compressibility, colorfulness" in shown


def test_init_prints_a_config(capsys):
    assert yaml.safe_load(said(capsys, "init", "sdxl"))["model"].startswith("stabilityai/")
    with pytest.raises(SystemExit):
        main(["init", "sdxx"])
    assert "did you mean 'sdxl'?" in capsys.readouterr().err


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_knows_commands_options_and_scorers(capsys, shell, tmp_path):
    script = said(capsys, "completion", shell)
    for word in ("serve-scorer", "--scorers" if shell != "fish" else "-l scorers", "colorfulness"):
        assert word in script
    assert "bfloat16" in script and "quantile" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here to read it")
    (tmp_path / "ric").write_text(script)
    done = subprocess.run([shell, "-n", tmp_path / "ric"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_bash_completes_what_was_begun(capsys, tmp_path):
    (tmp_path / "ric").write_text(said(capsys, "completion", "bash"))
    begun = 'COMP_WORDS=(ric score --scorers color); COMP_CWORD=3; _shtab_ric "" color --scorers'
    lines = f'source {tmp_path / "ric"}; {begun}; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True)
    assert done.stdout.split() == ["colorfulness"], done.stderr


def test_completion_offers_what_the_parser_takes():
    """The shell is told of scorers, of which the parser takes others as well."""
    options = build_parser().parse_args(["score", "x", "--scorers", "mine.py:Mine"])
    assert options.scorers == ["mine.py:Mine"]
