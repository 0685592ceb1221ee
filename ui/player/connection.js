// The way to the server. Gradio's own stream of events is watched here: where it breaks off, Gradio would reload the
// page, and where it falls silent or is closed half way, wait for ever. So it is ended in Gradio's own words, whoever
// waited for something is told, and what was missed is asked for at an address of our own.

const HUSH = 12_000; // ms without a byte, Gradio's heartbeat included: the stream is dead
const QUIET = 5_000; // ms of the same where something else has shown that the server answers
const LATE = 3_000; // ms in which an answer begins: a browser goes on using connections that are dead
const WHOLE = 30_000; // ms in which it ends
const IDLE = 6; // connections to one server that a browser keeps
const SENT = 8_000; // ms in which the server says that it has taken what was asked for
const CUT = '{"msg":"unexpected_error","message":"The connection was lost.","success":false}';
const CLOSE = '{"msg":"close_stream"}';
const CLOSES = 'data: {"msg":"close_stream"';

class Connection {
  constructor() {
    this.streams = new Set();
    this.sending = 0; // what was asked for and the server has not taken yet
    this.tried = -HUSH; // when all connections were last tried
    this.fetch = window.fetch.bind(window);
    window.fetch = (input, options) => this.watch(input, options);
    const { root = "" } = window.gradio_config || {};
    this.root = new URL(root, location.href).pathname.replace(/\/$/, "");
    this.page = newName(); // whose files are counted
  }

  /** What the server has of a run, by its id or ticket, from an event on; null when it does not answer. */
  async ask(run, after = 0) {
    const body = JSON.stringify({ run, after });
    const abort = new AbortController();
    const late = () => {
      this.tryAll();
      abort.abort();
    };
    let timer = setTimeout(late, LATE);
    try {
      const headers = { "Content-Type": "application/json" };
      const answer = await this.fetch(`${this.root}/resync`, { method: "POST", body, headers, cache: "no-store", signal: abort.signal });
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), WHOLE);
      return answer.ok ? await answer.json() : null;
    } catch {
      return null;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Have the browser find out at once which of its connections are dead: it would meet them one after the other. */
  tryAll() {
    if (performance.now() - this.tried < HUSH) return;
    this.tried = performance.now();
    const small = () => this.fetch(`${this.root}/health`, { cache: "no-store", signal: AbortSignal.timeout(LATE) });
    for (let i = 0; i < IDLE; i++) small().catch(() => {});
  }

  /** A file of a kind that the server makes of a trace's text: {blob, ending}, or {error}. */
  async file(kind, trace) {
    const body = JSON.stringify({ kind, trace, page: this.page });
    const headers = { "Content-Type": "application/json" };
    const answer = await this.fetch(`${this.root}/file`, { method: "POST", body, headers, cache: "no-store" });
    if (!answer.ok) return answer.json();
    const [, ending] = answer.headers.get("Content-Disposition").match(/"nemodiff\.(.*)"/);
    return { blob: await answer.blob(), ending };
  }

  /** End Gradio's streams, all or those that have said nothing for so many ms: what waits for them fails. */
  cut(quiet = 0) {
    for (const stream of Array.from(this.streams)) if (performance.now() - stream.heard >= quiet) stream.end();
  }

  /** Streams that were not read for a while, with the machine asleep, are given so many ms to speak. */
  spare(ms) {
    for (const stream of this.streams) stream.heard = Math.max(stream.heard, performance.now() - HUSH + ms);
  }

  async watch(input, options) {
    const path = new URL(input.url || input, location.href).pathname;
    if (path.endsWith("/queue/data")) return this.stream(input, options);
    if (!/\/(queue\/join|run\/[^/]+)$/.test(path)) return this.fetch(input, options);
    // What may be said twice: a ticket takes its own place, and Stop names what it stops.
    const again = /\/(queue\/join|run\/stop)$/.test(path);
    this.sending += 1;
    try {
      return await (again ? this.insist(input, options) : this.fetch(input, options));
    } catch {
      // Gradio gives its page up for good when one of these does not reach the server.
      const lost = { detail: "The server could not be reached: try again in a moment.", error: "The server could not be reached." };
      return new Response(JSON.stringify(lost), { status: 500, headers: { "Content-Type": "application/json" } });
    } finally {
      this.sending -= 1;
    }
  }

  /** A request, sent again on another connection where there is no answer on the first ones. */
  async insist(input, options, tries = 4) {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(), SENT);
    const late = setTimeout(() => this.tryAll(), LATE);
    try {
      return await this.fetch(input, { ...options, signal: abort.signal });
    } catch (error) {
      if (!abort.signal.aborted || tries <= 1) throw error;
      return this.insist(input, options, tries - 1);
    } finally {
      clearTimeout(timer);
      clearTimeout(late);
    }
  }

  async stream(input, options) {
    const signal = (input.signal ? input : options)?.signal;
    const answer = await this.fetch(input, options).catch(() => null);
    const reader = answer?.ok ? answer.body.getReader() : null;
    const stream = { heard: performance.now(), end: () => {} };
    const body = new ReadableStream({
      start: (controller) => {
        const encoder = new TextEncoder();
        const decoder = new TextDecoder();
        let text = "";
        stream.end = (last = [CUT, CLOSE]) => {
          if (!this.streams.delete(stream)) return;
          for (const message of last) controller.enqueue(encoder.encode(`data: ${message}\n\n`));
          controller.close();
          reader?.cancel().catch(() => {});
        };
        const read = async () => {
          for (;;) {
            const { done, value } = await reader.read();
            if (done || !this.streams.has(stream)) return;
            stream.heard = performance.now();
            text += decoder.decode(value, { stream: true });
            const whole = text.lastIndexOf("\n\n") + 2; // half a message would be taken for a whole one
            if (whole < 2) continue;
            const closes = text.lastIndexOf(CLOSES, whole);
            controller.enqueue(encoder.encode(text.slice(0, whole)));
            text = text.slice(whole);
            if (closes >= 0) return stream.end([]);
          }
        };
        this.streams.add(stream);
        (reader ? read() : Promise.resolve()).catch(() => {}).then(() => stream.end(signal?.aborted ? [] : undefined));
      },
      cancel: (reason) => {
        this.streams.delete(stream);
        return reader?.cancel(reason);
      },
    });
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  }
}
