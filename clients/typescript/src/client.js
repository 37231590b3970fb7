// The client of a source: ask, notify, withdraw, decisions.
import { Unavailable } from "./errors.js";
import { Connection } from "./http.js";
import { closeEvent, KINDS, notifyEvent, reportEvent, unpostEvent } from "./questions.js";
import { newestTime, send, Watch } from "./watch.js";

/** @typedef {import("./questions.js").Question} Question */
/** @typedef {import("./questions.js").Answer} Answer */
/** @typedef {import("./questions.js").Kind} Kind */
/** @typedef {import("./page/types").DecisionRow} DecisionRow */
/** @typedef {import("./page/types").Item} Item */

const BEHIND = 2000; // milliseconds: the estimate of another process that sent a message may be later by this
const PATIENCE = 60; // seconds that calls retry which wait for no person

/** A source that asks people by attn. */
export class Attn {
  /**
   * @param {object} how
   * @param {string} how.url address of attn
   * @param {string} how.key `attn_...`, made with `attn key create`
   * @param {string} how.source the CloudEvents source, such as `/agents/mailer`
   * @param {string} [how.run] name of the run; questions without a subject are the same only within one run
   * @param {number} [how.patience] seconds that calls retry which wait for no person
   * @param {typeof globalThis.fetch} [how.fetch]
   */
  constructor({ url, key, source, run, patience = PATIENCE, fetch }) {
    this.source = source;
    this.patience = patience;
    this.connection = new Connection(url, key, fetch);
    this.watch = new Watch(this.connection, source, run ?? null);
  }

  /**
   * Asks a question, waits until a person has answered it and can no longer take the answer back, and returns the answer.
   * The same subject and content asked again, by this or another process, continues the same question. With `confirm`
   * (the default) attn is told that the answer took effect; without, call `applied` or `refused`.
   *
   * Throws Expired, Withdrawn, Replaced, EventRejected, Unauthorized or Forbidden, and the reason of `signal`. While attn
   * is not reachable, the call waits.
   * @param {string | Question} question
   * @param {Omit<Question, "title"> & {confirm?: boolean, signal?: AbortSignal}} [how]
   * @returns {Promise<Answer>}
   */
  async ask(question, { confirm = true, signal, ...fields } = {}) {
    const answer = await this.watch.ask(typeof question === "string" ? { title: question, ...fields } : { ...question, ...fields }, signal);
    if (!confirm || answer.confirmed) return answer;
    try {
      await this.applied(answer);
    } catch (error) {
      if (error instanceof Unavailable) return answer; // stays unconfirmed; an unreachable attn does not hold it back
      throw error;
    }
    return { ...answer, confirmed: true };
  }

  /** Reports to attn that the answer took effect. A repeat changes nothing. @param {Answer} answer */
  applied(answer) {
    return this.#report(answer);
  }

  /** Tells attn that the answer could not take effect: the item returns to the people. @param {Answer} answer @param {string} reason */
  refused(answer, reason) {
    return this.#report(answer, reason);
  }

  /**
   * Sends a message that asks for nothing. Returns its subject, with which it can be withdrawn.
   * @param {string} title
   * @param {Pick<Question, "body" | "subject" | "priority" | "toUser" | "toRole" | "data">} [fields]
   */
  async notify(title, { body, subject = `msg_${newId()}`, priority, toUser, toRole, data } = {}) {
    const content = { ...data, title, body_md: body, priority, target_user_id: toUser, target_role: toRole };
    await send(this.connection, [await notifyEvent(this.source, subject, await this.#now(), content)], "messages", { patience: this.patience });
    return subject;
  }

  /**
   * Withdraws an open question. Returns whether there was one. A message is withdrawn whether it is there or not: attn does
   * not show it to a key.
   * @param {string} subject
   * @param {Kind | "message"} [kind]
   */
  async withdraw(subject, kind = "waitpoint") {
    if (kind === "message") {
      await this.#now();
      const at = await this.#now(this.connection.clock.estimate() + BEHIND);
      await send(this.connection, [unpostEvent(this.source, subject, at, newId())], "messages", { patience: this.patience });
      return true;
    }
    const item = await this.watch.item(kind, subject, { patience: this.patience });
    if (item === null || item.state === "resolved") return false;
    const event = await closeEvent(this.source, kind, subject, item, await this.#now(newestTime(item)));
    await send(this.connection, [event], KINDS[kind][0], { patience: this.patience });
    return true;
  }

  /**
   * Yields the decisions of this source and those below it, newest first.
   * @param {{state?: string, subject?: string}} [how]
   * @returns {AsyncGenerator<DecisionRow>}
   */
  async *decisions({ state, subject } = {}) {
    /** @type {Record<string, string>} */
    const params = { source: this.source };
    if (state !== undefined) params.state = state;
    if (subject !== undefined) params.source_id = subject;
    for (;;) {
      const { body } = await this.connection.request("GET", "/org/me/decisions", { params, patience: this.patience });
      yield* body.decisions;
      if (!body.next) return;
      params.next = body.next;
    }
  }

  /** Ends the poll; questions stay in attn. */
  close() {
    this.watch.close();
  }

  /** @param {number} [after] milliseconds */
  async #now(after) {
    if (!this.connection.clock.known) await this.connection.request("GET", "/healthz", { patience: this.patience });
    return this.connection.clock.now(after);
  }

  /** @param {Answer} answer @param {string} [reason] */
  async #report(answer, reason) {
    if (answer.confirmed) return;
    const event = reportEvent(this.source, answer, await this.#now(), reason);
    await send(this.connection, [event], KINDS[answer.kind][0], { patience: this.patience });
  }
}

const newId = () => crypto.randomUUID?.() ?? crypto.getRandomValues(new Uint32Array(4)).join("-");
