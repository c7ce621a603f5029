// The stage of `vans demo`: the futures of a run, and those of before; clips are those of player.js. All runs of this
// browser come by one long question for news (demo.js).
"use strict";

const SHOWN = 12; // runs of the history at first
const runs = new Map(); // id -> what was last told of it, oldest first
const pictures = new Map(); // token -> promise of a picture
const groups = { samples: [], source: [], stage: [], history: [] }; // clips that are drawn
let current = ""; // id of the run on the stage
let laid = ""; // what stands there
let past = ""; // what stands in the history
let all = false; // the whole history

// ---------------------------------------------------------------------------------------------------- clips
// Draw a clip into a place as soon as its pictures are there; `room` and `high`: px that it may take.
async function place(group, clip, words, where, room, high) {
  const own = { ...clip, room, high };
  where.replaceChildren(canvas(own, words));
  groups[group].push(own);
  try {
    if (!pictures.has(own.token)) pictures.set(own.token, loaded(own).then(() => own.picture));
    own.picture = await pictures.get(own.token);
    own.ready = true;
    fit();
  } catch {
    pictures.delete(own.token);
    where.replaceChildren("This clip is not there any more.");
  }
}

function clips() {
  return Object.values(groups).flatMap((group) => group.filter((clip) => clip.ready && clip.canvas.isConnected));
}

function fit() {
  const shown = clips();
  for (const clip of shown) enlarge(clip, clip.room(), clip.high());
  const playing = [...groups.stage, ...groups.source].filter((clip) => clip.ready);
  clock.period = period(playing.length ? playing : shown.length ? shown : [{ frames: 1, fps: 1 }]);
  $("player").hidden = !groups.stage.some((clip) => clip.ready);
}

function playing() {
  $("verb").textContent = clock.paused === null ? "pause" : "play";
  $("sign").className = clock.paused === null ? "pause" : "go";
}

// ------------------------------------------------------------------------------------------------------ stage
function open(id) {
  current = id;
  history.replaceState(null, "", `#${id}`);
  paint();
  if (runs.has(id)) $("stage").scrollIntoView({ block: "start" });
}

function leave() {
  current = laid = "";
  groups.stage = [];
  history.replaceState(null, "", location.pathname);
  $("stage").hidden = true;
  fit();
}

function paint() {
  const run = runs.get(current);
  if (run) {
    const shape = JSON.stringify([run.id, run.state === "running" ? "waiting" : run.state, run.parts]);
    if (shape !== laid) {
      const first = $("stage").hidden || !laid.startsWith(`["${run.id}"`);
      laid = shape;
      lay(run);
      if (first) $("stage").scrollIntoView({ block: "start" });
    }
    progress(run);
  }
  remember();
}

function progress(run) {
  const open_ = run.state === "waiting" || run.state === "running";
  $("doing").hidden = !open_;
  if (!open_) return;
  const doing = { "": "watching", thinking: "thinking", rendering: "rendering" }[run.stage];
  const what = run.state === "running" ? doing : run.ahead ? `waiting, ${run.ahead} before this` : "waiting";
  const left = run.left === null ? "" : run.left < 1 ? ", almost done" : `, about ${lasting(run.left)} left`;
  $("saying").textContent = what + left;
  const share = run.stage === "thinking" ? 0.3 * run.share : run.stage === "rendering" ? 0.3 + 0.7 * run.share : 0;
  $("done").style.width = `${100 * share}%`;
  $("bar").setAttribute("aria-valuenow", String(Math.round(100 * share)));
}

function lasting(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function lay(run) {
  groups.stage = [];
  $("stage").hidden = false;
  $("futures").style.setProperty("--many", run.parts.length + 1);
  $("futures").replaceChildren(given(run), ...run.parts.map((part, k) => future(run, part, k)));
  const seconds = run.seconds === undefined ? "" : `, made in ${run.seconds.toFixed(1)} s`;
  $("made").textContent = `${run.arm ? `models of the arm ${run.arm}, ` : ""}seed ${run.seed}, ${run.steps} steps, guidance ${run.guidance}${seconds}`;
  fit();
}

function framed(clip, words, frame) {
  place("stage", clip, words, frame, () => frame.clientWidth - (innerWidth > 640 ? 20 : 8), () => Math.max(180, innerHeight * 0.4));
}

function given(run) {
  const frame = make("div", "frame");
  const about = run.input.frames > 1 ? `${run.input.frames} pictures, evenly spread: what the models watch.` : "A picture: the models watch it at rest.";
  const one = make("article", "card future given", make("p", "ask", "What you showed"), frame, make("p", "why", about));
  framed(run.input, "what you showed", frame);
  return one;
}

function future(run, part, k) {
  const frame = make("div", "frame");
  const words = make("textarea");
  const id = `caption-${k}`;
  Object.assign(words, { value: part.caption || "", rows: 1, maxLength: told.most.caption, id, disabled: run.state !== "done" });
  const name = make("label", "", part.own === null ? "Caption" : "Your caption");
  name.htmlFor = id;
  const again = make("button", "again", "Render again");
  const undo = make("button", "plain", "Undo");
  const tip = make("span", "tip", "Edit it to see another future.");
  again.type = undo.type = "button";
  const acts = make("div", "acts", again, undo, tip);
  const same = () => {
    const now = words.value.trim();
    again.hidden = !now || now === part.caption;
    undo.hidden = now === part.caption;
    tip.hidden = !undo.hidden || run.state !== "done";
  };
  same();
  words.addEventListener("input", same);
  words.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) event.preventDefault(), again.hidden || again.click();
  });
  undo.addEventListener("click", () => {
    words.value = part.caption;
    same();
  });
  again.addEventListener("click", async () => {
    again.disabled = true;
    try {
      notice("");
      open((await ask("render", { run: run.id, number: k, caption: words.value })).run);
    } catch (problem) {
      again.disabled = false;
      trouble(problem);
    }
  });
  const one = make("article", `card future k${k}`, make("p", "ask", part.question), frame);
  if (part.caption !== null) one.append(make("div", "said", name, words, acts));
  if (part.own !== null) one.append(reason("The model's own caption", part.own));
  if (part.reasoning) one.append(reason("Reasoning", part.reasoning));
  if (part.forced) one.append(make("p", "tip", "It could not keep to its form by itself and was held to it, word by word."));
  if (part.clip) {
    framed(part.clip, `an answer to: ${part.question}`, frame);
    const load = make("a", "", "Save the video");
    load.href = `/film/${part.clip.token}.mp4`;
    load.download = "answer.mp4";
    if (run.state === "done") acts.append(load);
  } else if (run.state === "stopped" || run.state === "failed") {
    frame.className = "frame stopped";
    frame.append(run.state === "stopped" ? "Cancelled." : run.error);
  } else {
    frame.className = "frame waiting";
  }
  return one;
}

function reason(name, text) {
  return make("div", "why", make("span", "", name), make("p", "", text));
}

// ---------------------------------------------------------------------------------------------------- history
function remember() {
  const known = [...runs.values()].reverse();
  const shown = all ? known : known.slice(0, SHOWN);
  const shape = JSON.stringify([current, shown.map((run) => [run.id, run.state]), known.length]);
  if (shape === past) return;
  past = shape;
  groups.history = [];
  $("earlier").hidden = !known.length;
  $("history").replaceChildren(...shown.map(card));
  $("more").hidden = shown.length === known.length;
  $("more").textContent = `Show all ${known.length}`;
}

function card(run) {
  const minis = make("span", "minis");
  const list = make("ol");
  run.parts.forEach((part, k) => {
    list.append(make("li", `k${k}`, make("i"), make("span", "", part.question)));
    if (!part.clip) return;
    const spot = make("span");
    minis.append(spot);
    place("history", part.clip, part.caption, spot, () => 76, () => 64);
  });
  const when = new Date(run.made).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
  const state = { waiting: "waiting", running: "under way", stopped: "cancelled", failed: "failed" }[run.state];
  if (!minis.childElementCount) minis.append(make("small", "", state || ""));
  const edited = run.parts.some((part) => part.own !== null) ? " · edited" : "";
  const one = make("button", "open", minis, list, make("small", "", `${when}${edited}`));
  one.type = "button";
  one.setAttribute("aria-current", String(run.id === current));
  one.addEventListener("click", () => {
    recall(run);
    open(run.id);
  });
  const item = make("div", "past", one);
  if (state !== "waiting" && state !== "under way") {
    const drop = make("button", "drop", "×");
    drop.type = "button";
    drop.setAttribute("aria-label", "forget this one");
    drop.addEventListener("click", () => ask("forget", { run: run.id }).catch(trouble));
    item.append(drop);
  }
  return item;
}

// Put what a run was about back on the desk.
function recall(run) {
  fill(run.parts.map((part) => part.question));
  set(run);
  if (run.state === "done") show({ source: run.id, clip: run.input, name: run.name });
}
