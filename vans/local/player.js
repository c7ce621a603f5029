// Clips of a page. Each is a sheet of pictures, drawn on a canvas; one clock drives all of them, so that they start, pause
// and start again in the same frame, whatever codecs the browser has. Words from elsewhere are only ever set as text.
"use strict";

const REST = 0.6; // s between the end of the longest clip and the next start
const SMALL = 64; // px: clips up to this size are enlarged by a whole factor, without smoothing
const $ = (id) => document.getElementById(id);
const clock = { start: 0, paused: null, period: 1 };

function make(tag, name, ...inside) {
  const one = document.createElement(tag);
  if (name) one.className = name;
  one.append(...inside);
  return one;
}

// Load a clip's sheet: {token, frames, columns, height, width, fps}.
function loaded(clip) {
  clip.picture = new Image();
  clip.picture.src = `/clip/${clip.token}`;
  return clip.picture.decode();
}

function canvas(clip, words) {
  clip.canvas = make("canvas");
  clip.canvas.width = clip.width;
  clip.canvas.height = clip.height;
  clip.canvas.setAttribute("role", "img");
  clip.canvas.setAttribute("aria-label", words);
  clip.small = Math.max(clip.width, clip.height) <= SMALL;
  if (clip.small) clip.canvas.className = "small";
  clip.drawn = null;
  return clip.canvas;
}

// As large as fits into room x high; small ones by a whole number of screen pixels to a pixel.
function enlarge(clip, room, high) {
  const scale = Math.min(room / clip.width, high / clip.height);
  const factor = clip.small ? Math.max(1, Math.floor(scale * devicePixelRatio)) / devicePixelRatio : scale;
  clip.canvas.style.width = `${clip.width * factor}px`;
}

function period(clips) {
  return Math.max(...clips.map((clip) => clip.frames / clip.fps)) + REST;
}

function time() {
  return (Math.max(0, (clock.paused === null ? performance.now() : clock.paused) - clock.start) / 1000) % clock.period;
}

function seek(seconds) {
  clock.start = (clock.paused === null ? performance.now() : clock.paused) - 1000 * seconds;
}

function hold(paused) {
  const now = performance.now();
  if (paused === (clock.paused !== null)) return;
  if (!paused) clock.start += now - clock.paused;
  clock.paused = paused ? now : null;
}

// Draw `clips()` from the clock for ever; `moved(time)` where one of them shows another picture.
function follow(clips, moved) {
  const now = time();
  let changed = false;
  for (const clip of clips()) {
    const frame = Math.min(clip.frames - 1, Math.floor(now * clip.fps + 1e-6));
    if (frame === clip.drawn) continue;
    const x = (frame % clip.columns) * clip.width;
    const y = Math.floor(frame / clip.columns) * clip.height;
    clip.canvas.getContext("2d").drawImage(clip.picture, x, y, clip.width, clip.height, 0, 0, clip.width, clip.height);
    clip.canvas.dataset.frame = clip.drawn = frame;
    changed = true;
  }
  if (changed) moved(now);
  requestAnimationFrame(() => follow(clips, moved));
}
