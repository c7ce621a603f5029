// One clock drives all clips: each is a sheet of pictures, drawn on a canvas. The opening plays in two parts, first the
// input, then the answers with what happened; everything else plays at once, twice in that time.
"use strict";

const REST = 0.8; // s between the end of the longest clip and the next start
const $ = (id) => document.getElementById(id);
const clips = JSON.parse($("clips").textContent);
const length = Math.max(...clips.map((clip) => clip.frames / clip.fps));
const half = length + REST;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const places = [...document.querySelectorAll("canvas")].map((canvas) => ({
  canvas,
  clip: clips[Number(canvas.dataset.clip)],
  late: "late" in canvas.dataset,
  opening: Boolean(canvas.closest("#top")),
  drawn: -1,
}));
const clock = { start: performance.now(), paused: null }; // paused: s at which all stand still

function time() {
  return clock.paused === null ? ((performance.now() - clock.start) / 1000) % (2 * half) : clock.paused;
}

function set(at, playing) {
  clock.paused = playing ? null : at;
  clock.start = performance.now() - 1000 * at;
  $("play").setAttribute("aria-pressed", String(playing));
  $("saying").textContent = playing ? "pause" : "play";
  $("sign").className = playing ? "pause" : "go";
}

function at(place, now) {
  const own = place.opening ? now - (place.late ? half : 0) : now % half;
  place.canvas.classList.toggle("waiting", own < 0);
  return Math.min(place.clip.frames - 1, Math.floor(Math.max(0, own) * place.clip.fps + 1e-6));
}

function draw() {
  const now = time();
  for (const place of places) {
    const { canvas, clip } = place;
    const frame = at(place, now);
    if (frame === place.drawn || !clip.picture) continue;
    const x = (frame % clip.columns) * clip.width;
    const y = Math.floor(frame / clip.columns) * clip.height;
    canvas.getContext("2d").drawImage(clip.picture, x, y, clip.width, clip.height, 0, 0, clip.width, clip.height);
    canvas.dataset.frame = place.drawn = frame;
  }
  if (clock.paused === null) $("time").value = (1000 * now) / (2 * half);
  requestAnimationFrame(draw);
}

// Small clips by a whole number of screen pixels to a pixel.
function fit() {
  const rooms = places.map(({ canvas }) => canvas.parentElement.clientWidth);
  places.forEach(({ canvas, clip }, i) => {
    const scale = rooms[i] / clip.width;
    const factor = clip.small ? Math.max(1, Math.floor(scale * devicePixelRatio)) / devicePixelRatio : scale;
    canvas.style.width = `${clip.width * factor}px`;
  });
}

$("play").addEventListener("click", () => set(time(), clock.paused !== null));
$("time").addEventListener("input", (event) => set((Number(event.target.value) / 1000) * 2 * half, false));
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("button, input, a, summary, pre, [tabindex]")) return;
  event.preventDefault();
  set(time(), clock.paused !== null);
});
addEventListener("resize", fit);
still.addEventListener("change", () => still.matches && set(half + length / 2, false));
for (const clip of clips) {
  const picture = new Image();
  picture.src = clip.src;
  picture.decode().then(() => (clip.picture = picture));
}
$("player").hidden = false;
set(still.matches ? half + length / 2 : 0, !still.matches);
$("time").value = (1000 * time()) / (2 * half);
fit();
draw();
