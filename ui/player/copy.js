// What is copied out of a lane is its text: the final tokens, as they are, without control tokens, drafts and guesses.

class Copying {
  /** views: mode → LaneView; say(text) tells a screen reader. */
  constructor(root, views, getLog, say) {
    this.views = views;
    this.getLog = getLog;
    this.say = say;
    for (const [mode, view] of views) {
      const button = view.root.querySelector("h2").appendChild(make("button", "copy"));
      button.type = "button";
      button.title = "Copy this lane's text";
      button.setAttribute("aria-label", `Copy the text: ${view.root.getAttribute("aria-label")}`);
      button.append(icon("M6 2.5h7.5V10M2.5 6H10v7.5H2.5z"), icon("M3 8.5l3.5 3.5L13 4.5"));
      button.addEventListener("click", () => this.whole(mode, button));
    }
    root.addEventListener("copy", (event) => this.selected(event));
  }

  async whole(mode, button) {
    const log = this.getLog();
    const lane = log?.lanes.get(mode);
    if (!lane) return;
    const copied = await toClipboard(answerOf(log, lane));
    button.focus({ preventScroll: true });
    this.say(copied ? "The lane's text was copied." : "The browser did not let the page copy: select the text and copy it.");
    setData(button, "copied", copied ? "yes" : "no");
    setTimeout(() => setData(button, "copied", null), 2000);
  }

  /** A selection that begins in a lane's text and touches no other lane's. */
  selected(event) {
    const selection = document.getSelection();
    if (selection.isCollapsed || event.target.matches?.("input, textarea")) return;
    const range = selection.getRangeAt(0);
    const touched = Array.from(this.views.values()).filter((view) => range.intersectsNode(view.text));
    if (touched.length !== 1 || !touched[0].text.contains(range.startContainer)) return;
    event.clipboardData.setData("text/plain", this.textOf(touched[0], range));
    event.preventDefault();
  }

  textOf(view, range) {
    const standing = view.nodes.map((node) => (node.cell && KEPT.has(node.cell.state) ? node.cell.token : -1));
    const texts = this.getLog().table.answer(standing, this.getLog().lanes.get(view.mode)?.stop);
    return view.nodes.map((node, i) => (standing[i] < 0 || !range.intersectsNode(node) ? "" : partOf(node, range, texts[i]))).join("");
  }
}

/** What a range takes of a token: of one whose text is shown as it is, a part; of any other, all or nothing. */
function partOf(node, range, text) {
  const part = document.createRange();
  part.selectNodeContents(node);
  if (node.contains(range.startContainer)) part.setStart(range.startContainer, range.startOffset);
  if (node.contains(range.endContainer)) part.setEnd(range.endContainer, range.endOffset);
  const taken = part.toString();
  return node.textContent === text ? taken : taken || !node.textContent ? text : "";
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Without a secure connection, or where it was not allowed, there is the old way.
    const field = document.body.appendChild(make("textarea", "nd-clipboard"));
    field.style.cssText = "position: fixed; top: 0; left: 0; opacity: 0";
    field.value = text;
    field.select();
    const copied = document.execCommand("copy");
    field.remove();
    return copied;
  }
}

function icon(path) {
  const node = shape("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" });
  node.append(shape("path", { d: path }));
  return node;
}
