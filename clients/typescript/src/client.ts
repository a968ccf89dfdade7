import { ItemsFailedError, JourneyClientError, type ProblemDetails, ServiceUnavailableError } from "./errors.js";
import type { components } from "./openapi.js";
import { type Call, type Item, RetryLoop, type RetryPolicy, type World } from "./retries.js";

type Schemas = components["schemas"];

/** Request for a nudge. `decision_id` is made by the client where it is left out. */
export type DecisionRequest = Schemas["DecisionRequest"];
/** Nudge to show, with the payload that the catalogue declares. The id `none` is no nudge. */
export type Nudge = Schemas["NudgeOut"];
/** Report of what happened after a decision. Without `outcome_id` a decision has one outcome of each kind. */
export type OutcomeRequest = Schemas["OutcomeRequest"];
/** Something that a user did. `userEvent` makes one with an id. */
export type EventRequest = Schemas["EventRequest"];
/** What became of an outcome. `recorded` is false only where it was not sent, because its decision is degraded. */
export type OutcomeReply = Schemas["OutcomeReply"];
/** What became of an event. */
export type EventReply = Schemas["EventReply"];
/** Where a user is, and what may be shown now. */
export type Journey = Schemas["JourneyReply"];
/** All that the ledger holds of a decision. */
export type Receipt = Schemas["Receipt"];

/** Decision of the service. */
export type Decided = Schemas["DecisionReply"] & { readonly degraded: false };

/** The fallback, because no decision came in time (`why`). It has no id: nothing can be reported for it. */
export interface Degraded {
  readonly degraded: true;
  readonly decision_id: null;
  readonly propensity: null;
  readonly nudge: Nudge;
  readonly stage: string | null;
  readonly why: string;
}

/** What `decide` answers. */
export type Decision = Decided | Degraded;

/** No nudge: what a degraded decision shows where nothing else is declared. */
export const NO_NUDGE: Nudge = Object.freeze({ id: "none", type: "none", format: "none", payload: {} });

/**
 * Options of a client. `key`: API key; what it may do is its scopes. A decision is waited for `decideSeconds` (0.5),
 * everything else `reportSeconds` (10), retries and pauses included. `fallback`: what a degraded decision shows.
 */
export interface ClientOptions extends Partial<World> {
  readonly key?: string;
  readonly decideSeconds?: number;
  readonly reportSeconds?: number;
  readonly retries?: Partial<RetryPolicy>;
  readonly fallback?: Nudge;
}

/** Options of one call: seconds until its deadline. */
export interface CallOptions {
  readonly seconds?: number;
}

/** Options of a report. Several rewards of one decision need an `outcomeId` each. */
export interface ReportOptions extends CallOptions {
  readonly outcomeId?: string;
  readonly occurredAt?: Date;
}

const MOST_ITEMS = 1000; // of one request; longer batches are sent in several
const MOST_BYTES = 4_000_000; // of the body of one request, as the service takes them
const NOT_SENT = "not sent: the decision is degraded, so the service does not know what was shown";

/** Event with an id of its own, so that sending it again counts nothing twice. */
export function userEvent(event: Omit<EventRequest, "event_id">): EventRequest {
  return { event_id: crypto.randomUUID(), ...event };
}

/** Client of one service at `url`. Throws TypeError or RangeError for an address, a key, a policy or seconds that cannot be. */
export class JourneyClient {
  private readonly loop: RetryLoop;
  private readonly decideSeconds: number;
  private readonly reportSeconds: number;
  private readonly fallback: Nudge;

  constructor(url: string, options: ClientOptions = {}) {
    refuseAddress(url);
    if (!/^[!-~]*$/.test(options.key ?? "")) {
      throw new TypeError("key holds spaces, line ends or letters outside ASCII: give the key as `keys new` printed it");
    }
    const headers = { "Content-Type": "application/json", ...(options.key ? { "X-API-Key": options.key } : {}) };
    const policy = { tries: 6, shortest: 0.05, longest: 2, ...options.retries };
    this.loop = new RetryLoop(url.replace(/\/+$/, ""), headers, policy, {
      fetch: options.fetch ?? ((input, init) => fetch(input, init)),
      clock: options.clock ?? (() => performance.now() / 1000),
      sleep: options.sleep ?? ((seconds) => new Promise((done) => setTimeout(done, seconds * 1000))),
      draw: options.draw ?? Math.random,
    });
    this.decideSeconds = positive(options.decideSeconds ?? 0.5, "decideSeconds");
    this.reportSeconds = positive(options.reportSeconds ?? 10, "reportSeconds");
    this.fallback = options.fallback ?? NO_NUDGE;
  }

  /**
   * Nudge for a user, on the service's disk before this returns; or the fallback, marked `degraded`, if no answer came in
   * time. Without `stage`, the user's journey says it.
   *
   * The id is made before the first attempt, so that a decision is made once. A decision whose answer was lost may be in
   * the ledger although nothing was shown: with `deferred` it teaches nothing, because it is never activated. Throws
   * RequestRefusedError, and RangeError for NaN and infinity.
   */
  async decide(request: DecisionRequest, options: CallOptions = {}): Promise<Decision> {
    const sent = withId(request);
    try {
      const call = post("/v1/decisions", encoded(sent, ""));
      return await this.loop.call(call, within(options, this.decideSeconds), readDecision);
    } catch (error) {
      return this.degraded(sent, error);
    }
  }

  /**
   * Nudges for many users, in order, by the thousand; those that did not come in time are degraded. Throws
   * RequestRefusedError if the first request is refused as a whole, and ItemsFailedError, which has the decision or the
   * error of each, if some were refused.
   */
  async decideMany(requests: readonly DecisionRequest[], options: CallOptions = {}): Promise<Decision[]> {
    const sent = requests.map(withId);
    const seconds = within(options, this.decideSeconds);
    const read = itemsOf("decisions", "decision", readDecision);
    const results = await this.batches("/v1/decisions/batch", "decisions", sent, seconds, read);
    return allOf(
      results.map((one, i) => (one instanceof ServiceUnavailableError ? this.degraded(sent[i]!, one) : one)),
    );
  }

  /**
   * Report a reward, in the stage's units; 1 if `value` is left out and the reward is binary. Of a degraded decision
   * nothing is sent. Throws RequestRefusedError, or ServiceUnavailableError if no answer came in time.
   */
  reward(decision: Decision | string, value?: number, options: ReportOptions = {}): Promise<OutcomeReply> {
    return this.report(decision, "reward", value, options);
  }

  /** Report that the nudge was really shown: a deferred decision teaches nothing without it. */
  activate(decision: Decision | string, options: Omit<ReportOptions, "outcomeId"> = {}): Promise<OutcomeReply> {
    return this.report(decision, "activation", undefined, options);
  }

  /** Take back `value` of a decision's rewards, or all if it is left out: a refund. */
  retract(decision: Decision | string, value?: number, options: ReportOptions = {}): Promise<OutcomeReply> {
    return this.report(decision, "retraction", value, options);
  }

  /**
   * Report that the person wants no more of this after the nudge: unsubscribed, muted or complained. It changes no
   * reward; guardrails count it.
   */
  optOut(decision: Decision | string, options: Omit<ReportOptions, "outcomeId"> = {}): Promise<OutcomeReply> {
    return this.report(decision, "opt_out", undefined, options);
  }

  /**
   * Report many outcomes, by the thousand; results in order. Throws ItemsFailedError, which has the result or the error
   * of each, if some were refused or not answered in time; RequestRefusedError if the first request is refused as a whole.
   */
  async reportMany(outcomes: readonly OutcomeRequest[], options: CallOptions = {}): Promise<OutcomeReply[]> {
    const read = itemsOf("outcomes", "outcome", readOutcome);
    const seconds = within(options, this.reportSeconds);
    return allOf(await this.batches("/v1/outcomes/batch", "outcomes", outcomes, seconds, read));
  }

  /**
   * Report what users did, by the thousand; results in order. Throws ItemsFailedError, which has the result or the error
   * of each, if some were refused or not answered in time; RequestRefusedError if the first request is refused as a whole.
   */
  async events(events: readonly EventRequest[], options: CallOptions = {}): Promise<EventReply[]> {
    const read = itemsOf("events", "event", readEvent);
    const seconds = within(options, this.reportSeconds);
    return allOf(await this.batches("/v1/events", "events", events, seconds, read));
  }

  /** Where a user is, and what may be shown now (scope `read`). */
  async journey(userId: string, options: CallOptions = {}): Promise<Journey> {
    const path = `/v1/users/${encodeURIComponent(userId)}/journey`;
    return this.loop.call({ method: "GET", path }, within(options, this.reportSeconds), (json) => {
      if (typeof field(json, "stage") !== "string") throw new Error("no journey");
      return json as Journey;
    });
  }

  /** All that the ledger holds of a decision (scope `read`). */
  async receipt(decisionId: string, options: CallOptions = {}): Promise<Receipt> {
    const path = `/v1/decisions/${encodeURIComponent(decisionId)}`;
    return this.loop.call({ method: "GET", path }, within(options, this.reportSeconds), (json) => {
      if (typeof field(json, "seq") !== "number") throw new Error("no receipt");
      return json as Receipt;
    });
  }

  private async report(
    decision: Decision | string,
    kind: OutcomeRequest["kind"],
    value: number | undefined,
    options: ReportOptions,
  ): Promise<OutcomeReply> {
    const id = typeof decision === "string" ? decision : decision.decision_id;
    if (id === null) return { recorded: false, duplicate: false, late: false, notes: [NOT_SENT] };
    const outcome: OutcomeRequest = {
      decision_id: id,
      kind,
      ...(value === undefined ? {} : { value }),
      ...(typeof decision === "string" || decision.degraded || !decision.outcome_token
        ? {}
        : { outcome_token: decision.outcome_token }),
      ...(options.outcomeId === undefined ? {} : { outcome_id: options.outcomeId }),
      ...(options.occurredAt === undefined ? {} : { occurred_at: options.occurredAt.toISOString() }),
    };
    const call = post("/v1/outcomes", encoded(outcome, ""));
    return this.loop.call(call, within(options, this.reportSeconds), readOutcome);
  }

  private degraded(sent: DecisionRequest, error: unknown): Degraded {
    if (!(error instanceof ServiceUnavailableError)) throw error;
    const { fallback: nudge } = this;
    return { degraded: true, decision_id: null, propensity: null, nudge, stage: sent.stage ?? null, why: error.message };
  }

  private async batches<Result>(
    path: string,
    name: string,
    items: readonly object[],
    seconds: number,
    read: (json: unknown) => Item<Result>[],
  ): Promise<(Result | JourneyClientError)[]> {
    const raw = items.map((item, place) => encoded(item, `${name}[${place}]`));
    const of = (places: readonly number[]): Call =>
      post(path, `{${JSON.stringify(name)}:[${places.map((place) => raw[place]).join(",")}]}`);
    return this.loop.items(of, partsOf(raw, name), seconds, read);
  }
}

/** Places of the items of each request, in order. Throws RangeError for an item that is larger than a request may be. */
function partsOf(raw: readonly string[], name: string): number[][] {
  const utf8 = new TextEncoder();
  const parts: number[][] = [];
  const empty = `{"${name}":[]}`.length;
  let size = 0; // of the last part
  raw.forEach((item, place) => {
    const more = utf8.encode(item).length;
    const most = MOST_BYTES - empty;
    if (more > most) {
      throw new RangeError(`${name}[${place}] has ${more} bytes: an item may have ${most}; send less in it`);
    }
    const last = parts.at(-1);
    if (last === undefined || last.length === MOST_ITEMS || size + 1 + more > MOST_BYTES) {
      parts.push([place]);
      size = empty + more;
    } else {
      last.push(place);
      size += 1 + more; // a comma
    }
  });
  return parts;
}

/** Throws TypeError for an address that cannot be; its words do not hold the address, which may have a password in it. */
function refuseAddress(url: string): void {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed?.username || parsed?.password) {
    throw new TypeError("url holds a user name or a password: leave them out, and give the key of the service as `key`");
  }
  if (!/^https?:$/.test(parsed?.protocol ?? "")) {
    throw new TypeError("url is no address with http or https and a host: write it as http://host:port or https://host");
  }
}

function within(options: CallOptions, seconds: number): number {
  return options.seconds === undefined ? seconds : positive(options.seconds, "seconds");
}

/** The seconds, if they can be waited for. Throws RangeError: no attempt would be made, as if the service were away. */
function positive(seconds: number, name: string): number {
  if (!(seconds > 0 && seconds < Infinity)) {
    throw new RangeError(`${name} is ${seconds}: a finite number of seconds above 0`);
  }
  return seconds;
}

function withId(request: DecisionRequest): DecisionRequest {
  return request.decision_id ? request : { ...request, decision_id: crypto.randomUUID() };
}

function post(path: string, body: string): Call {
  return { method: "POST", path, body };
}

/** JSON of a message. Throws RangeError for a number that JSON does not have: it would become null, another value. */
function encoded(message: object, place: string): string {
  refuseNonFinite(message, place);
  return JSON.stringify(message);
}

function refuseNonFinite(value: unknown, place: string): void {
  if (typeof value === "number" && !Number.isFinite(value)) {
    throw new RangeError(`${place} is ${value}: JSON has no such number; leave the field out or send a finite one`);
  }
  if (Array.isArray(value)) value.forEach((inner, i) => refuseNonFinite(inner, `${place}[${i}]`));
  else if (typeof value === "object" && value !== null) {
    for (const [name, inner] of Object.entries(value)) refuseNonFinite(inner, place ? `${place}.${name}` : name);
  }
}

function allOf<Result>(results: readonly (Result | JourneyClientError)[]): Result[] {
  const good = results.filter((one): one is Exclude<typeof one, JourneyClientError> => !(one instanceof JourneyClientError));
  if (good.length < results.length) throw new ItemsFailedError(results);
  return good;
}

function field(json: unknown, name: string): unknown {
  return typeof json === "object" && json !== null ? (json as Record<string, unknown>)[name] : undefined;
}

function readDecision(json: unknown): Decided {
  const known = typeof field(json, "decision_id") === "string" && typeof field(field(json, "nudge"), "id") === "string";
  if (!known) throw new Error("no decision");
  return { ...(json as Schemas["DecisionReply"]), degraded: false };
}

function readOutcome(json: unknown): OutcomeReply {
  if (typeof field(json, "recorded") !== "boolean") throw new Error("no answer to an outcome");
  return json as OutcomeReply;
}

function readEvent(json: unknown): EventReply {
  if (typeof field(json, "recorded") !== "boolean") throw new Error("no answer to an event");
  return json as EventReply;
}

/** Reader of a batch: a list of the name `items`, each with its result under the name `result`, or with a problem. */
function itemsOf<Result>(
  items: string,
  result: string,
  read: (json: unknown) => Result,
): (json: unknown) => Item<Result>[] {
  return (json) => {
    const found = field(json, items);
    if (!Array.isArray(found)) throw new Error(`no ${items}`);
    return found.map((one: unknown): Item<Result> => {
      const status = Number(field(one, "status"));
      if (status === 200) return { result: read(field(one, result)) };
      const none = { type: "about:blank", title: "An item without a result", detail: "" };
      return { problem: { ...none, ...(field(one, "problem") as ProblemDetails | undefined), status } };
    });
  };
}
