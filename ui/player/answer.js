// What a finished answer is worth beyond its speed: one that was to be JSON and does not parse is no gain, however fast.

const FENCED = /```(\w*)[^\n]*\n([\s\S]*?)```/;

/** "" or what is wrong with a lane's answer. Only asked of answers that ended by themselves: a cut one cannot parse. */
function faultOf(log, lane) {
  if (lane.finish !== "eos") return "";
  const key = lane.events.length;
  if (lane.judged?.key !== key) lane.judged = { key, fault: judge(log, lane) };
  return lane.judged.fault;
}

function judge(log, lane) {
  const parsed = (one) => parseJson(log.table.exact(one.answer).join(""));
  const own = parsed(lane);
  if (own) return own === "broken" && asksForJson(log, parsed) ? "its JSON does not parse" : "";
  const ar = log.lanes.get("ar");
  return ar && ar !== lane && ar.finish === "eos" && parsed(ar) === "whole" ? "it is no JSON, as AR's is" : "";
}

function asksForJson(log, parsed) {
  return /\bjson\b/i.test(promptOf(log.head.request)) || Array.from(log.lanes.values()).some((one) => one.finish === "eos" && parsed(one) === "whole");
}

/** whole, broken, or "" for a text that does not mean to be JSON. */
function parseJson(answer) {
  const text = answer.slice(answer.lastIndexOf("</think>") + 1 && answer.lastIndexOf("</think>") + 8).trim();
  const [, language, inside] = text.match(FENCED) || [];
  const body = inside === undefined ? text : /^(json\w*)?$/i.test(language) ? inside.trim() : "";
  if (!/^[[{]/.test(body)) return "";
  try {
    JSON.parse(body);
    return "whole";
  } catch {
    return "broken";
  }
}
