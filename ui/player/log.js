// The event log of a run. Every lane's state can be rebuilt at any event from the keyframe before it.

const MODES = ["ar", "diffusion", "self-speculation"];
const KEYFRAME = 64;
const KEPT = new Set(["committed", "accepted", "corrected", "bonus", "seed"]);
const TRANSIENT = new Set(["drafted", "discarded"]);

/** Numbers of which the smallest is at hand: a heap. */
class Smallest {
  constructor() {
    this.items = [];
  }

  get first() {
    return this.items[0];
  }

  add(number) {
    const { items } = this;
    let at = items.push(number) - 1;
    for (let up = (at - 1) >> 1; at && items[up] > number; up = (at - 1) >> 1) {
      items[at] = items[up];
      at = up;
    }
    items[at] = number;
  }

  drop() {
    const { items } = this;
    const last = items.pop();
    if (!items.length) return;
    let at = 0;
    for (let down = 1; down < items.length; down = 2 * at + 1) {
      if (down + 1 < items.length && items[down + 1] < items[down]) down += 1;
      if (items[down] >= last) break;
      items[at] = items[down];
      at = down;
    }
    items[at] = last;
  }
}

class LaneEvent {
  constructor(lane, facts) {
    Object.assign(this, facts);
    this.lane = lane;
  }

  get kept() {
    return this.lane.keptAt(this.k);
  }

  /** {drafts, accepted}: of a tree its candidates; what lies behind the end of the answer was no draft. */
  get outcome() {
    const count = (state) => this.positions.filter((p) => p.state === state).length;
    const accepted = count("accepted");
    const refused = count("rejected");
    return { accepted, drafts: this.raw.tree?.length || accepted + refused + (refused ? count("discarded") : 0) };
  }
}

class Lane {
  constructor(mode) {
    this.mode = mode;
    this.events = [];
    this.keyframes = []; // {k, cells}: the cells after event k; as many as what is in them was paid for by events since
    this.since = 0; // positions of the events after the last keyframe
    this.tip = { k: -1, cells: [], rejected: null };
    this.standing = new Map(); // index → the event since which it holds a token of the answer
    this.gains = []; // by event: tokens that are final since then
    this.totals = []; // their sums, as far as no later event took one of them away
    this.prefix = 0;
    this.scanned = 0; // places from 0 on that were kept once
    this.holes = new Smallest(); // of those some that no longer are
    this.blocks = new Set(); // where denoised blocks start
    this.cycles = 0;
    this.cycleTokens = 0;
    this.outcomes = { drafts: 0, accepted: 0 };
    this.nfe = 0;
    this.denoised = new Set(); // starts of the blocks that were denoised
    this.finish = null;
    this.stop = null; // where a stop string begins and ends
    this.closed = null; // what the server said of a finished lane: tokens, text, peak_memory, marks
    this.note = ""; // how another engine decodes in this lane
    this.ceiling = null; // of a diffusion lane, once it was asked for
    this.seen = { k: -1, cells: [], rejected: null };
  }

  get forwards() {
    return this.events.length ? this.events[this.events.length - 1].forward : 0;
  }

  get milliseconds() {
    return this.events.length ? this.events[this.events.length - 1].clock : 0;
  }

  add(raw) {
    const k = this.events.length;
    const common = { k, forward: raw.forward, phase: raw.phase };
    const positions = raw.positions.map((position) => Object.freeze({ ...position, ...common }));
    const event = new LaneEvent(this, { raw, k, forward: raw.forward, phase: raw.phase, clock: raw.clock_ms, start: raw.start, length: raw.length, positions });
    this.events.push(event);
    this.gains.push(0);
    this.apply(this.tip, event, true);
    while (this.scanned < this.tip.cells.length && isKept(this.tip.cells[this.scanned])) this.scanned += 1;
    while (this.holes.first < this.scanned && isKept(this.tip.cells[this.holes.first])) this.holes.drop();
    this.prefix = Math.min(this.scanned, this.holes.first ?? Infinity);
    if (event.phase === "denoise") this.blocks.add(event.start);
    event.block = this.blocks.size;
    if (event.phase === "verify") {
      this.cycles += 1;
      event.gained = positions.filter((p) => p.state === "accepted" || p.state === "corrected" || p.state === "bonus").length;
      this.cycleTokens += event.gained;
      const { drafts, accepted } = event.outcome;
      this.outcomes.drafts += drafts;
      this.outcomes.accepted += accepted;
    }
    event.nfe = this.counted(event, raw.finish);
    event.prefix = this.prefix;
    event.cycle = this.cycles;
    event.cycleTokens = this.cycleTokens;
    // A copy costs what is there: of many places and few changes there are few.
    this.since += 1 + positions.length;
    const last = this.keyframes[this.keyframes.length - 1];
    if (!last || (k - last.k >= KEYFRAME && this.since >= this.tip.cells.length)) {
      this.keyframes.push({ k, cells: this.tip.cells.slice() });
      this.since = 0;
    }
    if (raw.finish) this.finish = raw.finish;
    if (raw.stop) this.stop = raw.stop;
  }

  /** What the released code counts up to an event, as `nemodiff.trace.Lane.nfe` does; null for a lane of another engine,
   * or where no prefill tells how it was made. */
  counted(event, finish) {
    if (this.note || this.events[0].phase !== "prefill") return null;
    if (this.mode === "ar") return this.kept;
    if (event.phase === "denoise") {
      this.nfe += this.denoised.has(event.start) ? 1 : 2;
      this.denoised.add(event.start);
    } else if (this.mode === "diffusion") {
      this.nfe += finish === "eos" ? 2 : 0; // a block whose seed is an EOS
    } else {
      this.nfe += 1; // the prefill, a draft or a verify
    }
    return this.nfe;
  }

  apply(state, event, counting = false) {
    state.k = event.k;
    state.rejected = null;
    if (replacesDrafts(event)) dropTransient(state.cells, event);
    for (const position of event.positions) {
      if (position.state === "rejected") {
        state.rejected = position;
        continue;
      }
      if (counting) this.count(position, event.k);
      if (counting && !KEPT.has(position.state) && position.index < this.scanned && isKept(state.cells[position.index])) this.holes.add(position.index);
      state.cells[position.index] = position;
    }
  }

  count({ index, state }, k) {
    const since = this.standing.get(index);
    if (KEPT.has(state) && since === undefined) {
      this.standing.set(index, k);
      this.gains[k] += 1;
    } else if (!KEPT.has(state) && since !== undefined) {
      // Thrown away after all, as behind an EOS: it never was final.
      this.standing.delete(index);
      this.gains[since] -= 1;
      this.totals.length = Math.min(this.totals.length, since);
    }
  }

  get kept() {
    return this.standing.size;
  }

  /** Final tokens after event k. */
  keptAt(k) {
    for (let i = this.totals.length; i <= k; i++) this.totals.push((this.totals[i - 1] || 0) + this.gains[i]);
    return this.totals[k];
  }

  /** The lane after event k (-1: before the first). The object is reused: read it at once. */
  at(k) {
    const state = this.seen;
    if (k < state.k || k - state.k > KEYFRAME) {
      const frame = this.keyframes[before(this.keyframes, "k", k)];
      if (k < state.k || (frame && frame.k > state.k)) {
        state.cells = frame ? frame.cells.slice() : [];
        state.k = frame ? frame.k : -1;
        state.rejected = (frame && this.events[frame.k].positions.find((p) => p.state === "rejected")) || null;
      }
    }
    while (state.k < k) this.apply(state, this.events[state.k + 1]);
    return state;
  }

  /** Index of the last event at or before a place on a clock. */
  find(clock, cursor) {
    return before(this.events, clock === "seconds" ? "clock" : "forward", cursor);
  }

  get answer() {
    return this.closed?.tokens || this.tip.cells.slice(0, this.prefix).map((cell) => cell.token);
  }
}

/** Index of the last of `items`, sorted by `key`, that is at most `limit`; -1 where none is. */
function before(items, key, limit) {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (items[middle][key] <= limit) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Whether drafts that an event leaves over are gone: it drafted others, alone or beside verifying, or the answer
 * is over. Else the next forward goes on with them. */
const replacesDrafts = (event) => event.phase === "draft" || (event.raw.rows != null && (Boolean(event.raw.finish) || event.positions.some((p) => p.state === "drafted")));

const isKept = (cell) => cell !== undefined && KEPT.has(cell.state);

function dropTransient(cells, event) {
  const first = event.positions.length ? event.positions[0].index : event.start;
  for (let i = cells.length - 1; i >= first && cells[i] && TRANSIENT.has(cells[i].state); i--) cells.length = i;
}

class Log {
  constructor(head, kind) {
    this.head = head;
    this.kind = kind; // live, recorded or replay
    this.run = null; // the server's name of a live run
    this.pictures = []; // previews of the prompt's pictures, in a trace only where `keeps` is on
    this.keeps = false;
    this.table = new TokenTable();
    this.lanes = new Map();
    this.seq = 0;
    this.gaps = 0;
    this.ended = false;
    const asked = head.request?.modes || [];
    for (const mode of MODES) if (asked.includes(mode)) this.lanes.set(mode, new Lane(mode));
  }

  add(wire) {
    if (wire.q <= this.seq) return;
    if (wire.q > this.seq + 1) this.gaps += 1;
    this.seq = wire.q;
    if (!this.lanes.has(wire.mode)) this.lanes.set(wire.mode, new Lane(wire.mode));
    this.lanes.get(wire.mode).add(wire);
    if (wire.image_ms !== undefined) this.head.image_ms = wire.image_ms;
  }

  close(lanes) {
    for (const [mode, closed] of Object.entries(lanes || {})) {
      const lane = this.lanes.get(mode);
      if (!lane) continue;
      lane.closed = { ...lane.closed, ...closed };
      lane.finish = closed.finish || lane.finish;
    }
  }

  /** marks: by mode, whether the answers hold; no trace says that. */
  static fromTrace(trace, kind, marks = {}) {
    const { lanes, tokens, byte_pieces, special, ...head } = trace;
    const log = new Log(head, kind);
    log.pictures = head.image_previews || [];
    log.lanes.clear();
    log.table.add(tokens, byte_pieces, special);
    for (const mode of MODES) {
      const lane = lanes.find((one) => one.mode === mode);
      if (!lane) continue;
      log.lanes.set(mode, new Lane(mode));
      log.lanes.get(mode).note = lane.note || "";
      for (const event of lane.events) log.lanes.get(mode).add(event);
      log.lanes.get(mode).ceiling = lane.ceiling || null;
      log.close({ [mode]: { tokens: lane.tokens, text: lane.text, finish: lane.finish, peak_memory: lane.peak_memory, marks: marks[mode] } });
    }
    log.ended = true;
    return log;
  }

  /** The run as a nemodiff.trace/1 object. */
  toTrace() {
    const lanes = Array.from(this.lanes.values(), (lane) => {
      const tokens = lane.answer;
      const data = {
        mode: lane.mode,
        events: lane.events.map(({ raw: { q, mode, ...event } }) => event),
        tokens,
        text: lane.closed?.text ?? answerOf(this, lane),
        finish: lane.finish,
        seconds: lane.milliseconds / 1000,
      };
      if (lane.closed?.peak_memory != null) data.peak_memory = lane.closed.peak_memory;
      if (lane.ceiling) data.ceiling = lane.ceiling;
      if (lane.note) data.note = lane.note;
      return data;
    });
    const kept = this.keeps && this.pictures.length ? { image_previews: this.pictures } : {};
    return { ...this.head, ...kept, ...this.table.toJSON(), lanes };
  }

  /** Whether the run carries measured times: an opened trajectory has none. */
  get timed() {
    return this.kind === "live" || Array.from(this.lanes.values()).some((lane) => lane.milliseconds > 0);
  }

  total(clock) {
    const lanes = Array.from(this.lanes.values());
    return Math.max(0, ...lanes.map((lane) => (clock === "seconds" ? Math.ceil(lane.milliseconds) : lane.forwards)));
  }

  /** How a lane's tokens compare with AR's: the first index that differs, and how many could be compared. */
  compare(mode) {
    const ar = this.lanes.get("ar");
    const lane = this.lanes.get(mode);
    if (!ar || !lane || mode === "ar") return null;
    const a = ar.answer;
    const b = lane.answer;
    const whole = [ar, lane].every((one) => ["eos", "stop", "length"].includes(one.finish));
    const n = Math.min(a.length, b.length);
    for (let i = 0; i < n; i++) if (a[i] !== b[i]) return { first: i, n, whole };
    return { first: whole && a.length !== b.length ? n : null, n, whole };
  }
}
