// The desk of `vans demo`: what is shown and asked, and the server's news. What comes of it is drawn by futures.js.
"use strict";

const RETRY = 1500; // ms
const FUTURES = 3;
const still = matchMedia("(prefers-reduced-motion: reduce)");

let told = null; // of /start
let source = null; // {source, clip, name}
let looking = null; // the promise of what was brought last, until it or something else is shown

// ------------------------------------------------------------------------------------------------- the server
async function ask(what, given) {
  const sent = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(given) };
  return answered(await fetch(`/${what}`, sent));
}

async function answered(found) {
  const answer = await found.json();
  if (!found.ok) throw new Error(answer.error);
  return answer;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function trouble(problem) {
  notice(problem instanceof TypeError ? "The server does not answer. Is `vans demo` still running?" : problem.message);
}

async function follow_news() {
  let lost = false;
  for (;;) {
    try {
      const news = await ask("news", { version: lost ? 0 : told.version });
      if (lost) runs.clear(), notice("");
      lost = false;
      take(news);
      paint();
    } catch {
      lost = true;
      notice("The server does not answer. This page goes on as soon as it does.");
      await new Promise((then) => setTimeout(then, RETRY));
    }
  }
}

function take(news) {
  told.version = news.version;
  for (const run of news.runs) {
    const before = runs.get(run.id);
    runs.set(run.id, run);
    if (run.id === current && run.state === "done" && before && before.state !== "done") seek(0);
  }
  for (const id of news.gone) {
    runs.delete(id);
    if (id === current) leave();
  }
}

// ---------------------------------------------------------------------------------------------- what is shown
function show(one) {
  source = one;
  looking = null;
  $("drop").classList.remove("busy");
  groups.source = [];
  place("source", one.clip, "what you ask about", $("seen"), () => $("drop").clientWidth - 40, () => 200);
  $("about").textContent = one.name || "";
  for (const button of $("strip").children) button.setAttribute("aria-pressed", String(button.value === one.source));
}

async function bring(file) {
  if (!file) return;
  if (file.size > told.most.bytes) {
    return notice(`${file.name} is too large: ${Math.floor(told.most.bytes / 1e6)} MB can be brought.`);
  }
  notice("");
  $("drop").classList.add("busy");
  $("about").textContent = `looking at ${file.name} …`;
  const headers = { "Content-Type": "application/octet-stream", "X-Name": encodeURIComponent(file.name) };
  const mine = (looking = fetch("/bring", { method: "POST", headers, body: file }).then(answered));
  $("file").value = "";
  try {
    const one = await mine;
    if (looking !== mine) return; // something else was chosen since
    show(one);
    if (!questions().length) $("questions").querySelector("input").focus({ preventScroll: true });
  } catch (problem) {
    if (looking !== mine) return;
    looking = null;
    $("drop").classList.remove("busy");
    $("about").textContent = source ? source.name || "" : "";
    trouble(problem);
  }
}

// -------------------------------------------------------------------------------------------------- questions
function fields() {
  return [...$("questions").querySelectorAll("input")];
}

function questions() {
  return fields().map((field) => field.value.trim()).filter(Boolean);
}

function fill(texts) {
  const places = ["What happens next?", "another question (if you like)", "and a third"];
  $("questions").replaceChildren(
    ...places.slice(0, FUTURES).map((hint, k) => {
      const field = make("input");
      Object.assign(field, { value: texts[k] || "", placeholder: hint, maxLength: told.most.question, autocomplete: "off" });
      field.setAttribute("aria-label", `question ${k + 1}`);
      const clear = make("button", "", "×");
      clear.type = "button";
      clear.setAttribute("aria-label", `clear question ${k + 1}`);
      clear.addEventListener("click", () => {
        field.value = "";
        field.focus();
      });
      return make("div", `question k${k}`, make("i"), field, clear);
    }),
  );
}

// A question of the list: into the field that was looked at last, or the first empty one.
let last = null;
function put(text) {
  const empty = fields().find((field) => !field.value.trim());
  const field = empty || (last && last.isConnected ? last : fields()[0]);
  field.value = text;
}

function settings() {
  return { seed: $("seed").valueAsNumber, steps: $("steps").valueAsNumber, guidance: $("guidance").valueAsNumber };
}

function set(values) {
  for (const name of ["seed", "steps", "guidance"]) $(name).value = values[name];
  describe();
}

function describe() {
  const own = settings();
  $("set").textContent = `seed ${own.seed}, ${own.steps} steps, guidance ${own.guidance}`;
}

async function go() {
  if (!source && !looking) return notice("First show a video or a picture, or take one of the samples.");
  if (!questions().length) return notice("Ask at least one question.");
  notice("");
  $("go").disabled = true;
  try {
    while (looking) await looking; // what was brought is asked about, not what was shown before
    open((await ask("ask", { source: source.source, questions: questions(), ...settings() })).run);
  } catch (problem) {
    trouble(problem);
  } finally {
    $("go").disabled = false;
  }
}

// ----------------------------------------------------------------------------------------------------- inputs
function toggle() {
  hold(clock.paused === null);
  playing();
}

function listen() {
  $("desk").addEventListener("submit", (event) => {
    event.preventDefault();
    go();
  });
  $("drop").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => bring($("file").files[0]));
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    addEventListener(kind, (event) => {
      event.preventDefault();
      const leaves = kind === "drop" || (kind === "dragleave" && !event.relatedTarget);
      $("dropping").hidden = leaves || !(event.dataTransfer && [...event.dataTransfer.types].includes("Files"));
      if (kind === "drop" && event.dataTransfer) bring(event.dataTransfer.files[0]);
    });
  }
  $("questions").addEventListener("focusin", (event) => {
    if (event.target.tagName === "INPUT") last = event.target;
  });
  $("settings").addEventListener("input", describe);
  $("settings").addEventListener("invalid", () => ($("settings").open = true), true);
  $("stop").addEventListener("click", () => ask("stop", { run: current }).catch(trouble));
  $("more").addEventListener("click", () => {
    all = true;
    remember();
  });
  $("play").addEventListener("click", toggle);
  $("time").addEventListener("input", () => {
    hold(true);
    playing();
    seek((Number($("time").value) / 1000) * (clock.period - REST));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== " " || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (event.target.closest("button, input, textarea, a, summary")) return;
    event.preventDefault();
    toggle();
  });
  addEventListener("resize", fit);
}

async function begin() {
  told = await ask("start", {});
  take(told);
  fill([]);
  set(told.defaults);
  for (const name of ["seed", "steps", "guidance"]) $(name).max = told.most[name];
  $("samples").hidden = !told.samples.length;
  $("strip").append(
    ...told.samples.map((one, n) => {
      const button = make("button");
      Object.assign(button, { type: "button", value: one.source });
      button.setAttribute("aria-label", `sample ${n + 1}: ${one.questions[0]}`);
      place("samples", one.clip, "", button, () => 120, () => 120);
      button.addEventListener("click", () => {
        show({ ...one, name: "a held-out sample" });
        fill(one.questions);
      });
      return button;
    }),
  );
  $("common").hidden = !told.common.length;
  const small = told.scale === "tiny" ? "These are small models, which know a toy world alone. " : "";
  $("words").textContent = `${small}Questions that they were trained to answer:`;
  $("chips").append(
    ...told.common.map((text) => {
      const chip = make("button", "", text);
      chip.type = "button";
      chip.addEventListener("click", () => put(text));
      return chip;
    }),
  );
  listen();
  if (still.matches) hold(true);
  playing();
  const under = [...runs.values()].filter((run) => run.state === "waiting" || run.state === "running");
  const known = runs.get(location.hash.slice(1)) || under.at(-1);
  if (known) {
    current = known.id;
    recall(known);
  } else if (told.samples.length) {
    $("strip").firstElementChild.click();
  }
  paint();
  fit();
  follow(clips, (now) => {
    if (clock.paused === null) $("time").value = String(Math.min(1000, (1000 * now) / (clock.period - REST)));
  });
  follow_news();
}

begin().catch(trouble);
