/**
 * Errors of the client:
 *
 *     JourneyClientError
 *     ├── ServiceUnavailableError    no usable answer before the deadline
 *     ├── ItemsFailedError           items of a batch that failed; the others have their results
 *     └── RequestRefusedError        the service said no, in problem details (RFC 9457)
 *         ├── InvalidRequestError    400, 413, 415: a field is wrong, or the body is; 403: an outcome's token
 *         ├── KeyRefusedError        401, 403: no key, or one without the scope
 *         ├── NotFoundError          404: no such decision, stage or route
 *         └── IdConflictError        409: the id was used with other content
 */
import type { components } from "./openapi.js";

/** Problem details of a refusal; `errors` names each wrong field, what is wrong with it, and the fix. */
export type ProblemDetails = components["schemas"]["ProblemReply"];
/** What is wrong with one field. */
export type FieldProblem = components["schemas"]["Problem"];

/** Any error of this client. */
export class JourneyClientError extends Error {
  constructor(message: string) {
    super(message);
    this.name = new.target.name;
  }
}

/**
 * No usable answer came before the deadline. It is not known whether the service recorded anything: the same request,
 * with the same ids, may be sent again. `attempts`: how many requests were sent; `why`: what became of the last one. If
 * the last one was refused after one that may have been recorded, `why` tells both.
 */
export class ServiceUnavailableError extends JourneyClientError {
  constructor(
    readonly attempts: number,
    readonly why: string,
  ) {
    super(`no answer of the service after ${attempts} attempts: ${why}`);
  }
}

/** The service refused a request, and recorded nothing of it. `problem` says why. */
export class RequestRefusedError extends JourneyClientError {
  constructor(readonly problem: ProblemDetails) {
    super(`${problem.status} ${problem.title}: ${problem.detail}`);
  }

  /** HTTP status, of an item of a batch the one that it would have had alone. */
  get status(): number {
    return this.problem.status;
  }

  /** Each wrong field with its fix. */
  get errors(): readonly FieldProblem[] {
    return this.problem.errors ?? [];
  }
}

/**
 * A field, or the body, cannot be used (400, 413, 415), or an outcome does not bring the token of its decision
 * (403, field `outcome_token`).
 */
export class InvalidRequestError extends RequestRefusedError {}
/** There is no such key (401), or it lacks the scope of the call (403). */
export class KeyRefusedError extends RequestRefusedError {}
/** There is no such decision, stage or route (404). */
export class NotFoundError extends RequestRefusedError {}
/** The id was used before with other content (409). */
export class IdConflictError extends RequestRefusedError {}

/**
 * Items of a batch failed. `results`, in the order of the items: each item's result, or its error. Those that have a
 * result are recorded; sending the whole batch again, with the same ids, counts nothing twice. Where a later request of
 * the batch was refused as a whole, the refusal is the error of its items and of all after them, which were not sent;
 * items that an earlier attempt may have recorded have a ServiceUnavailableError.
 */
export class ItemsFailedError<Result> extends JourneyClientError {
  constructor(readonly results: readonly (Result | JourneyClientError)[]) {
    const failed = results.flatMap((one, place) => (one instanceof JourneyClientError ? [{ one, place }] : []));
    const first = failed[0];
    super(`${failed.length} of ${results.length} items failed; the first, item ${first?.place}: ${first?.one.message}`);
  }
}

/** Of a 403: the key is good, and the `outcome_token` is missing or another decision's. */
const UNPROVEN = "urn:journey-bandit:problem:forbidden";

/** Error of the type that the status of a problem stands for; of a 403, also what it is that is refused. */
export function refusal(problem: ProblemDetails): RequestRefusedError {
  if (problem.type === UNPROVEN) return new InvalidRequestError(problem);
  switch (problem.status) {
    case 400:
    case 413:
    case 415:
      return new InvalidRequestError(problem);
    case 401:
    case 403:
      return new KeyRefusedError(problem);
    case 404:
      return new NotFoundError(problem);
    case 409:
      return new IdConflictError(problem);
    default:
      return new RequestRefusedError(problem);
  }
}
