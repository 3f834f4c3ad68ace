// Decisions on their way to the server: kept in localStorage, one entry each, until the server has confirmed them.
// A decision has an id made here, so that it may be sent twice. After a reload, a crash or in another tab, what is left
// is sent again, in its order. Keys are never blocked by the network.

const PREFIX = "finesight-review";
const MOST = 50; // decisions of one request
const MOST_CROPS = 2000;

/** Return an id that nobody else makes; crypto.randomUUID is missing on plain HTTP. */
export const newId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((b) => b.toString(16).padStart(2, "0")).join("");

let counter = 0;

export class DecisionQueue {
  /**
   * @param answered called with (decision, outcome, answer) for each decision that the server confirmed
   * @param refused called with (decision, text) for each that it will never take
   * @param changed called with (number waiting, "" or why they wait) whenever that changes
   * @param shown returns the ids of crops whose proposals are wanted
   */
  constructor(set, user, { answered, refused, changed, shown }) {
    this.path = `/api/v1/review/${set}/decisions`;
    this.user = user;
    this.prefix = `${PREFIX}/${user}/${set}/`;
    Object.assign(this, { answered, refused, changed, shown });
    this.waiting = this.#stored();
    this.sending = false;
    this.wait_s = 0;
    this.alone = false;
    addEventListener("online", () => this.#soon(0));
    addEventListener("pagehide", () => this.#sendLast());
    addEventListener("pageshow", (event) => event.persisted && this.#soon(0));
    addEventListener("beforeunload", (event) => { if (this.waiting.some((one) => !one.key)) event.preventDefault(); });
    this.changed(this.waiting.length, "");
    this.#soon(0);
  }

  /** Add a decision; it is sent soon. */
  add(decision) {
    const key = `${this.prefix}${String(Date.now()).padStart(15, "0")}-${String(counter++).padStart(6, "0")}`;
    const entry = { key, decision };
    try { localStorage.setItem(key, JSON.stringify(decision)); } catch { entry.key = ""; } // full or off: kept in memory
    this.waiting.push(entry);
    this.changed(this.waiting.length, "");
    this.#soon(60);
  }

  /** Return whether a crop has decisions that are not confirmed. */
  has(crop) { return this.waiting.some((one) => one.decision.crops.some((c) => c.id === crop)); }

  /** Name the versions of a crop's waiting decisions again, from the one that the server has now. */
  rebase(crop, version) {
    for (const entry of this.waiting) {
      for (const one of entry.decision.crops) if (one.id === crop) one.version = version++;
      this.#store(entry);
    }
    return version;
  }

  /** Forget the waiting decisions of a crop. */
  drop(crop) {
    for (const entry of this.waiting.filter((one) => one.decision.crops.some((c) => c.id === crop))) {
      entry.decision.crops = entry.decision.crops.filter((one) => one.id !== crop);
      this.#store(entry);
    }
    for (const entry of this.waiting.filter((one) => !one.decision.crops.length && !one.decision.undo)) this.#remove(entry);
  }

  /** Wait until nothing is waiting, or some time has passed; return whether nothing is. */
  async settled(most_ms) {
    const end = performance.now() + most_ms;
    while ((this.waiting.length || this.sending) && performance.now() < end) await new Promise((done) => setTimeout(done, 50));
    return !this.waiting.length && !this.sending;
  }

  #soon(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#send(), ms);
  }

  async #send() {
    if (this.sending || !this.waiting.length) return;
    this.sending = true;
    const batch = this.#batch();
    const body = { decisions: batch.map(bare), shown: this.shown(), by: this.user };
    let why = "";
    try {
      const response = await fetch(this.path, { method: "POST", headers: { "Content-Type": "application/json", Accept: "application/json" }, body: JSON.stringify(body), signal: AbortSignal.timeout(30000) });
      const answer = await response.json().catch(() => ({}));
      if (response.ok) this.#confirm(batch, answer);
      else why = this.#failed(batch, response.status, answer.error || `the console answered ${response.status}`, answer.reason);
    } catch {
      why = "the console cannot be reached";
    }
    this.sending = false;
    this.wait_s = why ? Math.min(15, this.wait_s * 2 || 1) : 0;
    this.changed(this.waiting.length, why);
    if (this.waiting.length) this.#soon(1000 * this.wait_s);
  }

  #batch() {
    const batch = [];
    let crops = 0;
    for (const entry of this.waiting) {
      crops += entry.decision.crops.length;
      if (batch.length && (this.alone || batch.length === MOST || crops > MOST_CROPS)) break;
      batch.push(entry);
    }
    return batch;
  }

  #confirm(batch, answer) {
    this.alone = false;
    const outcomes = new Map(answer.outcomes.map((one) => [one.id, one]));
    for (const entry of batch) this.#remove(entry);
    for (const entry of batch) if (outcomes.has(entry.decision.id)) this.answered(entry.decision, outcomes.get(entry.decision.id), answer);
  }

  #failed(batch, status, text, reason) {
    if (status === 401) return reason === "another_user" ? text : "log in again; they are kept";
    if (status >= 500 || status === 429 || status === 408) return text;
    if (batch.length > 1) { this.alone = true; return "one of them was refused"; } // find which one
    this.#remove(batch[0]);
    this.refused(batch[0].decision, text);
    return "";
  }

  #sendLast() { // the tab closes: whatever arrives need not wait for the next visit
    const batch = this.#batch();
    if (batch.length) fetch(this.path, { method: "POST", keepalive: true, headers: { "Content-Type": "application/json" }, body: JSON.stringify({ decisions: batch.map(bare), by: this.user }) }).catch(() => {});
  }

  #stored() {
    const keys = [];
    try { for (let i = 0; i < localStorage.length; i++) keys.push(localStorage.key(i)); } catch { return []; }
    return keys.filter((key) => key.startsWith(this.prefix)).sort().flatMap((key) => {
      try { return [{ key, decision: JSON.parse(localStorage.getItem(key)) }]; } catch { localStorage.removeItem(key); return []; }
    });
  }

  #store(entry) { try { if (entry.key) localStorage.setItem(entry.key, JSON.stringify(entry.decision)); } catch { /* kept in memory */ } }

  #remove(entry) {
    this.waiting = this.waiting.filter((one) => one !== entry);
    try { if (entry.key) localStorage.removeItem(entry.key); } catch { /* was never there */ }
  }
}

const bare = ({ decision }) => {
  const { id, crops, state, category, item, label, undo } = decision;
  return undo ? { id, undo } : { id, crops, state, category, item, label };
};

/** Return the sets that a user has decisions left of in this browser. */
export const setsLeft = (user) => {
  const prefix = `${PREFIX}/${user}/`;
  const found = new Set();
  for (let i = 0; i < localStorage.length; i++) {
    const key = localStorage.key(i);
    if (key.startsWith(prefix)) found.add(key.slice(prefix.length).split("/")[0]);
  }
  return [...found].filter((one) => /^\d+$/.test(one));
};
