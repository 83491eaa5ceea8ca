"""How the page looks, and what runs in the browser."""

from pathlib import Path

HERE = Path(__file__).parent
STYLE = (HERE / "page.css").read_text(encoding="utf-8")
HEAD = f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>"

# Weights share 100: the one that is moved has what it was given, the others split the rest as they
# stood to each other. Gradio hands over all weights, and takes them back.
SHARE = """(...weights) => {
  const moved = %d;
  weights[moved] = Math.min(Math.max(weights[moved], 0), 100);
  const rest = 100 - weights[moved];
  const others = weights.map((_, i) => i).filter(i => i !== moved);
  const sum = others.reduce((total, i) => total + weights[i], 0);
  let left = rest;
  others.forEach((i, k) => {
    const part = sum ? rest * weights[i] / sum : rest / others.length;
    weights[i] = k === others.length - 1 ? left : Math.min(Math.round(part), left);
    left -= weights[i];
  });
  return weights;
}"""

# A point of the chart, or a sample of the gallery, is chosen by click, Enter or space.
CHOOSE = """
const choose = event => {
  const chosen = event.target.closest("[data-place], [data-id]");
  if (!chosen) return;
  event.preventDefault();
  trigger("select", {index: Number(chosen.dataset.place ?? chosen.dataset.id)});
};
element.addEventListener("click", choose);
element.addEventListener("keydown", event => {
  if (event.key === "Enter" || event.key === " ") choose(event);
});
"""

FEED = 'watch("value", () => window.ric.feed(props.value));'
RELOAD = 'watch("value", () => setTimeout(() => location.reload(), 100));'
DRAW = "() => document.querySelector('#go').click()"
NEW_SEED = "() => Math.floor(Math.random() * 2 ** 31)"


def begin(target: str) -> str:
    """Before a request: what is drawn into the element of this id is dimmed."""
    return f"(...row) => window.ric.begin('#{target}')(...row)"


def end(target: str) -> str:
    """After it, however it went."""
    return f"() => window.ric.end('#{target}')()"
