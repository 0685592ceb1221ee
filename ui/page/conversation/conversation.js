// Inside gr.HTML: `element` and `trigger` are in scope. Texts come from people and models: textContent only.

const root = element.querySelector("#talk");
const [title, list] = [root.querySelector("b"), root.querySelector("ol")];
const LONGEST = 300; // characters of a message that a line shows

function messages() {
  try {
    const kept = JSON.parse(window.nemodiff?.fields?.history || "[]");
    const found = kept?.messages || kept;
    return Array.isArray(found) ? found.filter((one) => typeof one?.content === "string") : [];
  } catch {
    return [];
  }
}

function paint() {
  const all = messages();
  const turns = Math.ceil(all.length / 2);
  root.hidden = !all.length;
  title.textContent = `The prompt goes on after ${turns} turn${turns === 1 ? "" : "s"}`;
  list.replaceChildren(
    ...all.map(({ role, content, images }) => {
      const line = document.createElement("li");
      line.append(document.createElement("span"), document.createElement("q"));
      line.firstChild.textContent = role === "user" ? "you" : "model";
      line.lastChild.textContent = (images ? "[picture] " : "") + content.slice(0, LONGEST).replace(/\s+/g, " ").trim() || "(no text)";
      return line;
    }),
  );
  list.scrollTop = list.scrollHeight;
}

root.querySelector("button").addEventListener("click", () => {
  trigger("let_go");
  document.querySelector("#prompt textarea")?.focus();
});
document.addEventListener("nemodiff-fields", paint);
paint();
