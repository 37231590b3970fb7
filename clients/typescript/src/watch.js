// Waits for answers. All questions of a client share one long poll of `GET /org/me/decisions`; reads by subject tell the
// truth about one question; a sweep finds questions that were withdrawn or replaced.
import { EventRejected, Expired, Replaced, Withdrawn } from "./errors.js";
import { sleep } from "./http.js";
import { stringify } from "./page/exact.js";
import { answerOf, askEvent, handleOf, KINDS } from "./questions.js";

/** @typedef {import("./questions.js").Question} Question */
/** @typedef {import("./questions.js").Answer} Answer */
/** @typedef {import("./page/types").DecisionRow} DecisionRow */
/** @typedef {import("./page/types").Item} Item */
/** @typedef {import("./http.js").Connection} Connection */

const WAIT = 25, SWEEP = 30; // seconds: of a held poll, between sweeps
const LEAST = 100, PLAIN = 1000; // milliseconds between polls: if much is decided; of an attn that does not hold polls
const PAGE = 500, MOST_PAGES = 20, MOST_READS = 50;
const MOST_MISSED = 2; // sweeps after which a question that was never shown counts as replaced by the one that is shown

/** One question and the promise of its answer. */
class Waiter {
  /** @type {string | null} the id of the ask that was sent, or found */
  askId = null;
  /** @type {any} */
  event = null;
  done = false;
  seen = false; // a read has shown the question
  missed = 0; // sweeps that did not show it
  made = false; // a person decided, and may still take it back
  /** @type {(answer: Answer) => void} */
  resolve = () => {};
  /** @type {(error: unknown) => void} */
  reject = () => {};

  /** @param {Question} question @param {string} source @param {string} handle */
  constructor(question, source, handle) {
    this.question = question;
    this.source = source;
    this.handle = handle;
    this.kind = question.kind ?? "waitpoint";
    this.subject = question.subject ?? handle;
    /** @type {Promise<Answer>} */
    this.answer = new Promise((resolve, reject) => {
      this.resolve = (answer) => { this.done = true; resolve(answer); };
      this.reject = (error) => { this.done = true; reject(error); };
    });
    this.answer.catch(() => {}); // whoever asked gets the error
  }

  /** @param {string | undefined} id */
  isMine(id) {
    return id !== undefined && (id === this.handle || id.startsWith(`${this.handle}.`));
  }

  /** Reads an entry of the list of decisions; returns whether it belongs to this question. @param {DecisionRow} entry */
  take(entry) {
    if (entry.source !== this.source || entry.kind !== this.kind || entry.source_id !== this.subject || entry.question.id !== this.askId) return false;
    this.seen = true;
    this.made = entry.state === "made";
    if (this.done) return true;
    if (entry.state === "sending" || entry.state === "applied") this.resolve(answerOf(entry));
    else if (entry.state === "expired") this.reject(new Expired(`nobody answered ${this.subject} before it expired`, this.subject));
    return true;
  }
}

/** @param {Item} item @returns {number} milliseconds */
export const newestTime = (item) => Math.max(...[item.created_at, item.updated_at, item.resolved_at].map((one) => (one ? Date.parse(one) : 0)));

/** Sends events to one topic until they are durable.
 * @param {Connection} connection @param {any[]} events @param {string} topic @param {import("./http.js").How} [how] */
export async function send(connection, events, topic, how = {}) {
  const single = events.length === 1;
  const { body } = await connection.request("POST", "/events", {
    ...how, params: { topic }, data: stringify(single ? events[0] : events),
    headers: { "content-type": `application/cloudevents${single ? "" : "-batch"}+json` },
  });
  for (const { index, error, status } of body?.rejected ?? []) {
    throw new EventRejected(`event ${events[index].id} was rejected: ${error}`, status ?? 400, body);
  }
}

export class Watch {
  /** @type {Set<Waiter>} */
  #waiters = new Set();
  #known = new Set();
  #polling = false;
  #closed = new AbortController();

  /** @param {Connection} connection @param {string} source @param {string | null} run */
  constructor(connection, source, run) {
    this.connection = connection;
    this.source = source;
    this.run = run;
  }

  /** Asks a question that is not yet asked, and waits for the answer. @param {Question} question @param {AbortSignal} [signal] */
  async ask(question, signal) {
    const waiter = new Waiter(question, this.source, await handleOf(question, this.source, this.run));
    const stop = () => waiter.reject(signal?.reason);
    signal?.addEventListener("abort", stop, { once: true });
    this.#waiters.add(waiter); // before the read: the poll tells of each decision after it
    try {
      signal?.throwIfAborted();
      await this.#begin(waiter, signal);
      if (!this.#polling) this.#run();
      return await waiter.answer;
    } finally {
      this.#waiters.delete(waiter);
      signal?.removeEventListener("abort", stop);
    }
  }

  /** Ends the poll; questions stay in attn. */
  close() {
    const reason = new Error("the client was closed; its questions stay in attn");
    this.#closed.abort(reason);
    for (const waiter of this.#waiters) waiter.reject(reason);
  }

  /** @param {string} kind @param {string} subject @param {import("./http.js").How} [how] @returns {Promise<Item | null>} */
  async item(kind, subject, how = {}) {
    const { body } = await this.connection.request("GET", "/api/v1/inbox", { ...how, params: { source: this.source, source_id: subject, state: "all" } });
    return body.rows.find((/** @type {Item} */ row) => row.kind === kind && row.source === this.source) ?? null;
  }

  /** @param {Waiter} waiter @param {AbortSignal} [signal] */
  async #begin(waiter, signal) {
    const [item, entries] = await this.#look(waiter, signal);
    const asked = item?.ask?.id;
    if (item !== null && waiter.isMine(asked)) {
      const entry = entries.find((one) => one.question.id === asked);
      const ended = entry?.state === "applied" || entry?.state === "expired";
      // A subject is answered once; a content without a subject is asked anew.
      if (ended ? waiter.question.subject !== undefined : entry?.state === "made" || entry?.state === "sending" || item.state !== "resolved") {
        waiter.askId = asked ?? null;
        waiter.seen = true;
        if (entry) waiter.take(entry);
        return;
      }
    }
    const before = item === null ? null : `${asked} ${item.resolved_at} ${entries[0]?.id}`;
    const at = this.connection.clock.now(item === null ? undefined : newestTime(item));
    waiter.event = await askEvent(waiter.question, this.source, waiter.subject, waiter.handle, at, before);
    waiter.askId = waiter.event.data.ask.id;
    await send(this.connection, [waiter.event], KINDS[waiter.kind][0], { signal });
  }

  /** Reads the item of a question and the decisions of its subject. @param {Waiter} waiter @param {AbortSignal} [signal]
   * @returns {Promise<[Item | null, DecisionRow[]]>} */
  async #look(waiter, signal) {
    const item = await this.item(waiter.kind, waiter.subject, { signal });
    if (!item?.ask) return [item, []];
    /** @type {Record<string, string>} */
    const params = { source: this.source, source_id: waiter.subject };
    for (let page = 0; page < MOST_PAGES; page++) { // a page may be empty: attn bounds the decisions that it reads for one
      const { body } = await this.connection.request("GET", "/org/me/decisions", { params, signal });
      const entries = body.decisions.filter((/** @type {DecisionRow} */ one) => one.kind === waiter.kind && one.source === this.source);
      if (entries.length || !body.next) return [item, entries];
      params.next = body.next;
    }
    return [item, []];
  }

  async #run() {
    this.#polling = true;
    try {
      await this.#poll();
    } catch (error) { // one that a repeat does not solve
      for (const waiter of this.#waiters) waiter.reject(error);
    } finally {
      this.#polling = false;
    }
  }

  async #poll() {
    const signal = this.#closed.signal;
    /** @type {string | null} */
    let etag = null;
    let swept = performance.now();
    while (this.#open().length) {
      const begun = performance.now(), first = etag === null;
      /** @type {Record<string, string>} */
      const headers = { prefer: `wait=${WAIT}` };
      if (etag !== null) headers["if-none-match"] = etag;
      const answer = await this.connection.request("GET", "/org/me/decisions", {
        params: { source: this.source, limit: String(PAGE) }, headers, seconds: WAIT + 20, signal });
      if (answer.status === 200) {
        etag = answer.etag;
        await this.#deliver(answer.body, first);
      }
      if (performance.now() - swept >= 1000 * SWEEP && this.#open().length) {
        await this.#sweep();
        swept = performance.now();
      }
      const least = answer.status === 200 && etag !== null ? LEAST : PLAIN;
      await sleep(Math.max(0, least * (1 + Math.random()) - (performance.now() - begun)), signal);
    }
  }

  #open() {
    return [...this.#waiters].filter((waiter) => !waiter.done);
  }

  /** Gives each waiting question its decision. Reads further pages while they have only unknown decisions.
   * @param {any} body @param {boolean} first */
  async #deliver(body, first) {
    const found = new Set(), known = new Set();
    for (let page = 0; page < MOST_PAGES; page++) {
      /** @type {DecisionRow[]} */
      const entries = body.decisions;
      for (const entry of entries) {
        known.add(entry.id);
        for (const waiter of this.#waiters) if (waiter.take(entry)) found.add(waiter);
      }
      if (first || entries.some((entry) => this.#known.has(entry.id)) || !body.next) break;
      body = (await this.connection.request("GET", "/org/me/decisions", {
        params: { source: this.source, limit: String(PAGE), next: body.next }, signal: this.#closed.signal })).body;
    }
    this.#known = known;
    for (const waiter of this.#open()) {
      if (waiter.made && !found.has(waiter)) for (const entry of (await this.#look(waiter, this.#closed.signal))[1]) waiter.take(entry);
    }
  }

  async #sweep() {
    const { body } = await this.connection.request("GET", "/api/v1/inbox", {
      params: { source: this.source, state: "active", limit: String(PAGE) }, signal: this.#closed.signal });
    const own = body.rows.filter((/** @type {Item} */ row) => row.source === this.source); // the filter also covers sources below
    const open = new Set(own.map((/** @type {Item} */ row) => JSON.stringify([row.kind, row.source_id, row.ask?.id])));
    const missing = this.#open().filter((waiter) => {
      const shown = open.has(JSON.stringify([waiter.kind, waiter.subject, waiter.askId]));
      if (shown) waiter.seen = true;
      return !shown && waiter.askId !== null;
    });
    for (const waiter of missing.sort(() => Math.random() - 0.5).slice(0, MOST_READS)) await this.#check(waiter);
  }

  /** Ends the wait for a question that was withdrawn or replaced; sends the event of a missing one again. @param {Waiter} waiter */
  async #check(waiter) {
    const [item, entries] = await this.#look(waiter, this.#closed.signal);
    const taken = entries.map((entry) => waiter.take(entry)).some(Boolean);
    if (waiter.done) return;
    if (item !== null && item.ask?.id === waiter.askId) {
      waiter.seen = true;
      if (item.state === "resolved" && !waiter.made) {
        waiter.reject(new Withdrawn(`the source closed ${waiter.subject} without an answer (${item.resolved_action ?? "closed"})`, waiter.subject));
      }
    } else if (item !== null && !taken && (waiter.seen || waiter.missed >= MOST_MISSED)) {
      waiter.reject(new Replaced(`another question was asked under the subject ${waiter.subject}`, waiter.subject));
    } else if (waiter.event !== null) {
      waiter.missed++;
      await send(this.connection, [waiter.event], KINDS[waiter.kind][0], { signal: this.#closed.signal });
    }
  }
}
