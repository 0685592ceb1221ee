// What the forward in view did, in a sentence of its own mode; where the lane has ended, what all of its forwards did.

const QUOTED = 24; // characters of a token

function captionOf(log, lane, k) {
  const event = lane.events[k];
  if (!event) return "";
  if (k === lane.events.length - 1 && lane.finish) return wholeOf(lane, event);
  if (event.phase === "prefill") return `The prefill read the prompt and gave the first token.`;
  if (event.phase === "decode") return decoded(log, event);
  if (event.phase === "denoise") return denoised(log, event);
  if (event.phase === "refresh") return `Block ${event.block} is final: one causal forward stores it and gives the next block's first token.`;
  if (event.phase === "draft") return `Forward ${event.forward} drafted ${plural(event.positions.length, "token")} at once; the next one verifies them.`;
  return verified(lane, event);
}

function decoded(log, event) {
  const token = event.positions[0];
  const name = token ? Array.from(log.table.name(token.token)).slice(0, QUOTED).join("") : "";
  return `Forward ${event.forward} gave 1 token${name ? `, “${name}”` : ""}. Always 1 token per forward.`;
}

function denoised(log, event) {
  const committed = event.positions.filter((p) => p.state === "committed");
  const masked = event.positions.filter((p) => p.state === "masked").length + committed.length;
  return `Forward ${event.forward} committed ${committed.length} of ${plural(masked, "masked position")}${reasonOf(log, committed)}.`;
}

/** Why just these: the sampler's rule, as far as the run tells it. */
function reasonOf(log, committed) {
  const { sampler = "confidence", threshold, order } = log.head.request || {};
  if (sampler === "entropy") return ", the surest within the entropy bound";
  const score = (p) => (sampler === "trained" ? p.score : p.confidence);
  if (threshold == null || !committed.length || committed.some((p) => score(p) == null) || sampler === "fixed") return "";
  const limit = Number(threshold).toFixed(2);
  if (committed.every((p) => score(p) >= threshold)) return ` at ${limit} or above`;
  return order === "leftmost" ? ", from the left" : `: the surest, none reached ${limit}`;
}

function verified(lane, event) {
  const { drafts, accepted } = event.outcome;
  const forwards = plural(lane.events[event.k - 1]?.phase === "draft" ? 2 : 1, "forward");
  const gained = plural(event.gained, "token");
  if (!drafts) return event.gained ? `No drafts to verify yet: ${gained} and the first drafts from ${forwards}.` : `${forwards} made the first drafts.`;
  const named = event.raw.tree ? "candidate" : "draft";
  const own = event.gained - accepted;
  return `${plural(drafts, named)}, ${accepted} accepted${own > 0 ? `, ${own} of AR's own` : ""}: ${gained} from ${forwards}.`;
}

function wholeOf(lane, event) {
  const tokens = plural(event.kept, "token");
  const forwards = plural(event.forward, "forward");
  if (!event.forward) return `${tokens} from the prefill alone.`;
  if (lane.mode === "ar") return `${tokens}: 1 from each of ${forwards}, and the prefill's.`;
  const each = `${(event.kept / event.forward).toFixed(2)} per forward`;
  if (lane.mode === "diffusion") return `${tokens} from ${forwards} in ${plural(event.block, "block")}: ${each}.`;
  const { drafts, accepted } = lane.outcomes;
  return `${tokens} from ${forwards}, ${each}: ${accepted} of ${plural(drafts, "draft")} accepted in ${plural(event.cycle, "cycle")}.`;
}
