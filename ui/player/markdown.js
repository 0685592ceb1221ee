// A run as text that is taken along: every lane's answer as it is, with its figures and what they were measured on.

const LANES = { ar: "Autoregressive", diffusion: "Block diffusion", "self-speculation": "Self-speculation" };
const FIGURE_COLUMNS = ["lane", "tokens", "forwards", "tokens / forward", "NFE", "model time", "tokens / s", "against AR", "ended"];

/** Where a run was made: checkpoint, hardware, dtype, settings and the day. */
function placeOf({ head }) {
  return [head.checkpoint, head.device || "hardware unknown", head.dtype, exactness(head), ...settingsOf(head.request), head.recorded].filter(Boolean);
}

/** A lane's figures as FIGURE_COLUMNS names them. Forwards and seconds stand together. */
function figuresOf(log, lane) {
  const last = lane.events[lane.events.length - 1];
  const ar = log.lanes.get("ar");
  const [rate, arRate] = [rateOf(last), rateOf(ar?.events[ar.events.length - 1])];
  const compared = log.compare(lane.mode);
  const fault = faultOf(lane);
  const speedUp = rate && arRate && compared ? `${(rate / arRate).toFixed(1)}× as fast` : "";
  const differs = !compared ? "" : compared.first !== null ? `differs from token ${compared.first}` : compared.whole ? "same text" : "same text so far";
  return [
    LANES[lane.mode],
    String(last?.kept ?? 0),
    String(last?.forward ?? 0),
    last?.forward ? (last.kept / last.forward).toFixed(2) : "–",
    String(last?.nfe ?? "–"),
    log.timed && last ? seconds(last.clock) : "–",
    rate ? rate.toFixed(1) : "–",
    [speedUp, differs].filter(Boolean).join(", ") || "–",
    [lane.finish ? finishOf(lane) : "goes on", fault].filter(Boolean).join(", but "),
  ];
}

/** The run as Markdown: prompt, a table of figures, every answer in a fence that nothing in it can close. */
function markdownOf(log) {
  const { system, history } = log.head.request || {};
  const lanes = Array.from(log.lanes.values());
  const messages = [...(system ? [["System", system]] : []), ...(Array.isArray(history) ? history : []).map(({ role, content }) => [role === "user" ? "User" : "Assistant", content]), ["Prompt", promptOf(log.head.request)]];
  const row = (cells) => `| ${cells.map(cellOf).join(" | ")} |`;
  return [
    ...messages.flatMap(([who, text]) => [`**${who}**`, fenced(String(text))]),
    placeOf(log).map(inline).join(" · "),
    [row(FIGURE_COLUMNS), row(FIGURE_COLUMNS.map(() => "---")), ...lanes.map((lane) => row(figuresOf(log, lane)))].join("\n"),
    "Forwards are those after the prefill, whose token counts. Model time is measured, prefill included.",
    ...lanes.flatMap((lane) => [`## ${LANES[lane.mode]}`, fenced(answerOf(log, lane))]),
  ].join("\n\n") + "\n";
}

/** The run as plain text: every answer below a line of its figures. */
function plainOf(log) {
  const lanes = Array.from(log.lanes.values(), (lane) => {
    const [name, tokens, forwards, , , time] = figuresOf(log, lane);
    return `${name}: ${plural(Number(tokens), "token")}, ${plural(Number(forwards), "forward")} after the prefill, ${time === "–" ? "not timed" : `${time} of model time`}\n\n${answerOf(log, lane)}`;
  });
  return [promptOf(log.head.request), placeOf(log).join(" · "), ...lanes].join("\n\n") + "\n";
}

/** In a table a cell is one line, and nothing in it is markup. */
const inline = (text) => seen(String(text)).replace(/[\\`*_[\]<>|#&~]/g, "\\$&").replace(/\s+/g, " ");
const cellOf = (text) => (text === "---" ? text : inline(text));

function fenced(text) {
  const longest = Math.max(2, ...Array.from(text.matchAll(/`+/g), ([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}text\n${text}\n${fence}`;
}
