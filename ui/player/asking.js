// What a visitor asks for, from the press to its end: a ticket with a name of its own, which is what Stop stops, what the
// stage waits for, and what is asked for again when the connection broke or the page was loaded anew.

const SILENCE = 7_000; // ms: the server speaks every second to whoever waits or watches
const SOON = 2_500; // ms that it is given when the page is shown again or the network is back
const AGAIN = 1_000; // ms between two questions
const UNSETTLED = 60_000; // ms after which a press no longer waits for the page's own values
const SLOW = 60_000; // ms until a busy server has heard of what was sent
const ROOM = 2_000_000; // characters of a run that the browser keeps through a reload
const STORE = "nemodiff";
const SAYS = {
  silent: "No word from the server: asking for the rest of the run…",
  unreachable: "The connection to the server is lost. The rest is asked for as soon as it is back; what came so far stays here.",
  rest: "The connection broke: the rest of the run is being fetched.",
  gone: "The rest of this run was lost: the server no longer has it. What came is kept here, and “Take it away” saves it.",
  nothing: "The run was lost before its first token: the server was busy or the connection broke. Press Generate to ask again.",
  offline: "The run was given up, since the server cannot be reached. What came of it is kept here.",
  light: "lost with the connection",
};

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const newName = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

class Asking {
  /** server: the name of the server's process, another one after a restart. halt(names) sends what Stop stops. */
  constructor(stage, root, connection, server, halt) {
    [this.stage, this.root, this.connection, this.server, this.halt] = [stage, root, connection, server, halt];
    this.ticket = null; // {name, sent, stopped} of what is asked for and has not ended
    this.search = null; // the name of a search for a ceiling
    this.settled = this.held = false; // whether the page's own values have come; whether a press waits for them
    this.heard = 0; // when the server last said something
    this.ticked = performance.now();
    this.title = document.title;
    this.wake = () => {};
    this.listen();
    this.restore();
  }

  /** Whether a press of Generate has to wait for what goes on: until its end, or until Stop. */
  get busy() {
    return Boolean(this.ticket && !this.ticket.stopped);
  }

  /** The page's own values have come (a link's, the checkpoint's): a press that waited for them goes on. */
  ready() {
    this.settled = true;
    if (!this.held) return;
    this.held = false;
    this.stage.unwait();
    setTimeout(() => document.querySelector("#generate").click()); // once the fields hold them
  }

  begin(text = "Waiting for the model…") {
    this.ticket = { name: newName(), sent: 0, stopped: false };
    this.heard = performance.now();
    this.stage.expect(this.ticket.name, text);
    return this.ticket;
  }

  /** The last of the inputs of Generate: the ticket, and where the picture's upload lies. */
  async send() {
    const ticket = this.ticket && !this.ticket.sent && !this.ticket.stopped ? this.ticket : this.begin();
    ticket.loading = true;
    const path = (await document.querySelector("#picture")?.path) || "";
    ticket.loading = false;
    if (ticket.stopped) throw new Error("stopped before it was sent");
    return this.sent(ticket, path);
  }

  sent(ticket, value) {
    ticket.sent = this.heard = performance.now();
    return `${ticket.name}\n${value}`;
  }

  /** What a branch is asked for with; null while another one is waited for. */
  branch(value) {
    if (this.busy && this.ticket.name !== this.stage.log?.ticket) return null;
    return this.sent(this.begin("Waiting for the model to branch…"), value);
  }

  light(value) {
    this.search = newName();
    return `${this.search}\n${value}`;
  }

  /** Stop was pressed. */
  stop() {
    const { log } = this.stage;
    const running = ["live", "lost"].includes(this.root.dataset.state);
    this.held = false;
    const names = [this.ticket?.name, this.search, running ? log.ticket || log.run : null].filter(Boolean);
    if (names.length) this.halt(JSON.stringify(names));
    this.search = null;
    const lost = this.root.dataset.state === "lost";
    // Nobody comes first, so the model reads the prompt: what it says when it has stopped is waited for.
    const reads = this.ticket?.heard && this.root.dataset.waiting === "" && !running;
    if (reads) {
      this.ticket.stopped = true;
      this.stage.stopping();
      return;
    }
    this.stage.unwait();
    if (lost) {
      this.connection.cut(QUIET);
      this.ticket = null;
      this.stage.give(SAYS.offline);
    } else if (running) {
      if (this.ticket?.name !== log.ticket) this.ticket = { name: log.ticket, sent: performance.now() };
      this.ticket.stopped = true;
      this.stage.stopping();
    } else if (this.ticket) {
      this.ticket.stopped = true;
      this.ticket = null;
    }
  }

  /** The stage says how a ticket ended: ended, failed, or dropped for something else. */
  ended(name, how) {
    if (this.ticket?.name === name) this.ticket = null;
    else if (this.ticket && !this.ticket.stopped && how === "ended") this.stage.wait("Waiting for the model…");
    if (document.hidden && how !== "dropped") document.title = `${how === "ended" ? "Run ended" : "Run failed"} · ${this.title}`;
  }

  /** A message came by Gradio's stream. */
  hear() {
    this.heard = performance.now();
    if (this.ticket?.sent) this.ticket.heard = this.heard;
  }

  /** Gradio says that something which it asked for failed, or that its stream ended too early. */
  failed() {
    if (this.search && this.root.dataset.light === "going") {
      this.search = null;
      this.stage.ingest({ light: { id: asks, error: SAYS.light } });
    }
    if (this.ticket?.sent) this.recover();
  }

  tick() {
    const now = performance.now();
    const slept = now - this.ticked > 4 * AGAIN; // the machine did, or the tab: what was sent meanwhile is read first
    this.ticked = now;
    if (slept) return this.woken();
    this.connection.cut(HUSH);
    const { ticket } = this;
    if (!ticket || ticket.loading || performance.now() - this.heard < SILENCE) return;
    this.recover(SAYS.silent);
  }

  /** The page is shown again, or the network is back: whoever is waited for has to speak soon. */
  soon() {
    this.wake();
    if (this.ticket) this.heard = Math.min(this.heard, performance.now() - SILENCE + SOON);
    this.connection.spare(SOON);
  }

  /** The network was away, or the page was: its connections may be dead. */
  woken() {
    this.connection.tryAll();
    this.soon();
  }

  /** Ask for what was missed until it has all come, the stream speaks again, or it is known to be lost. */
  async recover(text) {
    if (this.recovering) return;
    this.recovering = true;
    const { ticket, heard } = this;
    if (text) this.stage.lost(text);
    try {
      while (this.ticket === ticket) {
        const log = this.stage.log?.ticket === ticket.name ? this.stage.log : null;
        const answer = await this.connection.ask(ticket.name, log && !log.gaps ? log.seq : 0);
        if (this.ticket !== ticket) return;
        if (this.heard > heard && this.connection.streams.size) return this.stage.found();
        if (!answer) {
          this.stage.lost(SAYS.unreachable);
          await Promise.race([pause(AGAIN), new Promise((resolve) => (this.wake = resolve))]);
          continue;
        }
        this.connection.cut(QUIET);
        const young = ticket.heard === undefined && performance.now() - ticket.sent < SLOW;
        if (answer.gone && young && (this.connection.streams.size || this.connection.sending)) {
          await pause(AGAIN);
          continue;
        }
        if (answer.gone) return this.give(ticket, answer.gone);
        this.stage.ingest({ ...answer, ticket: ticket.name });
        if (this.ticket !== ticket) return;
        this.stage.found(SAYS.rest);
        await pause(AGAIN);
      }
    } finally {
      this.recovering = false;
    }
  }

  give(ticket, server) {
    const some = this.stage.log?.ticket === ticket.name;
    if (server !== this.server && !ticket.anew) {
      // Another process, perhaps of another version: the page belongs to it from here on.
      this.keep();
      location.reload();
      return;
    }
    this.ticket = null;
    this.stage.give(some ? SAYS.gone : SAYS.nothing);
    this.ended(ticket.name, "failed");
  }

  /** Prompt, settings and run, for the page that is loaded next in this tab. */
  keep() {
    const { ticket } = this;
    const { fields, kept } = window.nemodiff || {};
    const data = { search: location.search, fields: fields || kept?.fields, picture: document.querySelector("#picture")?.path };
    if (typeof data.picture !== "string") delete data.picture;
    if (ticket?.sent) data.ticket = ticket.name;
    const run = this.stage.kept();
    const whole = JSON.stringify({ ...data, run });
    for (const text of [whole.length <= ROOM ? whole : null, JSON.stringify({ ...data, ticket: data.ticket || run?.ticket })]) {
      try {
        if (text) return sessionStorage.setItem(STORE, text);
      } catch {
        // no room for it: the next one is small
      }
    }
  }

  restore() {
    let data = null;
    try {
      data = JSON.parse(sessionStorage.getItem(STORE));
    } catch {
      return;
    }
    if (!data || data.search !== location.search) return;
    (window.nemodiff ||= {}).kept = data;
    if (data.picture) document.querySelector("#picture")?.restore?.(data.picture);
    const name = data.ticket || (data.run && !data.run.end ? data.run.ticket || data.run.run : null);
    if (data.run) {
      this.stage.expect(data.run.ticket || null, "");
      this.stage.ingest(data.run);
    }
    if (!name) return this.stage.unwait();
    this.ticket = { name, sent: performance.now(), stopped: false, anew: true };
    if (data.run?.ticket !== name) this.stage.expect(name, "Looking for the run that was asked for…");
    this.recover();
  }

  listen() {
    const press = (event) => {
      if (this.settled && !this.busy) return this.begin();
      event.preventDefault();
      event.stopImmediatePropagation();
      if (this.settled || this.busy) return;
      this.held = true;
      this.stage.wait("The page is still loading: the run begins with its settings…");
    };
    // Before Gradio hears of it: one run at a time is asked for, and the stage waits for no press that Gradio drops.
    document.addEventListener("click", (event) => {
      if (event.target.closest?.("#generate")) press(event);
      if (event.target.closest?.("#stop")) this.stop();
    }, true);
    document.addEventListener("keydown", (event) => {
      const sends = event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target.matches?.("#prompt textarea");
      if (sends && (this.busy || !this.settled)) press(event);
    }, true);
    setInterval(() => this.tick(), AGAIN);
    setTimeout(() => this.ready(), UNSETTLED);
    window.addEventListener("online", () => this.woken());
    window.addEventListener("pageshow", (event) => event.persisted && this.woken());
    window.addEventListener("pagehide", () => this.keep());
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return this.keep();
      document.title = this.title;
      this.soon();
    });
  }
}
