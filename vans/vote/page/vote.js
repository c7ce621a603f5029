// The page of `vans vote`; its clips are those of player.js.
"use strict";

const SETTLE = 350; // ms in which a new screen takes no vote: a key pressed twice is no second vote
const RETRY = 1500; // ms
const TASKS = { choice: "Which video shows best what happens next?", marks: "1 is bad, 5 is very good." };
const HELP = {
  semantic: "Does it show what the question asks for?",
  visual: "Is it clear and steady, with the same things in it?",
  overall: "How good is it as an answer?",
};

let state = null; // {rater, next, of, plan, asked}
let screen = null; // {number, sides, clips, marks, at, shown, hidden}
let ahead = null; // {number, promise}
let busy = false;

// ------------------------------------------------------------------------------------------------- the server
async function ask(what, given) {
  const sent = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(given) };
  for (;;) {
    let found = null;
    try {
      found = await fetch(`/${what}`, sent);
    } catch {
      notice("The server does not answer. What you chose is kept here and sent as soon as it does.");
    }
    if (found) {
      const told = await found.json();
      if (found.ok) return notice(""), told;
      if (found.status !== 500 || what !== "vote") throw new Error(told.error);
      notice(told.error); // kept here and tried again
    }
    await new Promise((then) => setTimeout(then, RETRY));
  }
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

function show(id) {
  for (const one of ["welcome", "trial", "end"]) $(one).hidden = one !== id;
}

// --------------------------------------------------------------------------------------------------- screens
async function begin(name) {
  try {
    state = await ask("start", { rater: name });
  } catch (problem) {
    sessionStorage.removeItem("rater");
    welcome();
    return notice(problem.message);
  }
  sessionStorage.setItem("rater", state.rater);
  $("rater").textContent = state.rater;
  await go(state.next);
}

function welcome() {
  state = screen = ahead = null;
  show("welcome");
  $("done").style.width = 0;
  $("name").value = "";
  $("name").focus();
}

function load(number) {
  if (ahead && ahead.number === number) return ahead.promise;
  const promise = ask("trial", { rater: state.rater, plan: state.plan, number }).then(async (trial) => {
    const clips = [trial.input, trial.truth, ...trial.sides].filter(Boolean);
    await Promise.all(clips.map(loaded));
    return { ...trial, clips };
  });
  promise.catch(() => {});
  return promise;
}

async function go(number) {
  busy = true;
  try {
    if (number > state.of) return finish();
    const trial = await load(number);
    ahead = null;
    lay(trial);
    if (number < state.of && number <= state.next) ahead = { number: number + 1, promise: load(number + 1) };
  } catch (problem) {
    ahead = null;
    notice(problem.message || "A video did not come. Load the page again.");
  } finally {
    busy = false;
  }
}

function finish() {
  screen = null;
  show("end");
  $("done").style.width = "100%";
  $("all").textContent = state.of === 1 ? "One question answered." : `All ${state.of} questions answered.`;
  $("another").focus();
}

function lay(trial) {
  screen = { ...trial, marks: trial.sides.map(() => state.asked.map(() => null)), at: 0, shown: performance.now(), away: 0 };
  if (state.asked.length && trial.before) screen.marks = trial.before;
  $("done").style.width = `${(100 * (state.next - 1)) / state.of}%`;
  $("count").textContent = `${trial.number} of ${state.of}`;
  $("question").textContent = trial.question;
  $("task").textContent = state.asked.length ? TASKS.marks : TASKS.choice;
  $("told").textContent = trial.truth ? trial.truth.caption : "";
  const given = [trial.input && figure(trial.input, "what is asked about"), trial.truth && figure(trial.truth, "what happened")];
  $("given").replaceChildren(...given.filter(Boolean));
  $("context").className = trial.truth ? "two" : trial.input && trial.input.width > 1.4 * trial.input.height ? "wide" : "";
  const wide = trial.sides.some((clip) => clip.width > 1.4 * clip.height);
  $("sides").style.setProperty("--least", wide ? "300px" : state.asked.length ? "280px" : "150px");
  $("sides").replaceChildren(...trial.sides.map(state.asked.length ? marked : choosable));
  $("tie").hidden = Boolean(state.asked.length);
  $("tie").className = trial.before === 0 ? "tie before" : "tie";
  $("send").hidden = !state.asked.length;
  $("back").disabled = trial.number === 1;
  $("forward").hidden = trial.number >= state.next;
  show("trial");
  fit();
  paint();
  clock.period = period(trial.clips);
  replay();
}

function figure(clip, words) {
  return make("figure", "", make("div", "frame", canvas(clip, words)), make("figcaption", "", words));
}

function inside(clip, i) {
  const name = make("div", "name", make("b", "", String(i + 1)));
  const parts = [make("div", "frame", canvas(clip, `video ${i + 1}`)), name];
  if (clip.caption) parts.push(make("div", "caption", clip.caption));
  return parts;
}

function choosable(clip, i) {
  const one = make("button", screen.before === i + 1 ? "side before" : "side", ...inside(clip, i));
  one.setAttribute("aria-label", `video ${i + 1} is best`);
  one.addEventListener("click", () => choose(i + 1));
  return one;
}

// ---------------------------------------------------------------------------------------------- marks, 1 to 5
function marked(clip, i) {
  const rows = state.asked.map((word, j) => {
    const buttons = [1, 2, 3, 4, 5].map((mark) => {
      const one = make("button", "", String(mark));
      one.setAttribute("aria-label", `video ${i + 1}, ${word}: ${mark}`);
      one.addEventListener("click", () => {
        screen.at = i * state.asked.length + j;
        set(mark);
        one.blur();
      });
      return one;
    });
    const row = make("div", "mark", make("span", "", word), make("div", "", ...buttons));
    row.title = HELP[word] || "";
    return row;
  });
  return make("div", "side", ...inside(clip, i), make("div", "marks", ...rows));
}

function set(mark) {
  const many = state.asked.length;
  screen.marks[Math.floor(screen.at / many)][screen.at % many] = mark;
  if (screen.at < screen.marks.length * many - 1) screen.at += 1;
  paint();
  document.querySelectorAll(".mark")[screen.at].scrollIntoView({ block: "nearest" });
}

function paint() {
  if (!state.asked.length) return;
  const flat = screen.marks.flat();
  document.querySelectorAll(".mark").forEach((row, i) => {
    row.classList.toggle("at", i === screen.at);
    row.querySelectorAll("button").forEach((one, j) => one.setAttribute("aria-pressed", String(flat[i] === j + 1)));
  });
  $("task").textContent = `${HELP[state.asked[screen.at % state.asked.length]] || ""} ${TASKS.marks}`;
  $("send").disabled = flat.includes(null);
}

// ------------------------------------------------------------------------------------------------------ votes
async function choose(choice) {
  if (busy || !screen || performance.now() - screen.shown < SETTLE) return;
  busy = true;
  const seconds = (performance.now() - screen.shown - screen.away) / 1000;
  if (!state.asked.length) (choice ? $("sides").children[choice - 1] : $("tie")).classList.add("chosen");
  try {
    state = await ask("vote", { rater: state.rater, plan: state.plan, number: screen.number, choice, seconds });
  } catch (problem) {
    busy = false;
    return notice(problem.message);
  }
  await go(state.next);
}

function send() {
  if (!screen.marks.flat().includes(null)) choose(screen.marks);
}

function back() {
  if (busy || !state) return;
  if (screen && state.asked.length && screen.at > 0) {
    screen.at -= 1;
    return paint();
  }
  const number = screen ? screen.number : state.of + 1;
  if (number > 1) go(number - 1);
}

function forward() {
  if (!busy && screen && screen.number < state.next) go(screen.number + 1);
}

// ------------------------------------------------------------------------------------------------------ clock
function replay() {
  seek(0);
  pausing();
}

function pause() {
  hold(clock.paused === null);
  pausing();
}

function pausing() {
  $("pausing").textContent = clock.paused === null ? "pause" : "play";
}

function moved(now) {
  $("now").style.width = `${Math.min(100, (100 * now) / (clock.period - REST))}%`;
}

// All candidates equally large.
function fit() {
  if (!screen) return;
  const phone = innerWidth <= 640;
  for (const clip of screen.clips) {
    const side = screen.sides.includes(clip);
    const room = side ? clip.canvas.parentElement.clientWidth : phone ? 110 : 180;
    const high = side ? Math.max(160, innerHeight * (state.asked.length ? 0.28 : 0.47)) : phone ? 110 : 180;
    enlarge(clip, room, high);
  }
}

// ----------------------------------------------------------------------------------------------------- inputs
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target === $("name")) return;
  const key = event.key.toLowerCase();
  if (key === "backspace") {
    if (!event.repeat) back();
    return event.preventDefault();
  }
  if (!screen || $("trial").hidden || event.repeat) return;
  const digit = /^[1-9]$/.test(key) ? Number(key) : 0;
  const likert = state.asked.length > 0;
  if (key === " ") pause();
  else if (key === "r") replay();
  else if (key === "arrowright") forward();
  else if (key === "arrowleft") back();
  else if (key === "t" && !likert) choose(0);
  else if (digit && likert && digit <= 5) set(digit);
  else if (digit && !likert && digit <= screen.sides.length) choose(digit);
  else if (key === "enter" && likert && event.target.tagName !== "BUTTON") send();
  else return;
  event.preventDefault();
});
let left = 0;
document.addEventListener("visibilitychange", () => {
  if (document.hidden) left = performance.now();
  else if (screen) screen.away += performance.now() - Math.max(left, screen.shown);
});
addEventListener("resize", fit);
$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  notice("");
  if ($("name").value.trim()) begin($("name").value);
});
for (const id of ["leave", "another"]) {
  $(id).addEventListener("click", () => {
    sessionStorage.removeItem("rater");
    welcome();
  });
}
for (const [id, does] of Object.entries({ back, last: back, pause, again: replay, forward, send, tie: () => choose(0) })) {
  $(id).addEventListener("click", (event) => {
    does();
    event.currentTarget.blur(); // the space bar is for the clips
  });
}
follow(() => (!screen || $("trial").hidden ? [] : screen.clips), moved);
const known = sessionStorage.getItem("rater");
if (known) begin(known);
else welcome();
