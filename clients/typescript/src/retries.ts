/**
 * Retries until a deadline. Every request may be repeated, because its ids are made before the first attempt.
 */
import {
  JourneyClientError,
  type ProblemDetails,
  RequestRefusedError,
  ServiceUnavailableError,
  refusal,
} from "./errors.js";

/** Statuses after which it is not known whether a request was recorded, or known that it was not. */
const RETRIED: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);
/** Types of the problems with which the service says that nothing was recorded. */
const NOT_RECORDED: ReadonlySet<string> = new Set([
  "urn:journey-bandit:problem:overloaded",
  "urn:journey-bandit:problem:limit-reached",
]);
const LONGEST_TIMER = 2 ** 31 - 1; // milliseconds

/**
 * How often and how soon a request is repeated, always within the deadline of its call. `tries`: requests of one call at
 * most; of a batch that is sent in several parts, of each part. The pause after attempt n (from 0) is drawn evenly between
 * 0 and min(`longest`, `shortest` · 2ⁿ) seconds ("full jitter"), after the time that a Retry-After asks for.
 */
export interface RetryPolicy {
  readonly tries: number;
  readonly shortest: number;
  readonly longest: number;
}

/** Network, time and chance, which tests replace. `clock` in seconds of any origin; `draw` gives numbers in [0, 1). */
export interface World {
  readonly fetch: typeof fetch;
  readonly clock: () => number;
  readonly sleep: (seconds: number) => Promise<void>;
  readonly draw: () => number;
}

/** A request: method, path below the service's address, and body. */
export interface Call {
  readonly method: "GET" | "POST";
  readonly path: string;
  readonly body?: string;
}

/** An answer of a batch: a result, or the problem of the item. */
export type Item<Result> = { readonly result: Result } | { readonly problem: ProblemDetails };

type Failure = { readonly why: string; readonly asked: number; readonly notRecorded: boolean };

/** Sends calls to one service until they are answered. */
export class RetryLoop {
  constructor(
    private readonly address: string,
    private readonly headers: Readonly<Record<string, string>>,
    private readonly policy: RetryPolicy,
    private readonly world: World,
  ) {
    const { tries, shortest, longest } = policy;
    if (!(Number.isInteger(tries) && tries >= 1)) throw new RangeError(`tries is ${tries}: at least 1, which is no retry`);
    if (!(shortest > 0 && shortest <= longest && longest < Infinity)) {
      throw new RangeError(`shortest is ${shortest} and longest ${longest}: 0 < shortest ≤ longest, seconds`);
    }
  }

  private now(): number {
    return this.world.clock();
  }

  /**
   * What `read` makes of the JSON of a 200; `read` throws for what it does not know. Throws RequestRefusedError, or
   * ServiceUnavailableError if nothing usable came within `seconds`.
   */
  async call<Result>(call: Call, seconds: number, read: (json: unknown) => Result): Promise<Result> {
    const [result] = await this.items(() => call, [[0]], seconds, (json) => [{ result: read(json) }]);
    if (result instanceof JourneyClientError) throw result;
    return result as Result;
  }

  /**
   * Result or error of each item of a batch, in order. It is sent in `parts`, each the places of some items. `of` gives
   * the call for the items at some places: those whose own status says so are sent again, without the others. Each part
   * has `tries` requests, all have one deadline.
   *
   * A request that is refused as a whole throws RequestRefusedError if no item has a result yet, and none may have been
   * recorded by an earlier attempt. Otherwise the refusal is the error of its items and of those after them, which are not
   * sent; items that an earlier attempt may have recorded get ServiceUnavailableError.
   */
  async items<Result>(
    of: (places: readonly number[]) => Call,
    parts: readonly (readonly number[])[],
    seconds: number,
    read: (json: unknown) => readonly Item<Result>[],
  ): Promise<(Result | JourneyClientError)[]> {
    const end = this.now() + seconds;
    const results = new Map<number, Result | JourneyClientError>();
    const places = parts.flat();
    for (const part of parts) {
      try {
        await this.part(of, part, end, read, results);
      } catch (error) {
        if (!(error instanceof RequestRefusedError) || results.size === 0) throw error;
        for (const place of places) if (!results.has(place)) results.set(place, error);
        break;
      }
    }
    return places.map((place) => results.get(place) as Result | JourneyClientError);
  }

  /**
   * Puts the result or error of each item of a part into `results`. Throws RequestRefusedError; of the items that still
   * waited, `results` then has only those that an earlier attempt may have recorded.
   */
  private async part<Result>(
    of: (places: readonly number[]) => Call,
    part: readonly number[],
    end: number,
    read: (json: unknown) => readonly Item<Result>[],
    results: Map<number, Result | JourneyClientError>,
  ): Promise<void> {
    let waiting = new Map(part.map((place) => [place, "the deadline had passed before the first"]));
    const unknown = new Map<number, string>(); // items that an attempt may have recorded, and what became of that attempt
    let attempts = 0;
    while (end - this.now() > 0) {
      const places = [...waiting.keys()];
      attempts += 1;
      let answer: { readonly result: readonly Item<Result>[] } | Failure;
      try {
        answer = await this.attempt(of(places), end - this.now(), (json) => counted(read(json), places.length));
      } catch (error) {
        if (!(error instanceof RequestRefusedError)) throw error;
        for (const place of places) {
          const why = unknown.get(place);
          if (why === undefined) continue;
          results.set(place, new ServiceUnavailableError(attempts, `${why}; then it was refused: ${error.message}`));
        }
        throw error;
      }
      if ("result" in answer) {
        waiting = new Map();
        answer.result.forEach((item, i) => {
          const place = places[i]!;
          if ("result" in item) results.set(place, item.result);
          else if (RETRIED.has(item.problem.status)) {
            const why = `${item.problem.status} ${item.problem.detail}`;
            waiting.set(place, why);
            if (!notRecorded(item.problem)) unknown.set(place, why);
          } else results.set(place, refusal(item.problem));
        });
      } else {
        const { why, notRecorded } = answer;
        waiting = new Map(places.map((place) => [place, why]));
        if (!notRecorded) for (const place of places) unknown.set(place, why);
      }
      const pause = this.pause(attempts - 1, "result" in answer ? 0 : answer.asked);
      if (waiting.size === 0 || attempts === this.policy.tries || this.now() + pause >= end) break;
      await this.world.sleep(pause);
    }
    for (const [place, why] of waiting) results.set(place, new ServiceUnavailableError(attempts, why));
  }

  private pause(attempt: number, asked: number): number {
    return asked + this.world.draw() * Math.min(this.policy.longest, this.policy.shortest * 2 ** attempt);
  }

  private async attempt<Result>(
    call: Call,
    seconds: number,
    read: (json: unknown) => Result,
  ): Promise<{ readonly result: Result } | Failure> {
    let response: Response;
    let text: string;
    try {
      response = await this.world.fetch(this.address + call.path, {
        method: call.method,
        headers: this.headers,
        redirect: "manual",
        signal: AbortSignal.timeout(Math.min(LONGEST_TIMER, Math.max(1, Math.ceil(seconds * 1000)))),
        ...(call.body === undefined ? {} : { body: call.body }),
      });
      text = await response.text();
    } catch (error) {
      return { why: said(error), asked: 0, notRecorded: false };
    }
    if (response.status === 200) {
      try {
        return { result: read(JSON.parse(text)) };
      } catch (error) {
        return { why: `200 with a body that cannot be read: ${said(error)}`, asked: 0, notRecorded: false };
      }
    }
    const problem = problemOf(response.status, text);
    if (!RETRIED.has(response.status)) throw refusal(problem);
    const why = `${response.status} ${problem.detail}`.trim();
    return { why, asked: retryAfter(response.headers), notRecorded: notRecorded(problem) };
  }
}

function said(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : `${error.name}: ${error.message}`;
}

function notRecorded(problem: ProblemDetails): boolean {
  return problem.status === 429 || NOT_RECORDED.has(problem.type);
}

function counted<Result>(answers: readonly Item<Result>[], count: number): readonly Item<Result>[] {
  if (answers.length !== count) throw new Error(`${answers.length} answers to ${count} items`);
  return answers;
}

/** Problem details of a refusal; what is no problem document, as of a proxy, is told by its status alone. */
function problemOf(status: number, text: string): ProblemDetails {
  const none = { type: "about:blank", title: "The answer is no problem document", status, detail: text.slice(0, 200) };
  try {
    const told: unknown = JSON.parse(text);
    if (typeof told !== "object" || told === null || !("title" in told)) return none;
    return { ...none, detail: "", errors: [], ...(told as Partial<ProblemDetails>), status };
  } catch {
    return none;
  }
}

/**
 * Seconds that a Retry-After asks for, 0 without one that can be read. A time is compared with the answer's own Date:
 * clocks of two machines are not.
 */
function retryAfter(headers: Headers): number {
  const asked = (headers.get("Retry-After") ?? "").trim();
  if (/^\d+$/.test(asked)) return Number(asked);
  const wait = (Date.parse(asked) - Date.parse(headers.get("Date") ?? "")) / 1000;
  return wait > 0 ? wait : 0;
}
