// Speed of light: the fewest forwards that an oracle needs for what serial denoising writes, beside the diffusion lane.

const LIGHT = "Speed of light";
let asks = 0;

class Light {
  /** hooks.light({id, run, checkpoint, request, answer_ids}): start the search, whose messages come to `take`. May be missing. */
  constructor(root, hooks, schedule) {
    this.root = root;
    this.hooks = hooks;
    this.schedule = schedule;
    this.how = root.querySelector('[data-lane="diffusion"] .how');
    this.says = make("span", "", this.how.textContent); // gives its place to what was found
    this.how.replaceChildren(this.says);
    this.words = this.how.appendChild(make("span", "light"));
    this.button = this.how.appendChild(make("button", "solo", LIGHT));
    this.button.type = "button";
    this.button.title = "How few forwards could write what one commit per forward writes? An oracle tries.";
    this.button.addEventListener("click", () => this.ask());
    this.mark = root.querySelector('[data-track="diffusion"]').appendChild(make("b", "light"));
    this.open(null);
  }

  open(log) {
    this.log = log;
    this.drawn = this.found = null; // the ceiling whose words are in `found`
    this.asked = 0;
    this.text = "";
    this.state(log?.lanes.get("diffusion")?.ceiling ? "done" : null);
  }

  ask() {
    const { head } = this.log;
    this.asked = ++asks;
    this.text = "waiting for the model…";
    this.state("going");
    this.hooks.light({ id: this.asked, run: this.log.run, checkpoint: head.checkpoint, request: head.request, answer_ids: head.request?.answer_ids || [] });
  }

  /** A message of the server; one that another run was asked for is left alone. */
  take({ id, ceiling, error, tokens, most, forwards }) {
    if (id !== this.asked || !this.log) return;
    if (ceiling) {
      this.log.lanes.get("diffusion").ceiling = ceiling;
      this.state("done");
    } else if (error) {
      this.text = error;
      this.state("error");
    } else {
      this.text = `${tokens} of at most ${plural(most, "token")}, ${forwards} forwards tried`;
      this.state("going");
    }
  }

  /** Stop was pressed: what was going on ends without a result. */
  halt() {
    if (this.root.dataset.light !== "going") return;
    this.asked = 0;
    this.text = "stopped";
    this.state("error");
  }

  state(state) {
    setData(this.root, "light", state);
    this.schedule();
  }

  paint(clock) {
    const lane = this.log?.lanes.get("diffusion");
    const state = this.root.dataset.light;
    this.button.hidden = !lane || !this.hooks.light || !this.log.ended || state === "done" || state === "going";
    if (lane?.ceiling !== this.drawn) {
      this.drawn = lane?.ceiling;
      this.found = this.drawn ? lightOf(lane) : null;
    }
    const light = this.found;
    setText(this.words, light ? `${LIGHT}: ${light.words}` : state ? `${LIGHT}: ${this.text}` : "");
    this.says.hidden = Boolean(this.words.textContent);
    this.words.title = light ? light.more : "";
    setData(this.words, "state", state);
    this.mark.hidden = !light || clock !== "forwards";
    if (light) {
      this.mark.style.setProperty("--at", light.forwards / Math.max(1, this.log.total("forwards")));
      this.mark.title = `${LIGHT}: ${plural(light.forwards, "forward")}`;
    }
  }
}

/** {forwards, words, more} of a lane's ceiling. */
function lightOf({ ceiling, answer }) {
  const blocks = ceiling.blocks;
  const sum = (of) => blocks.reduce((total, block) => total + of(block), 0);
  const tokens = blocks.flatMap((block) => block.tokens);
  const forwards = sum((block) => block.commits.length + Number(block.refreshed));
  const serial = sum((block) => block.serial + Number(block.refreshed));
  let first = 0;
  while (first < tokens.length && tokens[first] === answer[first]) first += 1;
  const same = first === tokens.length && first === answer.length;
  const cut = sum((block) => Number(block.exhausted));
  const words = `${plural(tokens.length, "token")} in ${plural(forwards, "forward")}${forwards ? ` (${(tokens.length / forwards).toFixed(2)} each)` : ""}`;
  const more = [
    `The text of one commit per forward, which takes ${plural(serial, "forward")}, ${same ? "is this lane's" : `differs from this lane's at token ${first}`}.`,
    `Searched with ${plural(sum((block) => block.simulated), "simulated forward")}${cut ? `; the budget cut the search in ${plural(cut, "block")}` : ""}.`,
  ];
  return { forwards, words, more: more.join(" ") };
}
