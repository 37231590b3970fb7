// Errors of the client. All of them derive from AttnError.

export class AttnError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = new.target.name;
  }
}

/** attn refused a request. */
export class RequestFailed extends AttnError {
  /** @param {string} message @param {number} status @param {any} [body] the parsed JSON body */
  constructor(message, status, body = null) {
    super(message);
    this.status = status;
    this.body = body;
  }
}

/** An event or question is invalid or too large; the message names the field. A repeat fails in the same way. */
export class EventRejected extends RequestFailed {}

/** The key or token is unknown, expired or revoked. */
export class Unauthorized extends RequestFailed {}

/** The topics, the source or the workspace of the key do not cover the request. */
export class Forbidden extends RequestFailed {}

/** attn did not answer in time. The request may have taken effect; a repeat is idempotent. */
export class Unavailable extends AttnError {}

/** Base of the errors of a question that will get no answer. */
export class NoAnswer extends AttnError {
  /** @param {string} message @param {string} subject */
  constructor(message, subject) {
    super(message);
    this.subject = subject;
  }
}

/** Nobody decided before the question expired, and it names no option for this case. */
export class Expired extends NoAnswer {}

/** The source withdrew or closed the question before a person decided. */
export class Withdrawn extends NoAnswer {}

/** Another question was asked under the same subject. */
export class Replaced extends Withdrawn {}

/** @type {Record<number, typeof RequestFailed>} */
export const ERRORS = {
  400: EventRejected, 413: EventRejected, 415: EventRejected, 422: EventRejected, 401: Unauthorized, 403: Forbidden,
};
