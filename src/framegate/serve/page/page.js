// The live page: a file or the webcam as JPEG frames over one WebSocket, and the answers as they come.
// A frame carries the tick that it stands for, of the file's own time or, from the webcam, of this machine's clock: by
// their times of arrival the server could say which frame a tick sees only when the next one is there, a tick later.

const MINUTE_MS = 60_000, IN_FLIGHT = 2, LOST_MS = 2000, STILL_MS = 500, BUFFER_BYTES = 1 << 20, ALL_LABELS = 12, FEW_LABELS = 5, LANE_PX = 22;
const KEY = "framegate.key", KEYS_OFF = "framegate.keys-off";
const $ = (id) => document.getElementById(id);
const video = $("video"), image = $("image"), screenBox = $("screen");
const name = new URLSearchParams(location.search).get("model") || document.querySelector('meta[name="framegate-model"]').content;
const percent = (p) => (p > 0.995 && p < 1 ? ">99 %" : `${Math.round(100 * p)} %`);
const clockTime = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
const colour = (label) => `var(--l${Math.max(0, stream.labels.indexOf(label)) % ALL_LABELS})`;
const make = (tag, text = "", className = "") => Object.assign(document.createElement(tag), { textContent: text, className });
const count = { sent: 0, answers: 0, dropped: 0, skipped: 0, errors: 0 };

function show(id, text) { if ($(id).textContent !== text) $(id).textContent = text; }
function figure(id, ms) { $(id).replaceChildren(ms >= 100 ? ms.toFixed(0) : ms.toFixed(1), make("i", "ms")); }
function add(counter, n = 1) { count[counter] += n; show(counter, count[counter].toLocaleString("en")); }

function notice(text, action = "", run = null) {
  $("notice").hidden = !text;
  show("notice-text", text);
  $("notice-do").hidden = !action;
  show("notice-do", action);
  $("notice-do").onclick = run;
}

function happened(text, kind = "") {
  const first = $("events").firstElementChild;
  if (first.dataset.text === text) {  // the tenth round of a loop is not ten lines
    first.dataset.times = Number(first.dataset.times) + 1;
    first.lastChild.textContent = `${text} (${first.dataset.times} times)`;
    return;
  }
  if (first.classList.contains("soft")) first.remove();
  const line = make("li");
  line.dataset.text = text;
  line.dataset.times = 1;
  line.append(make("time", new Date().toLocaleTimeString("en-GB")), make("span", text, kind));
  $("events").prepend(line);
  while ($("events").children.length > 50) $("events").lastElementChild.remove();
}

// --- the connection -------------------------------------------------------------------------------------------

const AGAIN = {  // close codes after which another try makes sense: the words, and the shortest wait in seconds
  1012: ["The server is shutting down or starting again.", 0.5],
  1013: ["The server has as many streams as it can hold.", 5],
};
const FINAL = {
  1008: "The server refused what this page sent",
  1009: "A frame was too big for the server",
  4404: `The server has no model “${name}”`,
};

const stream = {
  socket: null, state: "off", labels: [], fps: 10, side: 240, version: "", tries: 0, timer: 0, number: 0, settled: -1, dropped: 0,
  asked: false,  // by this page for the end; a server that stops says the same event unasked
  waiting: new Map(),  // frame number -> when it was sent, ms

  get live() { return this.state === "live"; },

  turn(state, words) {
    this.state = state;
    $("state").dataset.state = state;
    show("state", words);
  },

  open() {
    clearTimeout(this.timer);
    if (this.socket) return;
    if (!source.wanted()) return this.state === "waiting" && this.rest();
    const url = new URL(`v1/streams/${encodeURIComponent(name)}?top=${ALL_LABELS}`, document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const key = sessionStorage.getItem(KEY);
    this.turn("connecting", "connecting");
    this.asked = false;
    try {
      this.socket = key ? new WebSocket(url, ["framegate", `key.${key}`]) : new WebSocket(url);
    } catch {  // a key with characters that no header can carry
      return this.askKey("That key has characters that no key has.");
    }
    const mine = this.socket;
    mine.onmessage = (event) => mine === this.socket && this.hear(JSON.parse(event.data));
    mine.onclose = (event) => mine === this.socket && this.closed(event);
  },

  rest() {  // paused while the connection was away: playing opens it again
    clearTimeout(this.timer);
    notice("");
    this.turn("off", "not connected");
  },

  close() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    if (socket?.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close(1000);  // else the console complains
    else socket?.close(1000);
    this.turn("off", "not connected");
  },

  closed({ code, reason }) {
    if (this.asked && code === 1000) this.done();
    const was = this.state;
    this.socket = null;
    if (was === "live") happened(`connection closed, code ${code}${reason ? `: ${reason}` : ""}`);
    if (was === "done" || !source.wanted()) return this.turn("off", was === "done" ? "answered" : "not connected");
    $("verdict").hidden = true;  // of a picture that is no longer the one behind it
    if (code === 4401) return this.askKey(sessionStorage.getItem(KEY) ? "The server did not accept that key." : "Ask whoever runs this server for one.");
    if (code in FINAL) {
      this.turn("stopped", "stopped");
      return notice(`${FINAL[code]}${reason ? `: ${reason}` : ""}.`, "Try again", () => this.now());
    }
    const [words, least] = AGAIN[code] ?? ["The connection to the server broke.", 0.5];
    const wait = Math.max(least, Math.min(10, 0.5 * 2 ** this.tries++)) * (0.8 + 0.4 * Math.random());
    this.turn("waiting", "waiting");
    notice(`${words} Trying again in ${Math.max(1, Math.round(wait))} s.`, "Try now", () => this.now());
    this.timer = setTimeout(() => this.open(), 1000 * wait);
  },

  now() { notice(""); this.open(); },

  askKey(words) {
    sessionStorage.removeItem(KEY);
    this.turn("key", "needs a key");
    notice("This server asks for an API key.", "Enter the key", () => askKey(words));
    askKey(words);
  },

  hear(message) {
    if (message.event === "ready") this.ready(message);
    else if (message.event === "reset") this.forgot(message);
    else if (message.event === "error") { add("errors"); this.settle(message.seq ?? -1); happened(`refused: ${message.error}`, "error"); }
    else if (message.event === "end") { if (this.asked && !this.waiting.size) this.done(); }  // else the close code says what is next
    else if (message.labels) this.answer(message);
  },

  ready(facts) {
    Object.assign(this, { labels: [], tries: 0, number: 0, settled: -1, dropped: 0 });
    this.waiting.clear();
    this.turn("live", "live");
    notice("");
    happened(`connected, model ${facts.version}`);
    this.learn(facts);
    pump.fresh();
  },

  end() {
    this.asked = true;
    this.say({ end: true });
  },

  done() {
    source.pending = false;
    this.turn("done", "answered");
  },

  learn({ version, labels = this.labels, clip = this.clip }) {  // about the model that answers from here on
    if (clip.fps !== this.fps) pump.origin = null;  // before its ticks are counted anew
    Object.assign(this, { fps: clip.fps, side: Math.max(2 * Math.min(clip.height, clip.width), 240) });
    if (labels.join("\n") !== this.labels.join("\n")) {
      this.labels = labels;
      layBars();
      past.relabel();
    }
    this.took(version, clip);
  },

  took(version, clip = this.clip) {
    Object.assign(this, { version, clip });
    const whose = name === "framegate" ? "model" : `${name}, model`;
    show("model", `${whose} ${version} · ${this.labels.length} labels · ${clip.width} × ${clip.height} at ${Number(clip.fps.toFixed(2))} fps`);
  },

  forgot({ reason, ...facts }) {
    if (reason === "version") {
      this.learn(facts);
      happened(`model ${facts.version} took over, starting afresh`, "version");
      past.mark(`model ${facts.version}`, true);
    } else if (reason === "gap") {
      happened("a gap in the frames: the model starts afresh");
      past.mark("gap", true);
    }
  },

  answer({ seq, labels, dropped, version, latency_ms }) {
    const sent = this.waiting.get(seq);
    this.settle(seq);
    add("answers");
    if (dropped > this.dropped) add("dropped", dropped - this.dropped);
    this.dropped = dropped;
    if (version !== this.version) this.took(version);
    if (sent !== undefined) delays.add(performance.now() - sent, latency_ms);
    view(labels);
    past.add(labels);
  },

  settle(seq) { for (const n of this.waiting.keys()) if (n <= seq) this.waiting.delete(n); },

  get full() {
    const old = performance.now() - LOST_MS;  // a frame that no tick picks has no answer
    for (const [n, at] of this.waiting) if (at < old) this.waiting.delete(n);
    return this.waiting.size >= IN_FLIGHT || this.socket.bufferedAmount > BUFFER_BYTES;
  },

  say(control) { this.socket.send(JSON.stringify(control)); },

  frame(blob) {
    this.socket.send(blob);
    this.waiting.set(this.number++, performance.now());
    add("sent");
  },
};

function askKey(words) {
  show("key-said", words);
  if (!$("key").open) $("key").showModal();
  $("key-field").focus();
}

$("key").addEventListener("close", () => {
  const key = $("key-field").value.trim(), use = $("key").returnValue === "use", { again } = whole;
  $("key-field").value = $("key").returnValue = "";
  whole.again = false;  // who cancels does not want the file sent by a key entered later
  if (!use || !key) return;
  sessionStorage.setItem(KEY, key);
  notice("");
  if (again) whole.start();
  if (source.wanted()) stream.open();
});

// --- what is shown: a file, an image, the webcam -----------------------------------------------------------------

const source = {
  kind: "none", file: null, url: "", camera: null, pending: false,

  wanted() { return this.kind === "image" ? this.pending : this.kind !== "none" && (!video.paused || this.pending); },

  clear(kind) {
    stream.close();
    whole.stop();
    notice("");
    this.camera?.getTracks().forEach((track) => { track.onended = null; track.stop(); });
    video.pause();
    video.srcObject = null;
    video.removeAttribute("src");
    image.removeAttribute("src");
    if (this.url) URL.revokeObjectURL(this.url);
    Object.assign(this, { kind, file: null, url: "", camera: null, pending: false });
    screenBox.dataset.kind = kind;
    unview();
    $("webcam").setAttribute("aria-pressed", String(kind === "webcam"));
    show("webcam", kind === "webcam" ? "Stop the webcam" : "Webcam");
    for (const id of ["play", "seek"]) $(id).disabled = kind === "none" || kind === "image" || (id === "seek" && kind === "webcam");
    $("analyse").disabled = kind !== "video" && kind !== "image";
    place(0);
    past.clear();
  },

  async open(file) {
    const kind = file.type.startsWith("image/") ? "image" : "video";
    this.clear(kind);
    Object.assign(this, { file, url: URL.createObjectURL(file), pending: true });
    whole.clear(`“${file.name}”, ${(file.size / 1e6).toFixed(1)} MB: every frame in its turn, by the server.`);
    if (kind === "image") {
      image.src = this.url;
      image.alt = file.name;
      return;
    }
    video.src = this.url;
    video.play().catch(() => {});  // an unreadable file says so in its error event
  },

  async webcam() {
    if (this.kind === "webcam") return this.clear("none");
    if (!navigator.mediaDevices?.getUserMedia) return notice("A browser gives its camera to pages over https or on localhost only.");
    let camera;
    try {
      camera = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, height: { ideal: 480 } } });
    } catch (error) {
      return notice(CAMERA[error.name] ?? `The camera did not open: ${error.message}`);
    }
    this.clear("webcam");
    Object.assign(this, { camera, pending: true });
    camera.getVideoTracks()[0].onended = () => { this.clear("none"); notice("The camera went away."); };
    video.srcObject = camera;
    video.play().catch(() => {});
  },
};

const CAMERA = {
  NotAllowedError: "The browser was not allowed to use the camera. Allow it beside the address, then press w.",
  NotFoundError: "There is no camera here. Plug one in and press w, or choose a file.",
  NotReadableError: "The camera is there but does not open: another program may be using it.",
};

function loop() {  // not what is shorter than a blink: every moment of it would be a jump
  video.loop = source.kind === "video" && $("loop").checked && video.duration > STILL_MS / 1000;
}

function unseen(words) {  // nothing of this file can be sent from here
  stream.close();
  source.pending = false;
  show("play", "Play");
  $("play").disabled = $("seek").disabled = true;
  happened(words, "error");
  notice(`${words} The server may still read it.`, "Analyse the whole file", () => { notice(""); whole.start(); });
}

video.onerror = image.onerror = (event) => {
  if (event.target.getAttribute("src")) unseen(`This browser cannot show “${source.file.name}”.`);
};
image.onload = () => stream.open();
video.onloadedmetadata = () => {
  if (source.kind === "video" && !video.videoWidth) {  // also of a picture in a codec that this browser lacks, beside sound that it has
    video.pause();
    video.removeAttribute("src");
    video.load();  // or a jump would open the stream again
    past.run(false);
    return unseen(`This file has no picture, or none that this browser can show: “${source.file.name}”.`);
  }
  loop();
  $("seek").max = Number.isFinite(video.duration) ? video.duration : 1;
};
video.onplay = () => { show("play", "Pause"); source.pending = true; stream.open(); };
video.onplaying = () => past.run(true);
video.onpause = () => {
  show("play", "Play");
  source.pending = false;
  past.run(false);
  if (stream.state === "waiting") stream.rest();
};
video.onwaiting = () => past.run(false);
video.onseeking = () => {
  pump.restart();
  source.pending = true;
  if (stream.state === "off") stream.open();  // the next round of a loop does not cut a wait short
};
video.onseeked = () => { if (video.paused || !stream.number) pump.seen(video.currentTime); };
function place(s) {  // told to a screen reader by the slider that it moves, not as it plays: no live region
  const here = clockTime(s);
  show("time", `${here} / ${clockTime(video.duration || 0)}`);
  if ($("seek").getAttribute("aria-valuetext") !== here) $("seek").setAttribute("aria-valuetext", here);
}
video.ontimeupdate = () => {
  if (source.kind !== "video") return;
  if (document.activeElement !== $("seek") || !video.seeking) $("seek").value = video.currentTime;
  place(video.currentTime);
  whole.follow(video.currentTime);
};

// --- frames: which, when, how big ---------------------------------------------------------------------------------

const pump = {
  canvas: document.createElement("canvas"), origin: null, tick: -1, last: 0, step: 1, round: 0, busy: false, reset: false,

  fresh() {  // a new connection has no past
    this.restart();
    this.reset = false;
    if (source.kind === "image") this.send(null).then(() => stream.live && stream.end());
    else if (video.paused) this.shown();
    else setTimeout(() => stream.live && !stream.number && this.shown(), STILL_MS);  // its only frame came before the stream was there
  },

  shown() { if (video.readyState >= 2) this.seen(video.currentTime); },

  restart() {
    Object.assign(this, { origin: null, tick: -1, round: this.round + 1, reset: true });
  },

  seen(mediaTime) {  // seconds; a frame is on the screen
    if (!stream.live || video.seeking || source.kind === "image") return;
    if (source.kind === "webcam") mediaTime = performance.now() / 1000;
    if (this.origin !== null && mediaTime < this.last - 1 / stream.fps) this.restart();  // less: currentTime is not quite a frame's
    if (this.origin === null) Object.assign(this, { origin: mediaTime, tick: -1, step: 1 / stream.fps });
    else if (mediaTime > this.last) this.step = Math.min(this.step, mediaTime - this.last);
    this.last = mediaTime;
    const tick = Math.floor((mediaTime - this.origin + this.step / 2) * stream.fps + 1e-6);  // the nearest frame of each tick
    if (tick <= this.tick) return;
    this.tick = tick;
    this.send(this.origin + tick / stream.fps);
  },

  async send(t) {  // t: s, null = an image
    if (this.busy || stream.full) return add("skipped");
    this.busy = true;
    const { round } = this;
    const blob = await this.jpeg().finally(() => { this.busy = false; });
    if (!blob || round !== this.round || !stream.live) return;
    if (this.reset && stream.number) {
      stream.say({ reset: true });
      past.mark("", false);
    }
    this.reset = false;
    if (t !== null) stream.say({ t: Number(t.toFixed(6)) });
    stream.frame(blob);
    if (source.kind === "video" && video.paused) source.pending = false;
  },

  async jpeg() {
    const still = source.kind === "image";
    const picture = still ? image : video;
    const [width, height] = still ? [image.naturalWidth, image.naturalHeight] : [video.videoWidth, video.videoHeight];
    if (!width || !height) return null;
    const scale = Math.min(1, stream.side / Math.min(width, height));
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    this.canvas.getContext("2d", { alpha: false }).drawImage(picture, 0, 0, this.canvas.width, this.canvas.height);
    return new Promise((resolve) => this.canvas.toBlob(resolve, "image/jpeg", 0.9));
  },
};

(function watch() {  // every frame that the video shows, with its time
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback((_, { mediaTime }) => { pump.seen(mediaTime); watch(); });
  else requestAnimationFrame(() => { if (!video.paused) pump.seen(video.currentTime); watch(); });
})();

// --- answers --------------------------------------------------------------------------------------------------------

const delays = {
  list: [],  // [when, ms] of the last minute

  add(ms, inside) {
    this.list.push([performance.now(), ms]);
    figure("last", ms);
    if (inside !== undefined) show("inside", `${inside.toFixed(1)} ms`);
  },

  summary() {
    const since = performance.now() - MINUTE_MS;
    while (this.list.length && this.list[0][0] < since) this.list.shift();
    if (!this.list.length) return;
    const sorted = this.list.map(([, ms]) => ms).sort((a, b) => a - b);
    for (const [id, q] of [["p50", 0.5], ["p95", 0.95]]) figure(id, sorted[Math.ceil(q * sorted.length) - 1]);
  },
};

function layBars() {
  const rows = stream.labels.length > ALL_LABELS ? Array(FEW_LABELS).fill("") : stream.labels;
  $("bars-empty").hidden = true;
  $("bars").replaceChildren(...rows.map((label) => {
    const row = make("li");
    const track = make("i");
    track.setAttribute("aria-hidden", "true");
    row.append(make("b", label), track, make("span", "–"));
    return row;
  }));
}

const said = { label: "", at: 0 };

function unview() {  // what was answered was about another source
  if (stream.labels.length) layBars();
  $("verdict").hidden = true;
  said.label = "";
  for (const id of ["label", "sure", "said"]) show(id, "");
}

function view(labels) {  // by falling probability
  const [top] = labels;
  const few = stream.labels.length > ALL_LABELS;
  const of = new Map(labels.map((one) => [one.name, one.probability]));
  [...$("bars").children].forEach((row, i) => {
    const label = few ? labels[i]?.name ?? "" : stream.labels[i];
    const p = of.get(label) ?? 0;
    const [word, track, value] = row.children;
    if (few) word.textContent = label;
    word.title = label;
    row.dataset.label = label;
    row.dataset.probability = p;
    row.classList.toggle("top", label === top.name);
    track.style.setProperty("--k", colour(label));
    track.style.setProperty("--p", p);
    value.textContent = percent(p);
  });
  $("verdict").hidden = false;
  $("verdict").style.setProperty("--k", colour(top.name));
  show("label", top.name);
  show("sure", percent(top.probability));
  if (top.name !== said.label && performance.now() - said.at > 2000) {
    Object.assign(said, { label: top.name, at: performance.now() });
    show("said", `${top.name}, ${percent(top.probability)}`);
  }
}

// --- the last minute ------------------------------------------------------------------------------------------------

const past = {
  answers: [], marks: [], ran: 0, since: null, drawn: "", due: false,  // its clock stands still while the video does

  now() { return this.ran + (this.since === null ? 0 : performance.now() - this.since); },
  run(on) {
    this.ran = this.now();
    this.since = on ? performance.now() : null;
  },
  clear() {
    Object.assign(this, { answers: [], marks: [], ran: 0, since: null });
    this.want();
  },
  add(labels) {
    this.answers.push({ at: this.now(), top: labels[0].name, of: labels });
    this.want();
  },
  mark(text, loud) {
    this.marks.push({ at: this.now(), text, loud });
    this.want();
  },
  relabel() {  // the colours go by the labels
    this.drawn = "";
    this.want();
  },
  want() {
    if (this.due) return;
    this.due = true;
    setTimeout(() => requestAnimationFrame(() => { this.due = false; this.draw(); }), 80);
  },

  lanes() {
    if (stream.labels.length <= ALL_LABELS) return stream.labels;
    const seen = new Set(this.answers.map(({ top }) => top));
    return stream.labels.filter((label) => seen.has(label)).slice(0, ALL_LABELS);
  },

  widths() {  // ms that each answer stood, until the next one; a pause in the answers is a pause on the canvas
    const longest = 3000 / stream.fps;
    return this.answers.map(({ at }, i) => Math.min(longest, (this.answers[i + 1]?.at ?? this.now()) - at));
  },

  draw() {
    const start = this.now() - MINUTE_MS;
    this.answers = this.answers.filter(({ at }) => at >= start);
    this.marks = this.marks.filter(({ at }) => at >= start);
    const lanes = this.lanes(), widths = this.widths();
    this.legend(lanes, widths);
    const canvas = $("canvas"), ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = 44 + LANE_PX * Math.max(1, lanes.length);
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas), ink = (key) => style.getPropertyValue(key);
    pen.scale(ratio, ratio);
    pen.font = style.font;
    const x = (at) => ((at - start) / MINUTE_MS) * width, whole = (at) => Math.round(at * ratio) / ratio;  // no seams
    this.axis(pen, ink, width, lanes.length);
    lanes.forEach((label, lane) => {
      pen.fillStyle = ink(`--l${stream.labels.indexOf(label) % ALL_LABELS}`);
      this.answers.forEach(({ at, top, of }, i) => {
        const p = of.find((one) => one.name === label)?.probability ?? 0;
        if (p < 0.02) return;
        const tall = p * (LANE_PX - 4);
        pen.globalAlpha = top === label ? 1 : 0.35;
        const left = whole(x(at));
        pen.fillRect(left, 22 + (lane + 1) * LANE_PX - 1 - tall, Math.max(1 / ratio, whole(x(at + widths[i])) - left), tall);
      });
    });
    pen.globalAlpha = 1;
    this.stand(pen, ink, x, width, lanes.length);
  },

  axis(pen, ink, width, lanes) {
    const bottom = 22 + LANE_PX * Math.max(1, lanes);
    pen.fillStyle = ink("--grid");
    for (let lane = 0; lane <= lanes; lane++) pen.fillRect(0, 21.5 + lane * LANE_PX, width, 1);
    for (const s of width < 320 ? [60, 30, 0] : [60, 45, 30, 15, 0]) {
      const at = width * (1 - s / 60);
      pen.fillStyle = ink("--grid");
      pen.fillRect(Math.min(width - 1, at), 22, 1, bottom - 22);
      pen.fillStyle = ink("--soft");
      pen.textAlign = s === 60 ? "left" : s ? "center" : "right";
      pen.fillText(s ? `−${s} s` : "now", at, bottom + 16);
    }
  },

  stand(pen, ink, x, width, lanes) {
    const bottom = 22 + LANE_PX * Math.max(1, lanes);
    for (const { at, text, loud } of this.marks) {
      pen.strokeStyle = pen.fillStyle = ink(loud ? "--main" : "--soft");
      pen.setLineDash(loud ? [] : [2, 3]);
      pen.lineWidth = loud ? 2 : 1;
      pen.beginPath();
      pen.moveTo(x(at), 18);
      pen.lineTo(x(at), bottom);
      pen.stroke();
      pen.textAlign = x(at) > width - 90 ? "right" : "left";
      pen.fillText(text, x(at), 12);
    }
  },

  legend(lanes, widths) {
    const total = new Map(lanes.map((label) => [label, 0]));
    this.answers.forEach(({ top }, i) => total.set(top, (total.get(top) ?? 0) + widths[i]));
    if (this.drawn !== JSON.stringify(lanes)) {
      this.drawn = JSON.stringify(lanes);
      $("lanes").replaceChildren(...lanes.map((label) => {
        const lane = make("li");
        lane.style.setProperty("--k", colour(label));
        lane.title = label;
        lane.append(make("b", label), make("small"));
        return lane;
      }));
    }
    const last = this.answers.at(-1)?.top;
    lanes.forEach((label, i) => {
      const lane = $("lanes").children[i];
      lane.classList.toggle("top", label === last);
      lane.lastChild.textContent = `${(total.get(label) / 1000).toFixed(0)} s`;
    });
    const words = lanes.filter((label) => total.get(label)).map((label) => `${label} ${(total.get(label) / 1000).toFixed(0)} s`);
    $("canvas").setAttribute("aria-label", words.length ? `The answers of the last minute: ${words.join(", ")}` : "No answers yet");
  },
};

// --- the whole file -------------------------------------------------------------------------------------------------

const REFUSED = {
  413: "The file is too big for this server", 415: "The server cannot read this kind of file",
  429: "The server is busy", 503: "The server is busy", 504: "The server did not make it in time",
};

const whole = {
  running: null, spans: [], again: false,

  clear(words) {
    this.spans = [];
    $("strip").replaceChildren();
    $("spans").hidden = true;
    $("spans").tBodies[0].replaceChildren();
    show("whole-said", words);
  },

  stop() {  // at once: what the run still says is not heard any more
    this.again = false;
    if (!this.running) return;
    this.running.abort();
    show("whole-said", `Stopped; ${this.spans.length} spans until then.`);
    this.rest();
  },

  rest() {
    this.running = null;
    show("analyse", "Analyse the whole file");
  },

  async start() {
    if (!source.file) return;
    if (this.running) return this.stop();
    const { file } = source, run = (this.running = new AbortController());
    this.again = false;
    this.clear(`Sending “${file.name}” …`);
    show("analyse", "Stop analysing");
    try {
      await this.read(file, run.signal);
    } catch (error) {
      if (this.running === run) show("whole-said", `That did not work: ${error.message}`);
    } finally {
      if (this.running === run) this.rest();
    }
  },

  async read(file, signal) {
    const key = sessionStorage.getItem(KEY);
    const headers = { Accept: "application/x-ndjson", "Content-Type": file.type || "application/octet-stream", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
    const answer = await fetch(new URL("v1/predict?top=3", document.baseURI), { method: "POST", headers, body: file, signal });
    if (answer.status === 401) {
      this.again = true;
      askKey(key ? "The server did not accept that key." : "Ask whoever runs this server for one.");
      return show("whole-said", "This server asks for an API key.");
    }
    if (!answer.ok) throw new Error(await this.refusal(answer));
    let rest = "";
    for await (const text of chunks(answer.body.pipeThrough(new TextDecoderStream()))) {
      signal.throwIfAborted();  // what was on its way may still arrive
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      lines.filter((line) => line.trim()).forEach((line) => this.line(JSON.parse(line)));
    }
    if (rest.trim()) this.line(JSON.parse(rest));
    const until = this.spans.at(-1)?.end_s ?? 0;
    show("whole-said", `${this.spans.length} ${this.spans.length === 1 ? "span" : "spans"}, ${until.toFixed(1)} s${answer.headers.get("Framegate-Version") ? `, by model ${answer.headers.get("Framegate-Version")}` : ""}. A click goes there.`);
  },

  async refusal(answer) {
    const said = await answer.json().then((body) => body.error, () => "");
    const later = answer.headers.get("Retry-After");
    return `${REFUSED[answer.status] ?? `status ${answer.status}`}${said ? `: ${said}` : ""}${later ? ` (try again in ${later} s)` : ""}`;
  },

  line(span) {
    if (span.error) throw new Error(`${span.error}${this.spans.length ? "; what came before stands below" : ""}`);
    this.spans.push(span);
    show("whole-said", `${this.spans.length} spans, ${span.end_s.toFixed(1)} s so far …`);
    $("spans").hidden = false;
    $("spans").tBodies[0].append(this.row(span));
    this.strip(span);
  },

  row({ start_s, end_s, labels }) {
    const [top, ...others] = labels, row = make("tr"), label = make("b", top.name), from = make("button", `${start_s.toFixed(1)} s`);
    const cells = [make("td"), make("td", `${end_s.toFixed(1)} s`, "n"), make("td"), make("td", percent(top.probability), "n")];
    from.type = "button";
    from.setAttribute("aria-label", `Go to ${start_s.toFixed(1)} seconds, ${top.name}`);
    if (stream.labels.includes(top.name)) label.style.setProperty("--k", colour(top.name));
    cells[0].append(from);
    cells[2].append(label);
    row.append(...cells, make("td", others.filter((one) => one.probability >= 0.01).map((one) => `${one.name} ${percent(one.probability)}`).join(", "), "others"));
    row.onclick = () => { if (source.kind === "video") jump(start_s); };
    return row;
  },

  strip({ start_s, end_s, labels: [{ name: label }] }) {  // the spans over the seek bar
    if (!stream.labels.includes(label) || !video.duration) return;
    const part = make("i");
    part.style.setProperty("--k", colour(label));
    part.style.left = `${100 * Math.min(1, start_s / video.duration)}%`;
    part.style.right = `${100 * Math.max(0, 1 - end_s / video.duration)}%`;
    $("strip").append(part);
  },

  follow(time) {
    const here = this.spans.findIndex(({ start_s, end_s }) => time >= start_s && time < end_s);
    [...$("spans").tBodies[0].rows].forEach((row, i) => (i === here ? row.setAttribute("aria-current", "true") : row.removeAttribute("aria-current")));
  },
};

async function* chunks(readable) {  // not every browser iterates over a stream
  const reader = readable.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) yield part.value;
}

// --- hands ----------------------------------------------------------------------------------------------------------

function jump(seconds) { video.currentTime = Math.min(Math.max(0, seconds), video.duration || 0); }
function leap(seconds) {
  if ($("seek").disabled) return false;
  jump(video.currentTime + seconds);
  return true;
}
function toggle() {
  if ($("play").disabled) return false;
  if (video.paused) video.play().catch(() => {});
  else video.pause();
  return true;
}

const KEYS = {  // false: nothing to do, the key is the browser's
  " ": toggle,
  u: () => $("file").click(),
  w: () => source.webcam(),
  a: () => !$("analyse").disabled && whole.start(),
  "?": () => $("help").showModal(),
  ArrowLeft: (event) => leap(event.shiftKey ? -5 : -1),
  ArrowRight: (event) => leap(event.shiftKey ? 5 : 1),
};

addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range]):not([type=checkbox])");
  if (typing || event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  if (event.key === " " && event.target.matches("button, input")) return;  // it presses what has the focus
  const character = event.key.length === 1;
  if (character && !$("keys").checked) return;
  const act = KEYS[character ? event.key.toLowerCase() : event.key];
  if (act && act(event) !== false) event.preventDefault();
});

addEventListener("click", (event) => {  // after a click of the mouse, space plays; after a press of a key it presses again
  if (event.detail && event.target.matches("main button")) event.target.blur();
});
$("play").onclick = toggle;
$("upload").onclick = KEYS.u;
$("webcam").onclick = KEYS.w;
$("analyse").onclick = () => whole.start();
$("help-open").onclick = KEYS["?"];
$("seek").oninput = () => { jump(Number($("seek").value)); place(video.currentTime); };
$("keys").onchange = () => { if ($("keys").checked) localStorage.removeItem(KEYS_OFF); else localStorage.setItem(KEYS_OFF, "1"); };
$("loop").onchange = loop;
$("file").onchange = () => { if ($("file").files.length) source.open($("file").files[0]); $("file").value = ""; };
for (const type of ["dragover", "dragleave", "drop"]) {
  addEventListener(type, (event) => {
    event.preventDefault();
    screenBox.classList.toggle("over", type === "dragover");
    const file = type === "drop" ? event.dataTransfer.files[0] : null;
    if (file) source.open(file);
  });
}
addEventListener("offline", () => notice("This machine is offline."));
addEventListener("online", () => stream.state === "waiting" && stream.now());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => past.want());
new ResizeObserver(() => past.want()).observe($("timeline"));
setInterval(() => { delays.summary(); if (past.since !== null) past.want(); }, 500);
past.want();
$("keys").checked = localStorage.getItem(KEYS_OFF) === null;  // last: a browser may forbid it
