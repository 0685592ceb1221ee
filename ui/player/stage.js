// The stage: takes what the server sends (or a whole trace), keeps the log, draws the lanes.

const REST = 100; // ms

/** hooks.resync(run) → promise of a full payload of a live run; hooks.ended(ticket, how): what was asked for has ended; hooks.open() → ask the viewer for a trace file; hooks.stop() → stop the run;
 * hooks.make(kind, trace) → promise of {blob, ending} or {error}, of the kinds in hooks.formats; hooks.branch: see Inspector; hooks.light: see Light; hooks.askOn: see AskOn. All may be
 * missing: a stage needs no server. Returns {ingest, seek, expect, wait, unwait, stopping, lost, found, fail, kept, transport, log}. */
function mount(root, hooks = {}) {
  let log = null;
  let run = null;
  let asked = null; // the ticket that the viewer waits for: what other tickets send opens nothing
  let frame = 0;
  let rest = 0;
  let earlier = []; // logs of the runs that this one branched from, oldest first
  const finished = new Set(); // runs whose end was shown
  const views = new Map();
  for (const lane of root.querySelectorAll("[data-lane]")) views.set(lane.dataset.lane, new LaneView(lane, lane.dataset.lane, schedule));
  const message = root.querySelector(".message");
  const announce = root.querySelector(".announce");
  const transport = new Transport(root, schedule);
  const tooltip = new Tooltip(root, () => log);
  const attention = new AttentionView(root, schedule);
  const solo = new Solo(root, schedule);
  new Copying(root, views, () => log, (text) => setText(announce, text));
  const askOn = new AskOn(views, () => log, hooks.askOn, (text) => say(text));
  const before = new Before(root);
  const light = new Light(root, hooks, schedule);
  const pictures = new Pictures(root);
  const summary = new Summary(root);
  const race = new Race(root);
  const inspector = new Inspector(root, hooks, seek, () => {
    tooltip.hide();
    schedule();
  });
  root.querySelector('[data-do="save"]').addEventListener("click", save);
  root.querySelector(".lanes").addEventListener("click", (event) => {
    const row = event.target.closest(".history [data-k]");
    if (row) seek(row.closest("[data-lane]").dataset.lane, Number(row.dataset.k));
  });
  root.querySelector('[data-do="return"]').addEventListener("click", () => {
    drop();
    const back = earlier.pop();
    open(back, back.kind === "live" ? "done" : "replay", { at: back.place });
    root.focus();
  });
  // Where the form is out of view, a run can be stopped here.
  const halt = root.querySelector('[data-do="halt"]');
  halt.hidden = !hooks.stop;
  halt.addEventListener("click", () => hooks.stop());
  const opener = root.querySelector('[data-do="open"]');
  opener.hidden = !hooks.open;
  opener.addEventListener("click", () => hooks.open?.());
  for (const maker of root.querySelectorAll("[data-make]")) {
    maker.hidden = !hooks.formats?.includes(maker.dataset.make);
    maker.addEventListener("click", () => makeFile(maker));
  }
  for (const taker of root.querySelectorAll("[data-text]")) taker.addEventListener("click", () => takeText(taker.dataset.text));
  const menu = new Menu(root.querySelector(".away"));

  function schedule() {
    if (!frame) frame = requestAnimationFrame(paint);
  }

  function paint() {
    frame = 0;
    transport.paint();
    light.paint(transport.clock);
    summary.paint(log, transport);
    if (!log) return;
    pictures.paint();
    const cursor = transport.cursor;
    const clock = transport.clock;
    const ar = log.lanes.get("ar");
    const settings = {
      clock,
      cursor: Math.floor(cursor),
      arEvent: ar ? ar.find(clock, cursor) : -1,
    };
    for (const [mode, view] of views) {
      const lane = log.lanes.get(mode);
      view.root.hidden = !lane || solo.hides(mode);
      if (lane) view.paint(log, lane, lane.find(clock, cursor), settings);
    }
    askOn.paint();
    race.paint(log, (lane) => lane.find(clock, cursor), (mode) => solo.hides(mode));
    attention.paint(log, (lane) => lane.find(clock, cursor), (mode) => solo.hides(mode));
    inspector.paint(log, (lane) => lane.find(clock, cursor));
    // From here on layout is read, after everything was written: once a frame.
    for (const [mode, view] of views) {
      const lane = log.lanes.get(mode);
      if (lane && !view.root.hidden) view.settle(lane, lane.find(clock, cursor));
    }
    tooltip.refresh();
    clearTimeout(rest);
    if (Array.from(views.values()).some((view) => view.partial)) rest = setTimeout(complete, REST);
  }

  /** What a jump left out of view is drawn once no other jump follows. */
  function complete() {
    if (Array.from(views.values(), (view) => view.complete()).includes(true)) schedule();
  }

  function open(next, state, options) {
    log = next;
    inspector.unpin();
    for (const [mode, view] of views) {
      view.clear();
      view.explain(log.lanes.get(mode)?.note);
    }
    views.get("self-speculation").strip.style.height = stripHeight(log.head.request);
    solo.open(log);
    race.lanes.scrollTo({ left: 0, behavior: "instant" });
    light.open(log);
    pictures.open(log);
    before.open(log.head);
    setData(root, "state", state);
    say("");
    describe();
    transport.open(log, options);
  }

  function describe() {
    const head = log.head;
    const badge = root.querySelector(".badge");
    const recorded = head.recorded || (log.kind === "live" ? "" : "date unknown");
    badge.hidden = log.kind === "live";
    setText(badge, log.kind === "live" ? "" : ["Recorded run", head.device, recorded].filter(Boolean).join(" · "));
    const prompt = root.querySelector(".prompt");
    setText(prompt, promptOf(head.request));
    prompt.title = prompt.textContent;
    const where = [head.checkpoint, log.kind === "live" ? head.device : "", head.dtype, exactness(head), ...settingsOf(head.request)];
    setText(root.querySelector(".where"), where.filter(Boolean).join(" · "));
    menu.busy("");
    const given = head.request?.answer_ids || [];
    const line = root.querySelector(".given");
    line.hidden = !given.length;
    setText(line.querySelector(".t"), log.table.join(given.slice(-SHOWN)).join(""));
    line.querySelector("button").hidden = !earlier.length;
  }

  function say(text) {
    setText(message, text);
    message.hidden = !text;
    setData(root, "waiting", null);
    setData(root, "notice", null);
  }

  function fail(text) {
    setData(root, "state", "error");
    say(text);
  }

  function ingest(text) {
    const data = typeof text === "string" ? JSON.parse(text) : text;
    if (data.light) {
      light.take(data.light);
      return;
    }
    if (data.ticket && data.ticket !== asked && (!data.run || data.run !== run)) return; // was stopped, or given up
    if (data.wait) {
      if (!root.dataset.notice) wait(data.wait, data.ahead); // what is being stopped waits for nothing
      return;
    }
    if (data.trace) {
      if (data.kind !== "recorded") drop();
      run = data.run || null;
      earlier = [];
      open(Log.fromTrace(data.trace, data.kind || "replay", data.marks), "replay", { play: true });
      setData(root, "gaps", 0);
      return;
    }
    if (data.full && finished.has(data.run)) return;
    if (data.run !== undefined && (data.run !== run || data.full)) begin(data);
    if (data.ev && log) take(data);
    if (!data.error) return;
    if (data.end && log) log.error = data.error;
    fail(data.error);
    if (data.ticket || data.end) hooks.ended?.(data.ticket || log.ticket, "failed");
  }

  /** What was asked for is not waited for any more: something else is on the stage. */
  function drop() {
    hooks.ended?.(asked, "dropped");
    [asked, run] = [null, null];
  }

  function begin(data) {
    if (!data.head) {
      // The head was lost: everything is asked for again.
      if (!data.full) recover(data.run);
      return;
    }
    if (!data.head.request?.answer_ids?.length) earlier = [];
    else if (log && data.run !== run) {
      log.place = { clock: transport.clock, cursor: transport.cursor };
      earlier.push(log);
    }
    run = data.run;
    const follow = !data.full || transport.follow || root.dataset.state !== "live";
    const today = new Date(Date.now() - new Date().getTimezoneOffset() * 60_000).toISOString().slice(0, 10);
    const next = new Log({ ...data.head, recorded: data.head.recorded || today }, "live"); // for whoever replays it
    next.run = run;
    next.ticket = data.ticket || asked;
    next.pictures = data.pictures || [];
    next.table.add(data.tokens, data.byte_pieces, data.special);
    open(next, "live", { follow });
  }

  function take(data) {
    if (data.run !== run) return;
    log.table.add(data.tokens, data.byte_pieces, data.special);
    for (const event of data.ev) log.add(event);
    log.close(data.lanes);
    setData(root, "gaps", log.gaps);
    transport.grown();
    if (data.end && !log.ended) {
      if ((log.gaps || log.seq < data.end.events) && !data.full) recover(run);
      else finish(data.end);
    }
  }

  function finish(end) {
    for (const [mode, reason] of Object.entries(end.finish || {})) log.close({ [mode]: { finish: reason } });
    log.ended = true;
    log.end = end;
    finished.add(run);
    transport.ended();
    setData(root, "state", "done");
    if (root.dataset.notice) say("");
    const parts = Array.from(log.lanes.values(), (lane) => [`${lane.mode} ${plural(lane.kept, "token")} in ${plural(lane.forwards, "forward")} after the prefill, ${seconds(lane.milliseconds)}`, faultOf(lane)].filter(Boolean).join(", but "));
    const verdict = log.lanes.size > 1 ? verdictOf(log).map(({ text }) => ` ${text}`) : [];
    setText(announce, `Run finished: ${parts.join("; ")}.${verdict.join("")}`);
    hooks.ended?.(log.ticket, "ended");
  }

  function recover(lost) {
    if (!hooks.resync || !lost) return;
    Promise.resolve(hooks.resync(lost)).then((text) => text && ingest(text), (error) => console.error(error));
  }

  function save() {
    if (log) download(new Blob([JSON.stringify(log.toTrace())], { type: "application/json" }), "trace.json");
  }

  async function takeText(kind) {
    if (!log) return;
    if (kind === "txt") return download(new Blob([plainOf(log)], { type: "text/plain" }), "txt");
    if (kind === "md") return download(new Blob([markdownOf(log)], { type: "text/markdown" }), "md");
    const copied = await toClipboard(markdownOf(log));
    if (copied) menu.tell("Copied");
    else say("The browser did not let the page copy: take the Markdown file instead.");
    setText(announce, copied ? "All answers and their figures were copied as Markdown." : "");
  }

  function download(blob, ending) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `nemodiff-${log.head.checkpoint.replace(/[^\w.-]+/g, "-").slice(0, 40)}.${ending}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  /** A file that the server makes of the trace on the page; the menu's button waits for it. */
  async function makeFile(item) {
    if (!log) return;
    const name = item.querySelector("b").textContent;
    menu.busy(`Making ${name}…`);
    setText(announce, `${name} is being made.`);
    try {
      const file = await hooks.make(item.dataset.make, JSON.stringify(log.toTrace()));
      if (file.error) say(file.error);
      else download(file.blob, file.ending);
      setText(announce, file.error ? "" : `${name} was saved.`);
    } catch (error) {
      console.error(error);
      say("The file could not be made; try again.");
    } finally {
      menu.busy("");
    }
  }

  /** Between Generate and the first forward: the earlier run stays, one line says what is going on. ahead: how many runs come first. */
  function wait(text, ahead = "") {
    if (root.dataset.state === "live" || root.dataset.state === "lost") return;
    if (root.dataset.state === "error") setData(root, "state", log ? (log.kind === "live" ? "done" : "replay") : "idle");
    say(text);
    setData(root, "waiting", ahead);
  }

  /** A ticket was asked for: only what it sends is shown from here on, and the rest of the run that is on the stage. */
  function expect(ticket, text) {
    asked = ticket;
    light.halt();
    wait(text);
  }

  /** Stop was pressed: a run that only waited leaves its line. */
  function unwait() {
    light.halt();
    asked = log?.ticket || null;
    if ("waiting" in root.dataset) say("");
  }

  /** A line about a run that goes on, until it has ended. */
  function notice(text) {
    say(text);
    setData(root, "notice", text ? "yes" : null);
  }

  function stopping() {
    light.halt();
    notice("Stopping after this forward…");
  }

  /** The server says nothing: what goes on there is not known. */
  function lost(text) {
    if (root.dataset.state === "live") setData(root, "state", "lost");
    if (root.dataset.state === "lost") notice(text);
    else wait(text);
  }

  /** It speaks again, or answers by other ways: text says so while the run goes on. */
  function found(text = "") {
    if (root.dataset.state !== "lost" && root.dataset.state !== "live") return;
    setData(root, "state", "live");
    if ((message.textContent || "") !== text) notice(text);
  }

  /** The rest of the run will not come: what came of it stays. */
  function give(text) {
    if (log && !log.ended && log.kind === "live") {
      log.ended = true;
      transport.ended();
    }
    fail(text);
  }

  /** The run on the stage as the server would send it, for a page that is opened anew; null where there is none. */
  function kept() {
    if (log?.kind !== "live") return null;
    const lanes = Array.from(log.lanes.values());
    const ev = lanes.flatMap((lane) => lane.events.map((event) => event.raw)).sort((a, b) => a.q - b.q);
    const { tokens = {}, byte_pieces = {}, special = [] } = log.table.toJSON();
    const closed = Object.fromEntries(lanes.filter((lane) => lane.closed).map((lane) => [lane.mode, lane.closed]));
    const end = log.end ? { end: log.end, error: log.error } : {};
    return { run: log.run, ticket: log.ticket, full: true, ev, head: log.head, special, tokens, byte_pieces, pictures: log.pictures, lanes: closed, ...end };
  }

  /** Move the cursor to a lane's event, as a chart's point names it. */
  function seek(mode, k) {
    const event = log?.lanes.get(mode)?.events[k];
    if (event) transport.seek(transport.clock === "seconds" ? Math.ceil(event.clock) : event.forward);
  }

  root.trace = () => (log ? JSON.stringify(log.toTrace()) : "");
  schedule();
  return { ingest, seek, expect, wait, unwait, stopping, lost, found, give, fail, kept, transport, get log() { return log; } };
}

/** Whether rows come out the same whatever travels with them; "" where nobody checked, as in a trajectory. */
function exactness({ exact }) {
  return exact === true ? "exact" : exact === false ? "fast, inexact" : "";
}

function promptOf(request) {
  if (!request) return "";
  if (request.prompt) return request.prompt;
  return request.prompt_ids ? `${request.prompt_ids.length} token ids` : "";
}

function settingsOf(request) {
  if (!request) return [];
  const parts = [];
  if (request.block_length) parts.push(`block ${request.block_length}`);
  if (request.sampler === "fixed") parts.push(`${request.steps || "fixed"} steps per block`);
  else if (request.sampler === "entropy") parts.push(`entropy ≤ ${request.entropy_bound}`);
  else if (request.sampler === "trained") parts.push("trained sampler", ...(request.threshold != null ? [`score ≥ ${Number(request.threshold).toFixed(2)}`] : []));
  else if (request.threshold != null) parts.push(`confidence ≥ ${Number(request.threshold).toFixed(2)}`);
  if (request.order === "leftmost" && request.modes?.includes("diffusion")) parts.push("from the left");
  if (request.draft === "tree" && request.modes?.includes("self-speculation")) {
    parts.push(request.rows ? `tree drafts, ${request.rows} rows` : "tree drafts");
  }
  if (request.draft === "quadratic" && request.modes?.includes("self-speculation")) {
    parts.push("quadratic drafts");
    if (request.ar_weight < 1) parts.push(`verifier ${Number(request.ar_weight).toFixed(2)} AR`);
  }
  if (request.draft_head && request.modes?.includes("self-speculation")) parts.push("draft head");
  if (request.stop?.length) parts.push(`stops at ${request.stop.map((one) => `“${seen(String(one)).replace(/[\n\t]/g, glyphs)}”`).join(" or ")}`);
  if (request.temperature != null) parts.push(`temperature ${request.temperature}`);
  if (request.temperature > 0) parts.push(`seed ${request.seed}`);
  if (request.temperature > 0 && request.acceptance === "sampling") parts.push("speculative sampling");
  return parts;
}
