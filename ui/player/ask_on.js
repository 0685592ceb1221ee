// A lane's answer becomes the last turn of a conversation, which the next prompt follows.

class AskOn {
  /** views: mode → LaneView. on({system, messages, run}): the page goes on from there; say(sentence) tells why it cannot. */
  constructor(views, getLog, on, say) {
    this.getLog = getLog;
    this.buttons = new Map();
    if (!on) return;
    for (const [mode, view] of views) {
      const button = view.root.querySelector("h2").appendChild(make("button", "solo ask-on", "Ask on"));
      button.type = "button";
      button.dataset.off = "";
      button.title = "Ask on: the next prompt follows this lane's answer";
      button.setAttribute("aria-label", `Ask on after the answer: ${view.root.getAttribute("aria-label")}`);
      button.addEventListener("click", () => {
        const log = getLog();
        const obstacle = obstacleOf(log);
        if (obstacle) say(obstacle);
        else on(conversationOf(log, log.lanes.get(mode)));
      });
      this.buttons.set(mode, button);
    }
  }

  /** Answers that have ended can be gone on from; before, the button's place is kept, so that nothing moves. */
  paint() {
    const log = this.getLog();
    for (const [mode, button] of this.buttons) {
      const lane = log?.lanes.get(mode);
      setData(button, "off", lane?.finish && log.ended ? null : "");
    }
  }
}

function obstacleOf({ kind, head: { request = {} } }) {
  if (!request.prompt || request.raw) return "This run's prompt was taken as it is, without the chat template, so it has no turns: ask it with the template to go on from it.";
  if (request.images?.length && kind !== "live") return "The pictures of this run are not in its trace: ask about them again to go on.";
  return "";
}

function conversationOf(log, lane) {
  const { system, prompt, answer_ids = [] } = log.head.request;
  const history = log.head.request.history || [];
  const images = sizesOf(log.head.request).length - history.reduce((sum, one) => sum + (one.images || 0), 0);
  const asked = { role: "user", content: prompt, ...(images > 0 ? { images } : {}) };
  const given = log.table.exact(answer_ids).join("");
  const text = lane.closed?.text ?? answerOf(log, lane);
  const messages = [...history, asked, { role: "assistant", content: given + text }];
  return { system: system || "", messages, run: messages.some((one) => one.images) ? log.run : "" };
}

/** What stood before the prompt of the run on the stage, in a line that opens. */
class Before {
  constructor(root) {
    this.root = root.querySelector(".before");
    this.title = this.root.querySelector("summary");
    this.list = this.root.querySelector("dl");
  }

  open({ request }) {
    const { system, history } = request || {};
    const messages = Array.isArray(history) ? history : [];
    const parts = [system ? "a system prompt" : "", messages.length ? plural(Math.ceil(messages.length / 2), "turn") : ""].filter(Boolean);
    this.root.hidden = !parts.length;
    this.root.open = false;
    setText(this.title, `The prompt follows ${parts.join(" and ")}`);
    const lines = [...(system ? [["system", system]] : []), ...messages.map(({ role, content, images }) => [role === "user" ? "you" : "model", (images ? "[picture] " : "") + content])];
    this.list.replaceChildren(...lines.flatMap(([who, text]) => [make("dt", "", who), make("dd", "", seen(String(text)))]));
  }
}
