"""How the page looks: style sheet, and the little that runs in the browser."""

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

# A slider is let go of by pointer only; here also by key, after arrows or a number typed in.
KEYS = """<script>
document.addEventListener("keyup", event => {
  const slider = event.target.matches?.(".reward input[type=range]") &&
    /^(Arrow|Home|End|Page)/.test(event.key);
  const number = event.target.matches?.(".reward input[type=number]") && event.key === "Enter";
  if (slider || number)
    event.target.dispatchEvent(new PointerEvent("pointerup", {bubbles: true}));
});
</script>"""

# A point of the chart is chosen by click, Enter or space.
CHOOSE = """
const choose = event => {
  const point = event.target.closest("[data-place]");
  if (!point) return;
  event.preventDefault();
  trigger("select", {index: Number(point.dataset.place)});
};
element.addEventListener("click", choose);
element.addEventListener("keydown", event => {
  if (event.key === "Enter" || event.key === " ") choose(event);
});
"""

# Of what is drawn within a second nobody has to see how far it is, and on two cores a loader that
# moves slows the model down by a fifth; `content-visibility` spares even its layout.
STYLE = """
@keyframes late { to { visibility: visible; content-visibility: visible; } }
[data-testid=status-tracker] { visibility: hidden; content-visibility: hidden;
  transition: none !important; }
[data-testid=status-tracker]:not(.hide) { animation: late 0s 1s forwards; }
.gradio-container { max-width: 1240px !important; margin: 0 auto; }
.said { min-height: 1.5em; margin: 0; }
.said.error { color: var(--error-text-color); font-weight: 600; }
.shown .image-container > button, .shown .image-frame { width: 100%; }
.shown img { width: 100% !important; height: auto !important; max-height: 512px !important;
  aspect-ratio: 1; object-fit: contain !important; }
.under { background: var(--block-background-fill) !important; }
.strip { padding: 0 0 4px; }
.reward .min_value, .reward .max_value { display: none; }  /* the strip below says more */
.track { position: relative; height: 8px; margin: 5px 0; border-radius: 4px;
  background: var(--border-color-primary); }
.track i { position: absolute; top: 0; height: 100%; border-radius: 4px; }
.track .most { background: var(--color-accent); opacity: 0.25; }
.track .half { background: var(--color-accent); opacity: 0.5; }
.track .middle { width: 3px; margin-left: -1px; background: var(--body-text-color); }
.track .mark, .key { box-sizing: border-box; width: 14px; height: 14px; border-radius: 50%;
  border: 3px solid var(--body-text-color); }
.track .mark { top: -3px; height: 14px; margin-left: -7px; border-radius: 50%; }
.key { display: inline-block; width: 12px; height: 12px; margin-right: 4px; vertical-align: -1px; }
.scores thead th { white-space: nowrap; font-size: 13px; }
.requested { background: var(--body-background-fill); }
.obtained { background: var(--body-text-color); }
.strip small, #scores small, #moved-scores small { color: var(--body-text-color);
  opacity: 0.8; font-size: 13px; }
.scores { width: 100%; border-collapse: collapse; }
.scores th, .scores td { padding: 4px 8px 4px 0; text-align: left; font-weight: normal; }
.scores tr[data-reward] > * { border-top: 1px solid var(--border-color-primary); }
.chart { width: 100%; max-width: 560px; font-size: 13px; }
.chart text { fill: var(--body-text-color); }
.chart .axis { fill: none; stroke: var(--body-text-color-subdued); }
.chart .point { cursor: pointer; fill: var(--body-background-fill); stroke-width: 2;
  stroke: var(--color-accent); }
.chart .on { fill: var(--color-accent); }
.chart .chosen { stroke: var(--body-text-color); stroke-width: 4; }
.chart .point:focus-visible { outline: 3px solid var(--body-text-color); outline-offset: 2px; }
"""
