// The text on the page: one paragraph a sentence, grey until it is final; and its files.
const stamp = (seconds, comma) => {
  const ms = Math.max(0, Math.round(seconds * 1000));
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  const whole = `${two(ms / 3600000)}:${two((ms / 60000) % 60)}:${two((ms / 1000) % 60)}`;
  return comma ? `${whole},${String(ms % 1000).padStart(3, "0")}` : whole;
};

export class Transcript {
  constructor(place) {
    this.place = place;
    this.lines = [];
    this.open = new Map();
    this.offset = 0; // seconds of earlier recordings and connections
  }

  line(seg) {
    if (!this.open.has(seg)) {
      const paragraph = document.createElement("p");
      const line = { paragraph, time: document.createElement("time"), span: document.createElement("span"), text: "" };
      paragraph.append(line.time, line.span);
      this.place.append(paragraph);
      this.lines.push(line);
      this.open.set(seg, line);
    }
    return this.open.get(seg);
  }

  partial({ seg, text }) {
    if (!text && !this.open.has(seg)) return;
    const line = this.line(seg);
    line.span.textContent = text;
    line.paragraph.className = "partial";
    line.paragraph.scrollIntoView({ block: "nearest" });
  }

  final({ seg, text, start, end }) {
    if (!text && !this.open.has(seg)) return;
    const line = this.line(seg);
    this.open.delete(seg);
    if (!text.trim()) return this.drop(line);
    Object.assign(line, { text, start: start + this.offset, end: end + this.offset });
    line.span.textContent = text;
    line.time.textContent = stamp(line.start, false);
    line.paragraph.className = "final";
  }

  // Another stream begins: what has not become final never will; its grey words stay as they are.
  next(seconds) {
    for (const line of this.open.values()) {
      if (line.span.textContent) Object.assign(line, { text: line.span.textContent, start: this.offset, end: this.offset + seconds });
      else this.drop(line);
    }
    this.open.clear();
    this.offset += seconds;
  }

  drop(line) {
    line.paragraph.remove();
    this.lines.splice(this.lines.indexOf(line), 1);
  }

  clear() {
    this.place.replaceChildren();
    this.lines = [];
    this.open.clear();
  }

  get said() {
    return this.lines.filter((line) => line.text);
  }

  txt() {
    return this.said.map((line) => `${line.text}\n`).join("");
  }

  srt() {
    const one = (line, index) => `${index + 1}\n${stamp(line.start, true)} --> ${stamp(line.end, true)}\n${line.text}\n\n`;
    return this.said.map(one).join("");
  }
}
