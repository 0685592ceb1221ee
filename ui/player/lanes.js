// A lane: its figures, its text, its verdict. Tokens keep their place while it plays: every token that the log knows of
// stands there from the start, invisible until its forward, so that nothing reflows.

const SHOWN = 8192;
const STEP = 8; // forwards; more is a jump
const CHARACTER = 8; // px, at least a character's width
const LINES = 12; // more than are in view
const FIGURES = [
  ["tokens", "tokens"],
  ["forwards", "forwards", "Model forwards after the prefill"],
  ["tpf", "tokens / forward", "The prefill's token counts, its forward does not"],
  ["nfe", "NFE", "Forwards as the released code counts them"],
  ["time", "model time"],
  ["rate", "tokens / s"],
];
const COUNTED = "The prefill's token counts, its forward does not.";

const SPEED_UP = "Speed-up: seconds per token of AR over this lane's, same run, same machine";

class LaneView {
  constructor(root, mode, redraw) {
    this.root = root;
    this.mode = mode;
    this.finish = root.querySelector(".finish");
    this.usual = root.querySelector(".how").textContent;
    this.figures = {};
    const figures = make("div", "figures");
    for (const [key, label, more] of FIGURES) {
      const figure = make("div", "figure");
      figure.dataset.figure = key;
      const value = figure.appendChild(make("b", "", "–"));
      const name = figure.appendChild(make("span", "", label));
      if (more) figure.title = more;
      this.figures[key] = { value, name };
      figures.append(figure);
    }
    this.verdict = make("p", "verdict");
    this.caption = make("p", "caption");
    this.mark = this.finish.parentNode.insertBefore(make("span", "mark"), this.finish);
    this.text = make("div", "text");
    this.text.setAttribute("role", "group");
    this.text.setAttribute("aria-label", `${root.getAttribute("aria-label")}: answer, token by token`);
    this.width = Infinity;
    new ResizeObserver(([entry]) => (this.width = entry.contentRect.width)).observe(this.text);
    this.rejected = make("span", "t");
    this.strip = make("div", "strip");
    root.append(figures, this.verdict, this.caption, this.text, this.strip);
    this.history = new History(root, mode);
    this.tail = new Fold(() => {
      this.painted = null;
      redraw();
    });
    this.clear();
  }

  /** Another engine's lane says itself how it decodes. */
  explain(note) {
    const how = this.root.querySelector(".how");
    setText(how.firstElementChild || how, note || this.usual);
  }

  clear() {
    this.nodes = [];
    this.paragraphs = [];
    this.text.replaceChildren();
    this.focusable = null;
    this.final = null;
    this.finalAt = -1;
    this.painted = null;
    this.text.scrollTop = 0;
    this.tail.clear();
    this.history.clear();
  }

  /** Draw the lane after event k. Nothing here reads the layout; `settle` does, once all lanes are drawn. */
  paint(log, lane, k, settings) {
    const key = `${k}/${lane.events.length}/${lane.finish}/${log.ended}/${log.lanes.get("ar")?.events.length}`;
    const figuresKey = `${key}/${settings.arEvent}/${settings.clock === "seconds" ? "" : settings.cursor}`;
    const figured = figuresKey !== this.figuresKey || log !== this.log;
    if (figured) this.paintFigures(log, lane, k, settings);
    if (figured) this.paintVerdict(log, lane, k, settings);
    this.figuresKey = figuresKey;
    if (key === this.painted && log === this.log) return;
    this.partial = log === this.log && !this.partial && Math.abs(k - this.at) > STEP;
    this.painted = key;
    this.log = log;
    this.at = k;
    setText(this.caption, captionOf(log, lane, k));
    this.caption.title = this.caption.textContent;
    const state = lane.at(k);
    this.paintText(log, lane, state, log.compare(this.mode)?.first ?? null);
    drawStrip(this.strip, log, lane, k);
    this.history.paint(log, lane, k);
  }

  /** After a jump only what is in view was drawn; true when the rest is still to do, which the next `paint` then does. */
  complete() {
    if (!this.partial) return false;
    this.painted = null;
    return true;
  }

  /** What changed comes into view; what a reader scrolled to stays otherwise. */
  settle(lane, k) {
    if (k !== this.revealed) this.reveal(lane, k);
    this.revealed = k;
    this.history.settle();
  }

  paintFigures(log, lane, k, settings) {
    const event = lane.events[k];
    const figures = this.figures;
    const atEnd = k === lane.events.length - 1;
    setText(figures.tokens.value, event ? String(event.kept) : "0");
    setText(figures.forwards.value, event ? String(event.forward) : "0");
    setText(figures.tpf.value, event?.forward ? (event.kept / event.forward).toFixed(2) : "–");
    setText(figures.nfe.value, event ? String(event.nfe ?? "–") : "0");
    setText(figures.time.value, !log.timed ? "–" : event ? seconds(event.clock) : "0.00 s");
    const rate = rateOf(event);
    setText(figures.rate.value, rate ? (rate < 100 ? rate.toFixed(1) : rate.toFixed(0)) : "–");
    const speedUp = this.fault(lane, k) ? "" : this.speedUp(log, event, settings); // a wrong answer's stands in the verdict
    setText(figures.rate.name, ["tokens / s", speedUp].filter(Boolean).join(" · "));
    figures.rate.name.title = speedUp ? SPEED_UP : "";
    paintMark(this.mark, lane, atEnd);
    // That an answer which holds ended by itself goes without saying.
    setText(this.finish, atEnd && lane.finish && this.mark.hidden ? finishOf(lane) : "");
    setData(this.root, "finish", atEnd ? lane.finish : null);
  }

  speedUp(log, event, settings) {
    const rate = rateOf(event);
    const ar = this.mode === "ar" ? 0 : rateOf(log.lanes.get("ar")?.events[settings.arEvent]);
    return rate && ar ? `${(rate / ar).toFixed(1)}×` : "";
  }

  /** What is wrong with the answer, once all of it is there. */
  fault(lane, k) {
    return k >= 0 && k === lane.events.length - 1 ? faultOf(lane) : "";
  }

  paintVerdict(log, lane, k, settings) {
    const event = lane.events[k];
    const comparison = log.compare(this.mode);
    const fault = this.fault(lane, k);
    setAttribute(this.verdict, "title", null);
    if (fault) {
      const speedUp = this.speedUp(log, event, settings);
      const differs = comparison?.first != null ? `; ≠ AR from token ${comparison.first}` : "";
      setText(this.verdict, `✗ ${speedUp ? `${speedUp}, but ` : ""}${fault}${differs}`);
      setAttribute(this.verdict, "title", `${this.verdict.textContent.slice(2)}. ${speedUp ? `${SPEED_UP}. ` : ""}`.trim());
      setData(this.verdict, "same", "no");
      return;
    }
    if (this.mode === "ar" || !comparison || !event) {
      // AR's figures are where it shows: one token per forward, and one token more than forwards.
      const counted = this.mode === "ar" && event?.forward > 0 && event.nfe !== null;
      setText(this.verdict, counted ? COUNTED : "");
      setData(this.verdict, "counted", counted ? "" : null);
      setData(this.verdict, "same", null);
      return;
    }
    const n = Math.min(event.prefix, comparison.n);
    const differs = comparison.first !== null && event.prefix > comparison.first;
    const done = k === lane.events.length - 1 && comparison.whole;
    const request = log.head.request || {};
    const mixed = request.ar_weight < 1;
    const drawn = !mixed && request.temperature > 0 && request.acceptance === "sampling";
    const same = this.mode === "self-speculation" && !mixed && !drawn; // as AR's text by design
    const inexact = same && log.head.exact === false; // its forwards round otherwise than AR's: near ties may part them
    const lossless = inexact ? "fast, inexact: " : same ? "lossless: " : "";
    if (differs || (done && comparison.first !== null)) {
      const lead = same ? "not lossless: " : this.mode !== "self-speculation" ? "" : drawn ? "distributed as AR's, drawn apart: " : "verifier mixed: ";
      const text = inexact
        ? `≠ fast, inexact: the first ${comparison.first} of ${n} tokens are AR's`
        : `≠ ${lead}first differs from AR at token ${comparison.first}`;
      setText(this.verdict, text);
      setData(this.verdict, "same", same || this.mode !== "self-speculation" ? "no" : null);
    } else if (n === 0) {
      setText(this.verdict, "");
      setData(this.verdict, "same", null);
    } else {
      setText(this.verdict, `✓ ${lossless}identical to AR${done ? "" : " so far"}, ${n} of ${n} tokens`);
      setData(this.verdict, "same", "yes");
    }
  }

  /** The whole answer as far as the log knows it, [{text, special, paragraph}]: what later forwards will put into each place. */
  layout(log, lane) {
    if (this.finalAt !== lane.events.length) {
      const ids = Array.from({ length: Math.min(lane.tip.cells.length, SHOWN) }, (_, i) => lane.tip.cells[i]?.token ?? -1);
      let paragraph = 0;
      const final = lane.answer;
      const first = lane.stop ? lane.stop.place + Boolean(lane.stop.characters) : Infinity; // of the stop string's own tokens
      this.final = log.table.joinUntil(ids, final, lane.stop).map((text, i) => {
        const stops = i >= first && i < final.length;
        const place = { text: ids[i] < 0 ? "" : text, special: stops || log.table.special.has(ids[i]), stops, paragraph };
        if (text.endsWith("\n")) paragraph += 1;
        return place;
      });
      this.finalAt = lane.events.length;
    }
    return this.final;
  }

  paintText(log, lane, state, first) {
    const cells = state.cells;
    const count = Math.min(cells.length, SHOWN);
    const hold = this.layout(log, lane);
    const ids = Array.from({ length: count }, (_, i) => cells[i]?.token ?? -1);
    const texts = lane.stop ? log.table.joinUntil(ids, lane.answer, lane.stop) : log.table.join(ids);
    const size = Math.max(count, hold.length);
    if (hold !== this.folded || size !== this.nodes.length) this.fold(hold, size);
    const [from, to] = this.partial ? this.near(hold, lane.events[state.k]) : [0, size];
    for (let i = from; i < Math.min(to, size); i++) {
      const node = this.nodes[i];
      const cell = cells[i];
      if (cell) paintCell(node, cell, texts[i], hold[i] || { text: texts[i], special: false }, state.k - cell.k, log.table, i === first && cell.state !== "discarded");
      else hideCell(node, hold[i]);
    }
    this.paintRejected(state.rejected, texts, log.table);
    this.tail.paint(this.nodes, lane, cells);
    if (this.focusable?.dataset.index === undefined) this.focusable = null;
    const focus = this.nodes.slice(0, count).findLast((node) => !("folded" in node.dataset));
    if (focus && !this.focusable?.matches(":focus")) {
      if (this.focusable) this.focusable.tabIndex = -1;
      focus.tabIndex = 0;
      this.focusable = focus;
    }
  }

  /** The places that are in view once `reveal` has scrolled to an event: reckoned, since to read the layout would cost
   * what this saves. Rather too many than too few. */
  near(hold, event) {
    const last = event?.positions[event.positions.length - 1]?.index ?? 0;
    const columns = Math.max(1, Math.floor(this.width / CHARACTER));
    const walk = (from, direction, most) => {
      let lines = 0;
      let column = 0;
      let i = from;
      for (; i >= 0 && i < hold.length && lines + column / columns < most; i += direction) {
        column += hold[i].text.length;
        if (hold[i].text.endsWith("\n")) {
          lines += Math.ceil(column / columns);
          column = 0;
        }
      }
      return [i, lines];
    };
    const [first, above] = walk(last, -1, LINES);
    return [Math.max(0, first), walk(last, 1, Math.max(3, LINES - above))[0] + 1];
  }

  /** A node per token. Tokens up to a newline share a block: where one changes, the browser lays out its block alone. */
  fold(hold, size) {
    this.folded = hold;
    this.rejected.remove();
    this.tail.button.remove();
    while (this.nodes.length > size) this.nodes.pop().remove();
    let before = null;
    for (let i = 0; i < size; i++) {
      if (!this.nodes[i]) {
        this.nodes.push(make("span", "t"));
        this.nodes[i].tabIndex = -1;
      }
      const node = this.nodes[i];
      const number = hold[i]?.paragraph ?? this.paragraphs.length - 1;
      if (number === this.paragraphs.length) this.paragraphs.push(this.text.appendChild(make("div", "paragraph")));
      const paragraph = this.paragraphs[number];
      if (before?.parentNode !== paragraph) before = null;
      if (node.parentNode !== paragraph || node.previousSibling !== before) paragraph.insertBefore(node, before ? before.nextSibling : paragraph.firstChild);
      before = node;
    }
  }

  /** The rejected draft hangs below the token that took its place. */
  paintRejected(rejected, texts, table) {
    const node = this.rejected;
    const owner = rejected ? this.nodes[rejected.index] : null;
    if (!owner) {
      node.remove();
      return;
    }
    node.dataset.state = "rejected";
    node.dataset.index = rejected.index;
    node.cell = rejected;
    setText(node, table.short(rejected.token));
    node.style.marginLeft = `-${Array.from((texts[rejected.index] || "").trim()).length}ch`;
    if (owner.nextSibling !== node) owner.after(node);
  }

  reveal(lane, k) {
    const event = lane.events[k];
    const last = event?.positions[event.positions.length - 1];
    let node = last && this.nodes[Math.min(this.nodes.length - 1, last.index)];
    if (node && "folded" in node.dataset) node = this.tail.button;
    if (!node) {
      this.text.scrollTop = 0;
      return;
    }
    this.text.scrollTop = Math.max(0, node.offsetTop + node.offsetHeight + 22 - this.text.clientHeight);
  }
}

function finishOf({ finish, stop }) {
  return stop ? `ended at “${seen(stop.string).replace(/[\n\t]/g, glyphs)}”` : FINISHES[finish] || finish;
}

const rateOf = (event) => (event && event.clock > 0 ? event.kept / (event.clock / 1000) : 0);

function ageOf(state, distance) {
  if (distance <= 0) return 0;
  if (state === "masked" || state === "discarded" || state === "drafted") return null;
  return distance <= 2 ? 1 : distance <= 5 ? 2 : null;
}

/** A token of a later forward: its room, and nothing to see, touch or read out. What it looked like stays beneath, since
 * a jump back and forth then costs one attribute per token. */
function hideCell(node, { text, special }) {
  const room = `${special}|${text}`;
  if (node.cell === null && node.room === room) return;
  node.cell = null;
  if (node.tabIndex !== -1) node.tabIndex = -1;
  setData(node, "index", null);
  if (node.room === room) return;
  node.room = room;
  node.key = null;
  for (const name of ["state", "age", "differs"]) setData(node, name, null);
  setData(node, "break", text.startsWith("\n") ? "" : null);
  setData(node, "special", special ? "" : null);
  setData(node, "blank", isBlank(text) ? glyphs(text) : null);
  setText(node, text);
}

function paintCell(node, cell, text, { text: hold, special: later, stops }, distance, table, differs) {
  const age = ageOf(cell.state, distance);
  const special = text === hold && !stops ? table.special.has(cell.token) : later; // its frame takes room
  const key = `${cell.state}|${age}|${special}|${differs}|${text}|${hold}`;
  node.cell = cell;
  setData(node, "index", cell.index);
  if (node.key === key) return;
  node.key = key;
  node.room = `${later}|${hold}`;
  setData(node, "break", hold.startsWith("\n") ? "" : null);
  setData(node, "state", cell.state);
  setData(node, "age", age);
  setData(node, "differs", differs ? "" : null);
  setData(node, "special", special ? "" : null);
  setData(node, "blank", isBlank(text) ? glyphs(text) : null);
  if (text === hold) {
    setText(node, text);
    return;
  }
  // Another text stands here now: it is drawn over the room of the final one.
  const space = hold.match(/^\s*/)[0];
  const word = hold.slice(space.length);
  const box = make("span", "box");
  const guess = make("span", "guess", (space ? text.trimStart() : text) || text);
  guess.style.setProperty("--room", word ? Array.from(word).length : space.includes("\n") ? 8 : Math.max(1, space.length));
  box.append(guess);
  if (word) box.dataset.hold = word;
  node.replaceChildren(...(word ? [space, box] : [box, space]));
}
