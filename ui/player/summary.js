// The band above the lanes: what is seen at all, how the race goes, and at its end what it came to, in words. A lane
// that wrote something else than AR, or a wrong answer, is never told of by its speed alone.

const NAMES = { ar: "AR", diffusion: "Diffusion", "self-speculation": "Self-speculation" };
const ABOUT = "One model answers the same prompt in three ways. A forward is one pass through the model: the thing that costs time.";
const EVEN = 0.03; // a ratio that is as good as 1

class Summary {
  constructor(root) {
    this.node = root.querySelector(".summary");
    this.key = null;
  }

  paint(log, transport) {
    const key = log && [log.run, log.ended, log.kind, transport.clock, Math.floor(transport.cursor), transport.total].join("/");
    if (log === this.log && key === this.key) return;
    [this.log, this.key] = [log, key];
    const atEnd = log && transport.cursor >= transport.total;
    if (!log || !log.lanes.size || (transport.cursor <= 0 && transport.total)) this.show([{ text: ABOUT }]);
    else if (log.ended && atEnd) this.show(verdictOf(log));
    else this.show([{ text: standingsOf(log, transport) }]);
  }

  show(parts) {
    const nodes = parts.map(({ mode, tone, text }) => {
      const node = make("p", "", text);
      setData(node, "of", mode);
      setData(node, "tone", tone);
      return node;
    });
    this.node.replaceChildren(...nodes);
  }
}

/** How far each lane has come. */
function standingsOf(log, { clock, cursor }) {
  const after = clock === "seconds" ? seconds(cursor) : plural(Math.floor(cursor), "forward");
  const parts = Array.from(log.lanes.values(), (lane) => `${NAMES[lane.mode]} ${lane.events[lane.find(clock, cursor)]?.kept ?? 0}`);
  return `After ${after}, tokens: ${parts.join(" · ")}.`;
}

/** [{mode, tone, text}] of a run that has ended, the most telling first. tone: yes, no, or none. */
function verdictOf(log) {
  const lanes = Array.from(log.lanes.values()).filter((lane) => lane.events.length);
  const cut = lanes.find((lane) => lane.finish === "stopped" || lane.finish === "time");
  if (cut) {
    const parts = lanes.map((lane) => `${NAMES[lane.mode]} ${plural(lane.kept, "token")} in ${plural(lane.forwards, "forward")}`);
    return [{ text: `${cut.finish === "time" ? "The time limit ended the run" : "The run was stopped"} early: ${parts.join(" · ")}.` }];
  }
  const ar = log.lanes.get("ar");
  const others = lanes.filter((lane) => lane !== ar).reverse();
  if (!ar || !others.length || !ar.events.length) return lanes.map((lane) => ({ mode: lane.mode, ...ofItself(log, lane) }));
  const parts = others.map((lane) => ({ mode: lane.mode, ...besideAr(log, lane, ar) }));
  return faultOf(ar) ? [...parts, { mode: "ar", tone: "no", text: `AR's own answer does not hold: ${faultOf(ar)}.` }] : parts;
}

function ofItself(log, lane) {
  const name = NAMES[lane.mode];
  if (faultOf(lane)) return { tone: "no", text: `${name}'s answer does not hold: ${faultOf(lane)}.` };
  const time = log.timed ? `, ${seconds(lane.milliseconds)} of model time` : "";
  const each = lane.forwards ? `: ${(lane.kept / lane.forwards).toFixed(2)} per forward` : "";
  return { text: `${name} wrote ${plural(lane.kept, "token")} in ${plural(lane.forwards, "forward")}${each}${time}.` };
}

function besideAr(log, lane, ar) {
  const name = NAMES[lane.mode];
  const { first, whole } = log.compare(lane.mode);
  if (first === null && whole) {
    const gained = `${name} wrote the same text as AR ${gain(log, lane, ar)}`;
    return faultOf(lane) ? { text: `${gained}; it does not hold, as AR's does not.` } : { tone: "yes", text: `${gained}.` };
  }
  if (faultOf(lane)) return { tone: "no", text: `${name}'s answer does not hold: ${faultOf(lane)}. Its speed does not count.` };
  if (first === null) return ofItself(log, lane);
  const byDesign = apart(log, lane);
  const speed = lane.forwards ? ` It had ${(lane.kept / lane.forwards).toFixed(2)} tokens per forward.` : "";
  return { tone: byDesign === null ? "no" : null, text: `${name}'s text differs from AR's from token ${first} on${byDesign || ""}.${speed}` };
}

/** Why a lane may write another text than AR: "" for diffusion, which promises none; null where it must not. */
function apart(log, lane) {
  const request = log.head.request || {};
  if (lane.mode !== "self-speculation") return "";
  if (request.ar_weight < 1) return ": its verifier is not AR alone";
  if (request.temperature > 0 && request.acceptance === "sampling") return ": drawn apart, distributed as AR's";
  return log.head.exact === false ? ": its forwards are fast, not exact" : null;
}

function gain(log, lane, ar) {
  const forwards = ratio(ar.forwards, lane.forwards, "fewer forwards", "more forwards", "as many forwards");
  if (!log.timed) return `with ${forwards}`;
  return `with ${forwards}, in ${ratio(ar.milliseconds, lane.milliseconds, "less time", "more time", "the same time")}`;
}

function ratio(own, other, less, more, even) {
  if (!own || !other || Math.abs(own / other - 1) < EVEN) return even;
  const times = Math.max(own / other, other / own);
  return `${times < 9.95 ? times.toFixed(1) : times.toFixed(0)}× ${own > other ? less : more}`;
}
