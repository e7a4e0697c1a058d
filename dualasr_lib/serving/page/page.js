import { Microphone } from "./microphone.js";
import { Transcript } from "./transcript.js";
import { WORDS } from "./words.js";

const $ = (id) => document.getElementById(id);
const transcript = new Transcript($("text"));
const MOST_WAITING = 1 << 20; // bytes
const PAUSES = [1, 2, 4, 8, 15]; // seconds

let language = (navigator.language || "en").startsWith("ja") ? "ja" : "en";
let status = ["idle"];
let token = "";
let session = null; // what is being heard

const say = (key, ...values) => WORDS[language][key].replace(/\{(\d)\}/g, (_, i) => values[i]);

function show(key, ...values) {
  status = [key, ...values];
  $("status").textContent = say(key, ...values);
  $("status").className = ["denied", "missing", "insecure", "slow", "failed", "gone", "needed", "again"].includes(key) ? "bad" : "";
}

function translate() {
  document.documentElement.lang = language;
  for (const item of document.querySelectorAll("[data-text]")) item.textContent = say(item.dataset.text);
  $("language").textContent = say("other");
  $("language").lang = language === "ja" ? "en" : "ja";
  $("choose").textContent = say("choose");
  $("level").setAttribute("aria-label", say("level"));
  buttons();
  show(...status);
}

function buttons() {
  $("listen").textContent = say(session ? "stop" : "listen");
  $("listen").setAttribute("aria-pressed", String(Boolean(session)));
  $("listen").disabled = Boolean(session && session.isEnding);
  $("choose").disabled = Boolean(session);
}

const wait = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

async function reason() {
  try {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch("live", { headers });
    return answer.status === 426 ? "" : (await answer.json()).code;
  } catch {
    return "gone";
  }
}

// One connection; resolves, when it is closed, with whether there is any use in another one.
function connect(live) {
  return new Promise((done) => {
    const names = ["asr.v1", ...(token ? [`bearer.${token}`] : [])];
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`, names);
    let isOpen = false;
    let isDone = false;
    let told = "";
    live.socket = socket;
    live.isReady = false;
    live.sent = 0;
    socket.onopen = () => {
      isOpen = true;
      socket.send(JSON.stringify({ type: "start", sample_rate: live.microphone.rate }));
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "ready") {
        live.isReady = true;
        live.tries = 0;
        show("listening");
        if (live.isEnding) socket.send('{"type":"stop"}');
      } else if (message.type === "partial") transcript.partial(message);
      else if (message.type === "final") transcript.final(message);
      else if (message.type === "end") isDone = live.isEnding;
      else if (message.type === "error") told = message.message;
    };
    socket.onclose = async ({ code }) => {
      live.isReady = false;
      transcript.next(live.sent);
      const why = isOpen ? "" : await reason();
      if (isDone) done("done");
      else if (code >= 4400) done(["failed", told || code]);
      else if (why === "token") done(["needed"]);
      else done("again");
    };
  });
}

async function listen() {
  const live = { isEnding: false, tries: 0 };
  session = live;
  buttons();
  let outcome = ["idle"];
  try {
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    show("asking");
    live.microphone = await Microphone.open((samples, loudest) => {
      $("level").value = Math.min(1, Math.sqrt(loudest));
      if (!live.isReady || live.isStopped) return;
      if (live.socket.bufferedAmount > MOST_WAITING) {
        live.isSlow = true;
        return live.socket.close();
      }
      live.sent += samples.byteLength / 2 / live.microphone.rate;
      live.socket.send(samples);
    });
    show("connecting");
    while (true) {
      const ended = live.isEnding ? "done" : await connect(live);
      if (ended === "done") break;
      if (Array.isArray(ended)) {
        outcome = ended;
        break;
      }
      if (live.isEnding) {
        outcome = ["gone"];
        break;
      }
      const pause = PAUSES[Math.min(live.tries++, PAUSES.length - 1)];
      show(live.isSlow ? "slow" : "again", pause);
      live.isSlow = false;
      await Promise.race([wait(pause), new Promise((stop) => (live.giveUp = stop))]);
    }
  } catch (error) {
    const known = { NotAllowedError: "denied", NotFoundError: "missing", SecurityError: "insecure" };
    outcome = known[error.name] ? [known[error.name]] : ["failed", error.message];
  }
  if (live.microphone) await live.microphone.close();
  session = null;
  $("level").value = 0;
  $("secret").hidden = outcome[0] !== "needed";
  if (!$("secret").hidden) $("token").focus();
  show(...outcome);
  buttons();
}

async function stop() {
  const live = session;
  if (live.abort) return live.abort.abort();
  live.isEnding = true;
  buttons();
  show("finishing");
  if (!live.microphone) return;
  await live.microphone.flush();
  live.isStopped = true;
  if (live.isReady) live.socket.send('{"type":"stop"}');
  else if (live.giveUp) live.giveUp();
}

// A recording, sent as a whole; texts come as it is heard.
async function transcribe(file) {
  const abort = new AbortController();
  session = { abort };
  buttons();
  show("sending");
  let outcome = ["idle"];
  let seg = 0;
  try {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch("transcribe?format=json&progress=1", { method: "POST", body: file, headers, signal: abort.signal });
    if (answer.status === 401) outcome = ["needed"];
    else if (!answer.ok) outcome = ["failed", (await answer.json()).message];
    else {
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      let seconds = 0;
      for (let part; !(part = await reader.read()).done; ) {
        const lines = (rest + part.value).split("\n");
        rest = lines.pop();
        for (const message of lines.map((line) => JSON.parse(line))) {
          if (message.type === "error") outcome = ["failed", message.message];
          if (message.type !== "progress") continue;
          seconds = message.seconds;
          if (message.of) show("heard", Math.round(seconds), Math.round(message.of));
          for (const final of message.finals) transcript.final({ seg: seg++, ...final });
          transcript.open.clear();
        }
      }
      transcript.next(seconds);
    }
  } catch (error) {
    if (error.name !== "AbortError") outcome = ["gone"];
  }
  session = null;
  $("secret").hidden = outcome[0] !== "needed";
  show(...outcome);
  buttons();
}

function save(name, kind, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

async function copy() {
  try {
    await navigator.clipboard.writeText(transcript.txt());
    show("copied");
  } catch (error) {
    show("failed", error.message);
  }
}

$("listen").onclick = () => (session ? stop() : listen());
$("choose").onclick = () => $("file").click();
$("file").onchange = () => {
  const [file] = $("file").files;
  $("file").value = "";
  if (file && !session) transcribe(file);
};
$("copy").onclick = copy;
$("clear").onclick = () => transcript.clear();
$("txt").onclick = () => save("dualasr.txt", "text/plain;charset=utf-8", transcript.txt());
$("srt").onclick = () => save("dualasr.srt", "application/x-subrip;charset=utf-8", transcript.srt());
$("language").onclick = () => {
  language = language === "ja" ? "en" : "ja";
  translate();
};
$("secret").onsubmit = (event) => {
  event.preventDefault();
  token = $("token").value;
  $("secret").hidden = true;
  show("idle");
};
document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "INPUT") return;
  if (event.key === "l" && !$("listen").disabled) $("listen").click();
  else if (event.key === "c") copy();
};
translate();
