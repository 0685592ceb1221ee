// A link to what the fields say: it goes into the address bar and the clipboard.

function copyLink(query) {
  const url = `${location.origin}${location.pathname}?${query}`;
  history.replaceState(null, "", url);
  // A Space shows the page in a frame: its own address bar has to be told.
  if (window.parent !== window) window.parent.postMessage({ queryString: query }, "https://huggingface.co");
  const button = document.querySelector("#link");
  const say = (text) => {
    button.textContent = text;
    setTimeout(() => (button.textContent = "Copy link"), 2500);
  };
  const copied = navigator.clipboard?.writeText(url) ?? Promise.reject();
  copied.then(() => say("Copied"), () => say("See address bar"));
}
