// Where the viewer is in the run, and how fast it plays. Forwards: every lane advances one forward a tick.
// Seconds: the cursor runs over measured model time, so lanes advance as fast as they really were.

const FORWARDS_A_SECOND = 10;

class Transport {
  constructor(root, onChange) {
    this.root = root;
    this.onChange = onChange;
    this.log = null;
    this.clock = "forwards";
    this.cursor = 0;
    this.speed = 1;
    this.playing = false;
    this.follow = false; // live: stay with the newest event
    this.calm = window.matchMedia("(prefers-reduced-motion: reduce)");
    this.scrub = root.querySelector(".scrub");
    this.playhead = root.querySelector(".playhead");
    this.listen();
  }

  get total() {
    return this.log ? this.log.total(this.clock) : 0;
  }

  listen() {
    const actions = {
      start: () => this.seek(0),
      back: () => this.step(-1),
      play: () => this.toggle(),
      next: () => this.step(1),
      end: () => this.seek(this.total, true),
    };
    for (const button of this.root.querySelectorAll("[data-do]")) {
      const action = actions[button.dataset.do];
      if (action) button.addEventListener("click", action);
    }
    for (const button of this.root.querySelectorAll("[data-clock]"))
      button.addEventListener("click", () => this.switchClock(button.dataset.clock));
    this.root.querySelector(".speed").addEventListener("change", (event) => (this.speed = Number(event.target.value)));
    this.scrub.addEventListener("input", () => this.seek(Number(this.scrub.value)));
    this.root.addEventListener("keydown", (event) => this.key(event, actions));
  }

  key(event, actions) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, .cycle")) return; // they have uses of their own for the keys
    if (event.key === " " && event.target.matches("button, summary")) return;
    const token = event.target.closest(".text .t");
    if (token && (event.key === "ArrowLeft" || event.key === "ArrowRight")) {
      // With a token in focus the arrows walk over the tokens.
      const tokens = Array.from(token.closest(".text").querySelectorAll(".t[data-index]:not([data-folded])"));
      const next = tokens[tokens.indexOf(token) + (event.key === "ArrowLeft" ? -1 : 1)];
      if (next) {
        token.tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      }
      event.preventDefault();
      return;
    }
    const name = { " ": "play", ArrowLeft: "back", ArrowRight: "next", Home: "start", End: "end" }[event.key];
    if (!name) return;
    event.preventDefault();
    actions[name]();
  }

  /** Take another run. */
  open(log, { at = null, play = false, follow = false } = {}) {
    this.log = log;
    this.follow = follow;
    if (!log.timed && this.clock === "seconds") this.clock = "forwards";
    this.cursor = follow ? this.total : 0;
    if (at) this.cursor = at.clock === this.clock ? Math.min(at.cursor, this.total) : this.total;
    this.setPlaying(false);
    if (play && !this.calm.matches) this.play();
    else if (play) this.cursor = this.total;
    this.onChange();
  }

  /** The log grew. */
  grown() {
    if (this.follow) this.cursor = this.total;
    this.onChange();
  }

  /** No more events will come: stay where the viewer is. */
  ended() {
    this.follow = false;
    this.onChange();
  }

  seek(cursor, follow = false) {
    this.setPlaying(false);
    this.cursor = Math.max(0, Math.min(this.total, cursor));
    this.follow = !this.log?.ended && follow;
    this.onChange();
  }

  step(direction) {
    if (this.clock === "forwards") {
      this.seek(Math.round(this.cursor) + direction);
      return;
    }
    const stops = [];
    for (const lane of this.log?.lanes.values() || []) {
      const k = lane.find("seconds", this.cursor);
      const before = lane.events[k]?.clock === this.cursor ? k - 1 : k;
      const event = lane.events[direction > 0 ? k + 1 : before];
      if (event) stops.push(event.clock);
    }
    if (stops.length) this.seek(direction > 0 ? Math.min(...stops) : Math.max(...stops));
    else this.seek(direction > 0 ? this.total : 0);
  }

  toggle() {
    if (this.playing || this.follow) {
      this.follow = false;
      this.setPlaying(false);
      this.onChange();
    } else this.play();
  }

  play() {
    if (!this.log) return;
    if (this.cursor >= this.total) this.cursor = 0;
    this.follow = false;
    this.setPlaying(true);
    this.last = performance.now();
    const run = ++this.generation;
    const tick = (now) => {
      if (!this.playing || run !== this.generation || !this.root.isConnected) return;
      const passed = Math.max(0, Math.min(250, now - this.last)) * this.speed;
      this.last = now;
      this.cursor += this.clock === "seconds" ? passed : (passed / 1000) * FORWARDS_A_SECOND;
      if (this.cursor >= this.total) {
        this.cursor = this.total;
        if (this.log.ended) this.setPlaying(false);
        else {
          this.follow = true;
          this.setPlaying(false);
        }
      }
      this.onChange();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    this.onChange();
  }

  setPlaying(playing) {
    this.playing = playing;
    if (!playing) this.generation = (this.generation || 0) + 1;
  }

  /** The same run on the other clock, from its beginning; a live run stays where it is. */
  switchClock(clock) {
    if (clock === this.clock || (clock === "seconds" && this.log?.timed === false)) return;
    this.clock = clock;
    if (!this.log) this.cursor = 0;
    else if (this.follow || this.calm.matches) this.cursor = this.total;
    else {
      this.cursor = 0;
      if (this.log.ended) this.play();
    }
    this.onChange();
  }

  paint() {
    const total = this.total;
    const cursor = Math.min(total, this.cursor);
    const whole = this.clock === "seconds" ? Math.round(cursor) : Math.floor(cursor);
    setData(this.root, "cursor", whole);
    setData(this.root, "total", total);
    setData(this.root, "clock", this.clock);
    setData(this.root, "playing", this.playing || this.follow ? "yes" : "no");
    this.scrub.max = total;
    this.scrub.value = whole;
    // On the playhead alone: a property of the root would be inherited, and every token's style computed anew.
    this.playhead.style.setProperty("--at", total ? cursor / total : 0);
    const place = this.clock === "seconds" ? `${(cursor / 1000).toFixed(2)} of ${(total / 1000).toFixed(2)} s` : `forward ${whole} of ${total}`;
    setText(this.root.querySelector(".place"), place);
    this.scrub.setAttribute("aria-valuetext", place);
    const button = this.root.querySelector('[data-do="play"]');
    button.setAttribute("aria-label", this.playing || this.follow ? "Pause" : "Play");
    for (const one of this.root.querySelectorAll("[data-clock]")) one.setAttribute("aria-pressed", String(one.dataset.clock === this.clock));
    const timeless = this.log?.timed === false;
    const clock = this.root.querySelector('[data-clock="seconds"]');
    clock.disabled = timeless;
    setAttribute(clock, "title", timeless ? "This run carries no measured times" : null);
    for (const track of this.root.querySelectorAll(".track")) {
      const lane = this.log?.lanes.get(track.dataset.track);
      const length = lane ? (this.clock === "seconds" ? lane.milliseconds : lane.forwards) : 0;
      track.hidden = this.log !== null && !lane;
      track.style.setProperty("--length", total ? length / total : 0);
      track.style.setProperty("--done", total ? Math.min(length, cursor) / total : 0);
    }
  }
}
