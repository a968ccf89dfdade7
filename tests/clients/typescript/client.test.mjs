// The TypeScript client on a network, a clock and a chance that the tests make. argv: address of the built package.
import assert from "node:assert/strict";
import test from "node:test";

const client = await import(process.env.CLIENT);
const { ItemsFailedError, JourneyClient, KeyRefusedError, NO_NUDGE, RequestRefusedError, ServiceUnavailableError, userEvent } = client;

const DECIDED = { stage: "cart", nudge: { id: "discount", type: "discount", format: "banner", payload: {} }, propensity: 0.25 };
const RECORDED = { recorded: true, duplicate: false, late: false };
const BUSY = { type: "urn:journey-bandit:problem:overloaded", title: "Retry later", status: 503, detail: "full" };
const ID = "01890a5d-ac96-774b-bcce-b302099a8057";
const AWAY = new TypeError("fetch failed");

/** Replies are given one after the other, the last again and again: [status, headers, body] or an error. */
function network(replies, { takes = 0 } = {}) {
  const seen = { now: 1000, sent: [], pauses: [] };
  const fetch = async (url, { method, headers, body, signal, redirect }) => {
    seen.sent.push({ url, method, headers, body, redirect });
    seen.now += takes;
    assert.equal(signal.aborted, false);
    const reply = replies[Math.min(seen.sent.length, replies.length) - 1];
    if (reply instanceof Error) throw reply;
    const [status, answered, content] = reply;
    const made = typeof content === "function" ? content(JSON.parse(body)) : content;
    return new Response(typeof made === "string" ? made : JSON.stringify(made), { status, headers: answered });
  };
  const sleep = async (seconds) => {
    seen.pauses.push(seconds);
    seen.now += seconds;
  };
  const bodies = () => seen.sent.map(({ body }) => JSON.parse(body));
  return { seen, bodies, options: { fetch, sleep, clock: () => seen.now, draw: () => 0.5 } };
}

const made = (net, options = {}) => new JourneyClient("http://nudges.test/", { ...net.options, ...options });
const decided = (asked) => ({ ...DECIDED, decision_id: asked.decision_id });

for (const failure of [AWAY, [429, {}, ""], [500, {}, "{}"], [502, {}, "<html>"], [503, {}, BUSY], [504, {}, ""], [408, {}, ""],
  [200, {}, "<html>"], [200, {}, "{}"], [200, {}, "[1]"]]) {
  test(`the same request is sent until it is answered: ${failure}`, async () => {
    const net = network([failure, failure, [200, {}, decided]]);
    const got = await made(net).decide({ user_id: "u-1", context: { price: 9.5 } });
    const [first, ...others] = net.seen.sent.map(({ body }) => body);
    assert.deepEqual(others, [first, first]);
    assert.equal(got.degraded, false);
    assert.equal(got.decision_id, JSON.parse(first).decision_id);
    assert.match(got.decision_id, /^[0-9a-f]{8}-[0-9a-f]{4}-4/);
    assert.deepEqual(net.seen.pauses, [0.025, 0.05]); // half of 0.05 and 0.1
    assert.equal(net.seen.sent[0].url, "http://nudges.test/v1/decisions");
    assert.equal(net.seen.sent[0].redirect, "manual");
  });
}

for (const [headers, asked] of [
  [{ "Retry-After": "3" }, 3], [{ "Retry-After": "soon" }, 0], [{ "Retry-After": "-3" }, 0],
  [{ "Retry-After": "Thu, 01 Jan 2026 00:00:07 GMT", Date: "Thu, 01 Jan 2026 00:00:03 GMT" }, 4],
  [{ "Retry-After": "Thu, 01 Jan 2026 00:00:01 GMT", Date: "Thu, 01 Jan 2026 00:00:03 GMT" }, 0],
  [{ "Retry-After": "Thu, 01 Jan 2026 00:00:07 GMT" }, 0],
]) {
  test(`a retry waits as long as it is asked to, and a drawn time more: ${JSON.stringify(headers)}`, async () => {
    const net = network([[429, headers, ""], [200, {}, RECORDED]]);
    assert.equal((await made(net).reward(ID, 1)).recorded, true);
    assert.deepEqual(net.seen.pauses, [asked + 0.025]);
    assert.deepEqual(net.bodies()[0], { decision_id: ID, kind: "reward", value: 1 });
  });
}

test("the pause is bounded", async () => {
  const net = network([AWAY]);
  const retries = { tries: 9, shortest: 0.1, longest: 0.8 };
  await assert.rejects(made(net, { retries, reportSeconds: 1e9 }).activate(ID), (error) => {
    assert.ok(error instanceof ServiceUnavailableError);
    assert.equal(error.name, "ServiceUnavailableError");
    assert.equal(error.attempts, 9);
    return true;
  });
  assert.deepEqual(net.seen.pauses, [0.05, 0.1, 0.2, 0.4, 0.4, 0.4, 0.4, 0.4]);
});

test("nothing is waited for beyond the deadline", async () => {
  const net = network([[503, { "Retry-After": "1" }, BUSY]]);
  const got = await made(net, { decideSeconds: 0.9 }).decide({ user_id: "u-1" });
  assert.deepEqual([got.degraded, net.seen.sent.length, net.seen.pauses], [true, 1, []]);
  assert.match(got.why, /503 full/);
  const slow = network([AWAY], { takes: 0.2 });
  const retries = { tries: 100, shortest: 0.1, longest: 0.1 };
  await made(slow, { retries, decideSeconds: 1 }).decide({ user_id: "u-1" });
  assert.equal(slow.seen.sent.length, 4);
});

test("an answer that does not come is given up", async () => {
  const fetch = (_, { signal }) => new Promise((_, fail) => signal.addEventListener("abort", () => fail(signal.reason)));
  const keep = setInterval(() => {}, 1000); // timers of signals keep no process alive
  const got = await new JourneyClient("http://nudges.test", { fetch, decideSeconds: 0.02 }).decide({ user_id: "u-1" });
  clearInterval(keep);
  assert.equal(got.degraded, true);
  assert.match(got.why, /TimeoutError/);
});

test("where the service is away the fallback is given, and nothing is reported for it", async () => {
  const net = network([AWAY]);
  const got = await made(net).decide({ user_id: "u-1", stage: "cart" });
  assert.deepEqual([got.nudge, got.degraded, got.decision_id, got.propensity], [NO_NUDGE, true, null, null]);
  const before = net.seen.sent.length;
  for (const name of ["reward", "activate", "retract", "optOut"]) assert.equal((await made(net)[name](got)).recorded, false);
  assert.equal(net.seen.sent.length, before);
  const fallback = { id: "free_returns", type: "info", format: "banner", payload: {} };
  assert.equal((await made(net, { fallback }).decide({ user_id: "u-1" })).nudge, fallback);
});

for (const [status, name] of [[400, "InvalidRequestError"], [401, "KeyRefusedError"], [403, "KeyRefusedError"], [404, "NotFoundError"],
  [409, "IdConflictError"], [413, "InvalidRequestError"], [415, "InvalidRequestError"], [405, "RequestRefusedError"],
  [301, "RequestRefusedError"]]) {
  test(`a refusal has a type and the fields of its problem, and is not sent again: ${status}`, async () => {
    const errors = [{ field: "context.prce", problem: "unknown feature", fix: "did you mean `price`?" }];
    const problem = { type: "urn:x", title: "No", status, detail: "context.prce: unknown feature", errors };
    const net = network([[status, {}, problem]]);
    await assert.rejects(made(net).decide({ user_id: "u-1" }), (error) => {
      assert.ok(error instanceof RequestRefusedError);
      assert.deepEqual([error.name, error.status, error.errors], [name, status, errors]);
      assert.equal(error.message, `${status} No: context.prce: unknown feature`);
      return true;
    });
    assert.equal(net.seen.sent.length, 1);
    await assert.rejects(made(network([[status, {}, "<html>"]])).decide({ user_id: "u-1" }), { name });
  });
}

test("an outcome without its token names the field, and is no matter of the key", async () => {
  const errors = [{ field: "outcome_token", problem: "missing", fix: "send the `outcome_token`" }];
  const problem = { type: "urn:journey-bandit:problem:forbidden", title: "No", status: 403, detail: "", errors };
  const named = { name: "InvalidRequestError", status: 403, errors };
  await assert.rejects(made(network([[403, {}, problem]])).reward(ID, 1), named);
  const batch = network([[200, {}, { outcomes: [{ status: 403, problem }] }]]);
  await assert.rejects(made(batch).reportMany([{ decision_id: ID, kind: "reward", value: 1 }]), (error) => {
    const [{ name, status, errors: told }] = error.results;
    assert.deepEqual({ name, status, errors: told }, named);
    return true;
  });
});

test("only items that were not taken are sent again", async () => {
  const event = { recorded: true, duplicate: false, known: true };
  const first = { events: [{ status: 200, event }, { status: 503, problem: BUSY }, { status: 503, problem: BUSY }] };
  const rest = { events: [{ status: 200, event }, { status: 200, event: { ...event, known: false } }] };
  const net = network([[200, {}, first], [200, {}, rest]]);
  const events = ["a", "b", "c"].map((user_id) => userEvent({ event: "Viewed", user_id }));
  assert.deepEqual((await made(net).events(events)).map(({ known }) => known), [true, true, false]);
  assert.deepEqual(net.bodies(), [{ events }, { events: events.slice(1) }]);
  assert.equal(new Set(events.map(({ event_id }) => event_id)).size, 3);
});

test("what fails of a batch is thrown with what did not", async () => {
  const wrong = { type: "urn:x", title: "No", status: 404, detail: "no such decision", errors: [] };
  const reply = { outcomes: [{ status: 200, outcome: RECORDED }, { status: 404, problem: wrong }, { status: 503, problem: BUSY }] };
  const net = network([[200, {}, reply], AWAY]);
  const outcomes = [0, 1, 2].map((n) => ({ decision_id: ID, kind: "reward", outcome_id: String(n) }));
  await assert.rejects(made(net).reportMany(outcomes), (error) => {
    assert.ok(error instanceof ItemsFailedError);
    assert.match(error.message, /2 of 3 items failed; the first, item 1: 404 No/);
    const [good, refused, lost] = error.results;
    assert.deepEqual([good, refused.status, lost instanceof ServiceUnavailableError], [RECORDED, 404, true]);
    return true;
  });
  assert.deepEqual(net.bodies().map((body) => body.outcomes.length), [3, 1, 1, 1, 1, 1]);
});

const EVENT = { recorded: true, duplicate: false, known: true };
const GONE = { type: "urn:x", title: "Who asks", status: 401, detail: "no such key", errors: [] };
const taken = ({ events }) => ({ events: events.map(() => ({ status: 200, event: EVENT })) });
const many = (count, note) => Array.from({ length: count }, (_, n) =>
  ({ event: "Viewed", user_id: "u", event_id: String(n), ...(note === undefined ? {} : { properties: { note } }) }));

test("a refusal between two requests of a batch loses no result", async () => {
  const net = network([[200, {}, taken], [401, {}, GONE]]);
  await assert.rejects(made(net).events(many(2500)), (error) => {
    assert.ok(error instanceof ItemsFailedError);
    assert.match(error.message, /^1500 of 2500 items failed; the first, item 1000: 401/);
    assert.deepEqual(error.results.slice(0, 1000), Array(1000).fill(EVENT));
    assert.ok(error.results.slice(1000).every((one) => one instanceof KeyRefusedError));
    return true;
  });
  assert.deepEqual(net.bodies().map((body) => body.events.length), [1000, 1000]);
});

test("a refusal of the items that are sent again loses no result", async () => {
  const first = { events: [{ status: 503, problem: BUSY }, { status: 200, event: EVENT }] };
  const net = network([[200, {}, first], [401, {}, GONE]]);
  await assert.rejects(made(net).events(many(2)), (error) => {
    assert.match(error.message, /^1 of 2 items failed; the first, item 0: 401/);
    assert.deepEqual([error.results[0].name, error.results[1]], ["KeyRefusedError", EVENT]);
    return true;
  });
  assert.equal(net.seen.sent.length, 2);
});

test("decisions before a refusal are kept", async () => {
  const answer = ({ decisions }) => ({ decisions: decisions.map((one) => ({ status: 200, decision: decided(one) })) });
  const requests = Array.from({ length: 1001 }, () => ({ user_id: "u", decision_id: crypto.randomUUID() }));
  await assert.rejects(made(network([[200, {}, answer], [401, {}, GONE]])).decideMany(requests), (error) => {
    assert.match(error.message, /^1 of 1001 items failed/);
    assert.deepEqual(error.results.slice(0, 1000).map((one) => one.decision_id), requests.slice(0, 1000).map((one) => one.decision_id));
    return true;
  });
});

test("a part that may have been recorded is told beside a later refusal; a first request that is refused is the batch's error", async () => {
  await assert.rejects(made(network([AWAY, [401, {}, GONE]]), { retries: { tries: 1 } }).events(many(1001)), (error) => {
    assert.deepEqual(error.results.slice(999).map((one) => one.name), ["ServiceUnavailableError", "KeyRefusedError"]);
    return true;
  });
  const net = network([[401, {}, GONE]]);
  await assert.rejects(made(net).events(many(1001)), { name: "KeyRefusedError" });
  assert.equal(net.seen.sent.length, 1);
});

test("items whose answer was lost before a refusal may have been recorded", async () => {
  const words = "TypeError: fetch failed; then it was refused: 401 Who asks: no such key";
  const net = network([[200, {}, taken], AWAY, [401, {}, GONE]]);
  await assert.rejects(made(net).events(many(2500)), (error) => {
    assert.match(error.message, /^1500 of 2500 items failed; the first, item 1000: no answer/);
    for (const one of error.results.slice(1000, 2000)) assert.deepEqual([one.name, one.attempts, one.why], ["ServiceUnavailableError", 2, words]);
    assert.ok(error.results.slice(2000).every((one) => one instanceof KeyRefusedError));
    return true;
  });
  assert.deepEqual(net.bodies().map((body) => body.events.length), [1000, 1000, 1000]);
  await assert.rejects(made(network([AWAY, [401, {}, GONE]])).reward(ID, 1), { name: "ServiceUnavailableError", why: words });
  const got = await made(network([AWAY, [401, {}, GONE]])).decide({ user_id: "u-1" });
  assert.deepEqual([got.degraded, got.why.endsWith(words)], [true, true]);
});

test("a refusal is the error of items that were surely not recorded", async () => {
  const unknown = { ...BUSY, type: "urn:journey-bandit:problem:unavailable" };
  const mixed = (sent) => ({ events: [{ status: 503, problem: BUSY }, { status: 503, problem: unknown }, ...taken(sent).events.slice(2)] });
  const [lost, refused] = ["ServiceUnavailableError", "KeyRefusedError"];
  for (const [first, expected] of [[AWAY, [lost, lost, lost, refused]], [[504, {}, ""], [lost, lost, lost, refused]],
    [[503, {}, unknown], [lost, lost, lost, refused]], [[200, {}, mixed], [refused, lost, undefined, refused]]]) {
    await assert.rejects(made(network([first, [401, {}, GONE]])).events(many(1001)), (error) => {
      assert.deepEqual([...error.results.slice(0, 3), error.results[1000]].map((one) => one.name), expected);
      return true;
    });
  }
  for (const first of [[429, {}, ""], [503, {}, BUSY], [503, {}, { ...BUSY, type: "urn:journey-bandit:problem:limit-reached" }]]) {
    await assert.rejects(made(network([first, [401, {}, GONE]])).reward(ID, 1), { name: refused });
    await assert.rejects(made(network([first, [401, {}, GONE]])).events(many(2)), { name: refused });
  }
});

test("tries bound the requests of a batch, whatever becomes of them", async () => {
  const busy = ({ events }) => ({ events: events.map(() => ({ status: 503, problem: BUSY })) });
  const net = network([AWAY, [200, {}, busy], [429, { "Retry-After": "1" }, ""], [200, {}, busy]]);
  await assert.rejects(made(net, { retries: { tries: 4 } }).events(many(3)), /no answer of the service after 4 attempts: 503 full/);
  assert.deepEqual([net.seen.sent.length, net.seen.pauses], [4, [0.025, 0.05, 1.1]]);
});

test("no request is larger than the service takes", async () => {
  const bytes = ({ body }) => Buffer.byteLength(body);
  const net = network([[200, {}, taken]]);
  const events = many(1500, "é".repeat(2000)); // some 4,100 bytes each
  assert.equal((await made(net).events(events)).length, 1500);
  const largest = Math.max(...net.seen.sent.map(bytes));
  assert.ok(largest <= 4_000_000 && largest > 3_995_800, String(largest));
  assert.deepEqual(net.bodies().flatMap((body) => body.events), events);
  const full = network([[200, {}, taken]]);
  const room = 4_000_000 - JSON.stringify({ events: many(1, "") }).length;
  const [small] = many(1);
  await made(full).events([small, ...many(1, "x".repeat(room)), small]);
  assert.deepEqual(full.bodies().map((body) => body.events.length), [1, 1, 1]);
  assert.equal(bytes(full.seen.sent[1]), 4_000_000);
  await assert.rejects(made(full).events([small, ...many(1, "x".repeat(room + 1))]), /^RangeError: events\[1\] has 3999988 bytes: an item may have 3999987/);
  assert.equal(full.seen.sent.length, 3);
});

for (const [more, parts] of [[0, [3]], [1, [2, 1]]]) {
  test(`items share a request to its last byte: ${more} more`, async () => {
    const net = network([[200, {}, taken]]);
    const room = 4_000_000 - JSON.stringify({ events: [...many(2), ...many(1, "")] }).length;
    await made(net).events([...many(2), ...many(1, "x".repeat(room + more))]);
    assert.deepEqual(net.bodies().map((body) => body.events.length), parts);
  });
}

test("reports of a decision bring the token that came with it", async () => {
  const token = "ab".repeat(16);
  const net = network([[200, {}, RECORDED]]);
  const decision = { degraded: false, decision_id: ID, outcome_token: token };
  for (const name of ["reward", "activate", "retract", "optOut"]) await made(net)[name](decision);
  await made(net).reward(ID);
  await made(net).reward({ ...decision, outcome_token: undefined });
  assert.deepEqual(net.bodies().map((body) => body.outcome_token), [...Array(4).fill(token), undefined, undefined]);
});

test("an opt-out says so and has no value", async () => {
  const net = network([[200, {}, RECORDED]]);
  assert.equal((await made(net).optOut(ID, { occurredAt: new Date("2026-01-02T00:00:00Z") })).recorded, true);
  assert.deepEqual(net.bodies(), [{ decision_id: ID, kind: "opt_out", occurred_at: "2026-01-02T00:00:00.000Z" }]);
  assert.equal(net.seen.sent[0].url, "http://nudges.test/v1/outcomes");
});

test("an address with a password is refused, and not told", () => {
  for (const url of ["https://user:secret@nudges.test", "https://secret@nudges.test", "htp://user:secret@nudges.test",
    "user:secret@nudges.test", "https://user:secret@nudges.test:port", "https://:secret@nudges.test"]) {
    assert.throws(() => new JourneyClient(url), (error) =>
      error instanceof TypeError && /^url (holds a user name or a password|is no address)/.test(error.message) && !error.message.includes("secret"));
  }
});

test("decisions of a batch that do not come are degraded", async () => {
  const answer = ({ decisions: [first] }) => ({ decisions: [{ status: 200, decision: decided(first) }, { status: 503, problem: BUSY }] });
  const net = network([[200, {}, answer], AWAY]);
  const [good, lost] = await made(net).decideMany([{ user_id: "a" }, { user_id: "b" }]);
  assert.deepEqual([good.degraded, lost.degraded, lost.decision_id], [false, true, null]);
  const ids = net.bodies().map(({ decisions }) => decisions.at(-1).decision_id);
  assert.equal(new Set(ids).size, 1); // the second one's, in every attempt
});

test("long batches are sent by the thousand, and answers of another number are none", async () => {
  const event = { recorded: true, duplicate: false, known: true };
  const net = network([[200, {}, ({ events }) => ({ events: events.map(() => ({ status: 200, event })) })]]);
  const events = Array.from({ length: 2500 }, (_, n) => ({ event: "Viewed", user_id: "u", event_id: String(n) }));
  assert.equal((await made(net).events(events)).length, 2500);
  assert.deepEqual(net.bodies().map((body) => body.events.length), [1000, 1000, 500]);
  assert.deepEqual(net.bodies().flatMap((body) => body.events), events);
  const short = made(network([[200, {}, { outcomes: [] }]]));
  await assert.rejects(short.reportMany([{ decision_id: ID, kind: "activation" }]), /0 answers to 1 items/);
});

test("numbers that JSON lacks are refused by name", async () => {
  const net = network([[200, {}, {}]]);
  for (const value of [NaN, Infinity, -Infinity]) {
    await assert.rejects(made(net).decide({ user_id: "u", context: { price: value } }), /context\.price is -?(NaN|Infinity)/);
    await assert.rejects(made(net).reward(ID, value), RangeError);
    const properties = { items: [{ price: value }] };
    await assert.rejects(made(net).events([userEvent({ event: "V", user_id: "u", properties })]), /events\[0\]\.properties\.items\[0\]\.price is/);
  }
  assert.equal(net.seen.sent.length, 0);
});

test("ids of users are one part of a path, and the key goes in its header", async () => {
  const net = network([[200, {}, { stage: "cart" }]]);
  assert.equal((await made(net, { key: "backend.secret" }).journey("a/b?c=é")).stage, "cart");
  assert.equal(net.seen.sent[0].url, "http://nudges.test/v1/users/a%2Fb%3Fc%3D%C3%A9/journey");
  assert.equal(net.seen.sent[0].headers["X-API-Key"], "backend.secret");
});

test("what could never reach a service is refused at once", async () => {
  for (const url of ["nudges.test:8080", "ftp://nudges.test", "http://", ""]) assert.throws(() => new JourneyClient(url), /url is/);
  for (const key of ["backend.secret\n", "backend. secret", "backend.sécret"]) {
    assert.throws(() => new JourneyClient("http://nudges.test", { key }), (error) => !error.message.includes("secret"));
  }
  for (const seconds of [0, -1, NaN, Infinity]) {
    assert.throws(() => new JourneyClient("http://nudges.test", { decideSeconds: seconds }), /decideSeconds is/);
    assert.throws(() => new JourneyClient("http://nudges.test", { reportSeconds: seconds }), RangeError);
    const ready = new JourneyClient("http://nudges.test", { fetch: () => assert.fail("sent") });
    for (const call of [() => ready.decide({ user_id: "u" }, { seconds }), () => ready.events([], { seconds }), () => ready.journey("u", { seconds })]) {
      await assert.rejects(call(), /seconds is/);
    }
  }
  for (const retries of [{ tries: 0 }, { tries: 1.5 }, { shortest: 0 }, { longest: 0.01 }, { longest: Infinity }]) {
    assert.throws(() => new JourneyClient("http://nudges.test", { retries }), RangeError);
  }
});
