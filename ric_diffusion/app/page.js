// What runs in the browser beside Gradio: the picture that stays while the next is drawn, the
// comparison with the one before, the gallery, and what keyboards need.
(() => {
  const find = selector => document.querySelector(selector);
  const waiting = new Map();  // by what they are drawn into: how many requests are not answered
  let current = null;  // the sample that is shown
  let before = null;  // the one that was shown before it

  function dim(target, change) {
    const count = Math.max(0, (waiting.get(target) ?? 0) + change);
    waiting.set(target, count);
    const element = find(target);
    element?.classList.toggle("drawing", count > 0);
    element?.setAttribute("aria-busy", String(count > 0));
    const image = find("#picture .now");  // of a request that was stopped there may be a preview
    if (!count && target === "#picture" && current?.src && image.dataset.wanted !== current.src)
      want(image, current.src);
  }

  // Put another picture into an <img> when it can be shown at once, so that nothing flashes.
  async function put(image, src) {
    const next = new Image();
    next.src = src;
    await next.decode().catch(() => {});
    if (image.dataset.wanted === src) {
      image.src = src;
      image.hidden = false;
    }
  }

  function want(image, src) {
    image.dataset.wanted = src;
    return put(image, src);
  }

  function wipe(percent) {
    find("#picture .before").style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
  }

  function hold(on) {
    if (!before?.src) return;
    const button = find("#hold");
    button.setAttribute("aria-pressed", String(on));
    wipe(on ? 100 : Number(find("#compare").value));
  }

  function show(sample) {
    if (sample.src) {
      const image = find("#picture .now");
      if (current && current.src !== sample.src) {
        before = current;
        find("#compare").disabled = find("#hold").disabled = false;
        want(find("#picture .before"), before.src);
      }
      image.alt = sample.alt;
      want(image, sample.src);
      const link = find("#download");
      link.href = sample.src;
      link.download = sample.name;
      link.removeAttribute("aria-disabled");
    }
    current = sample;
    mark();
    for (const strip of document.querySelectorAll(".strip[data-reward]")) {
      const band = strip.querySelector(".expected");
      const place = sample.expected[strip.dataset.reward];
      band.hidden = !place;
      strip.querySelector(".for-prompt").hidden = !place;
      if (place) {
        band.style.left = `${place[0]}%`;
        band.style.width = `${place[1] - place[0]}%`;
      }
    }
    requestAnimationFrame(() => document.querySelectorAll(".reward").forEach(tell));
  }

  function mark() {
    for (const button of document.querySelectorAll("#gallery button"))
      button.setAttribute("aria-current", String(Number(button.dataset.id) === current?.id));
  }

  function hang(sample) {
    const list = find("#gallery .samples");
    if (list.querySelector(`[data-id="${sample.id}"]`)) return;
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.id = sample.id;
    button.title = button.ariaLabel = sample.alt;
    if (sample.src) {
      const image = document.createElement("img");
      image.alt = "";
      image.src = sample.src;
      button.append(image);
    } else button.textContent = sample.alt;
    list.prepend(button);
    while (list.children.length > sample.most) list.lastChild.remove();
    find("#gallery").classList.add("some");
  }

  // What the server says of a request: how it looks so far, a sample, or one of before.
  function feed(said) {
    if (!said) return;
    if (said.kind === "preview") want(find("#picture .now"), said.src);
    if (said.kind === "sample") hang(said);
    if (said.kind !== "preview") show(said);
  }

  // Beside a slider in z: what that is in the scorer's unit.
  function tell(slider) {
    const now = find(`.strip[data-slider="${slider.id}"] .value`);
    const number = slider.querySelector("input[type=number]");
    if (!now || !number) return;
    const z = Number(number.value), { mean, std, unit } = now.dataset;
    const score = Number((z * std + Number(mean)).toPrecision(3));
    now.textContent = `${score} ${unit} (${z < 0 ? "−" : "+"}${Math.abs(z).toFixed(2)} z)`;
  }

  function say(text) {
    const word = find("#word");
    if (word && word.textContent !== text) word.textContent = text;
  }

  // A number that cannot be asked for is put back to the nearest that can, and a word says so.
  function putBack(input) {
    const given = input.dataset.given;
    const low = Number(input.min), high = Number(input.max);
    let value = given === "" ? NaN : Number(given);
    if (Number.isNaN(value)) value = Number(input.dataset.last ?? input.min);
    if (Number(input.step) === 1) value = Math.round(value);
    if (input.min !== "") value = Math.max(value, low);
    if (input.max !== "") value = Math.min(value, high);
    input.dataset.last = value;
    delete input.dataset.given;
    if (given !== "" && Number(given) === value) return;
    Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set.call(input, value);
    input.dispatchEvent(new Event("input", { bubbles: true }));
    const name = (input.ariaLabel ?? "").replace(/^number input for /, "");
    say(`${name}: ${low} to ${high}, so ${given || "nothing"} became ${value}.`);
  }

  const isNumber = element => element.matches?.("input[type=number]");

  // Before Gradio hears of it; a change alone is not told where a script set the value meanwhile.
  for (const kind of ["change", "focusout", "keydown"])
    document.addEventListener(kind, event => {
      const done = kind !== "keydown" || event.key === "Enter";
      if (done && isNumber(event.target) && "given" in event.target.dataset) putBack(event.target);
    }, true);

  document.addEventListener("input", event => {
    if (!event.isTrusted) return;
    say("");
    // Weights are put back while one types, so what was typed is noted before.
    if (isNumber(event.target)) event.target.dataset.given = event.target.value;
  }, true);

  document.addEventListener("input", event => {
    const slider = event.target.closest?.(".reward");
    if (slider) tell(slider);
    if (event.target.id === "compare") wipe(event.target.value);
  });

  // A slider is let go of by pointer only; here also by key, after arrows or a number typed in.
  document.addEventListener("keyup", event => {
    const slider = event.target.matches?.(".reward input[type=range]") &&
      /^(Arrow|Home|End|Page)/.test(event.key);
    const number = event.target.matches?.(".reward input[type=number]") && event.key === "Enter";
    if (slider || number)
      event.target.dispatchEvent(new PointerEvent("pointerup", { bubbles: true }));
    if (event.key === "b" || event.key === "B") hold(false);
  });

  document.addEventListener("keydown", event => {
    const combobox = event.target.closest?.("[role=combobox]");
    // A list stays open when one tabs on, over what comes next.
    if (event.key === "Tab" && combobox)
      combobox.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
    const typing = event.target.matches?.(
      "textarea, input:not([type=range], [type=checkbox], [type=radio])");
    if ((event.key === "b" || event.key === "B") && !typing && !event.ctrlKey && !event.metaKey)
      hold(true);
  });

  for (const [kind, on] of [["pointerdown", true], ["pointerup", false], ["pointercancel", false]])
    document.addEventListener(kind, event => {
      if (on ? event.target.id === "hold" : find("#hold")?.ariaPressed === "true") hold(on);
    });
  for (const [kind, on] of [["keydown", true], ["keyup", false]])
    document.addEventListener(kind, event => {
      if (event.target.id === "hold" && (event.key === " " || event.key === "Enter")) {
        event.preventDefault();
        hold(on);
      }
    });

  document.addEventListener("click", event => {
    if (event.target.closest?.("#full")) find("#picture .frame").requestFullscreen?.();
    if (event.target.closest?.("#download[aria-disabled]")) event.preventDefault();
  });

  window.ric = {
    feed,
    begin: target => (...row) => { dim(target, 1); return row; },
    end: target => () => dim(target, -1),
    copy: async text => { try { await navigator.clipboard.writeText(text); } catch { /* shown */ } },
  };
})();
