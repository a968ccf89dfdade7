/**
 * Typed client of a Journey Bandit service for backends. Every call is repeated with the same ids until its deadline.
 * Where the service is away, a decision is the fallback, marked `degraded`; everything else throws
 * ServiceUnavailableError.
 */
export * from "./client.js";
export {
  type FieldProblem,
  IdConflictError,
  InvalidRequestError,
  ItemsFailedError,
  JourneyClientError,
  KeyRefusedError,
  NotFoundError,
  type ProblemDetails,
  RequestRefusedError,
  ServiceUnavailableError,
} from "./errors.js";
export type { components } from "./openapi.js";
export type { RetryPolicy, World } from "./retries.js";
