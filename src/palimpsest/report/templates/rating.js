"use strict";
(function () {
  const study = document.body.dataset.study;
  const key = "palimpsest-rating-" + study;
  const pairs = Array.from(document.querySelectorAll("section.pair"));
  const rater = document.getElementById("rater");
  const progress = document.getElementById("progress");
  const questions = new Set(Array.from(document.querySelectorAll("input[type=radio]"), (box) => box.dataset.question)).size;
  let kept = true;
  let state = { rater: "", at: 0, choices: {} };
  try {
    const stored = JSON.parse(localStorage.getItem(key));
    if (stored && typeof stored.choices === "object") state = stored;
  } catch (error) {
    kept = false;
  }

  function keep() {
    try {
      localStorage.setItem(key, JSON.stringify(state));
    } catch (error) {
      kept = false;
    }
  }

  function finished() {
    return pairs.filter((pair) => Object.keys(state.choices[pair.dataset.pair] || {}).length === questions).length;
  }

  function show(focus) {
    pairs.forEach((pair, place) => { pair.hidden = place !== state.at; });
    document.getElementById("back").disabled = state.at === 0;
    document.getElementById("next").disabled = state.at === pairs.length - 1;
    progress.textContent = finished() + " of " + pairs.length + " pairs answered"
      + (kept ? "" : "; this browser does not keep choices, so save them before you close the page");
    if (focus) pairs[state.at].focus();
  }

  function move(step) {
    state.at = Math.min(pairs.length - 1, Math.max(0, state.at + step));
    keep();
    show(true);
  }

  function save() {
    const content = { format: 1, study: study, rater: state.rater, choices: state.choices };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
    link.download = "choices-" + (state.rater.replace(/[^A-Za-z0-9]+/g, "-") || "nobody") + ".json";
    document.body.appendChild(link);
    link.click();
    link.remove();
  }

  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.type !== "radio") return;
    const own = state.choices[box.dataset.pair] || (state.choices[box.dataset.pair] = {});
    own[box.dataset.question] = box.value;
    keep();
    show(false);
  });
  rater.addEventListener("input", () => { state.rater = rater.value; keep(); });
  document.getElementById("back").addEventListener("click", () => move(-1));
  document.getElementById("next").addEventListener("click", () => move(1));
  document.getElementById("save").addEventListener("click", save);

  rater.value = state.rater || "";
  state.at = Math.min(pairs.length - 1, Math.max(0, Number(state.at) || 0));
  document.querySelectorAll("input[type=radio]").forEach((box) => {
    box.checked = (state.choices[box.dataset.pair] || {})[box.dataset.question] === box.value;
  });
  show(false);
})();
